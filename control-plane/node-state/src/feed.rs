//! Informers -> index: what changed in the cluster becomes what nodes should know.
//!
//! Handlers run on the informers' tasks and only touch the index; nothing here waits.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use control_plane_client::informer::{Change, Subscription};
use control_plane_client::informers::Informers;
use control_plane_client::store::Cached;
use control_plane_service_model::{join, wire};
use parking_lot::Mutex;
use proto::agent::v1 as pb;
use proto_api::types::core::v1::{ConfigMap, Node, Pod, Secret, Service};
use proto_api::types::discovery::v1::EndpointSlice;

use crate::index::Index;
use crate::item::{Item, ItemKey, Source};

/// Keeps the index fed; dropping it ends that.
#[derive(Debug)]
pub(crate) struct Feed {
    _subscriptions: Vec<Subscription>,
}

/// The slices of each service, by slice name.
type Slices = Mutex<HashMap<String, BTreeMap<Arc<str>, Arc<Cached<EndpointSlice>>>>>;

impl Feed {
    /// Waits for the first lists, then keeps the index fed.
    pub(crate) async fn start(informers: &Informers, index: &Arc<Index>) -> Self {
        let subscriptions = vec![
            configuration::<ConfigMap>(informers, index, pb::Type::ConfigMap, Source::ConfigMap),
            configuration::<Secret>(informers, index, pb::Type::Secret, Source::Secret),
            slices(informers, index),
            services(informers, index),
            nodes(informers, index),
            pods(informers, index),
        ];
        informers.of::<ConfigMap>().synced().await;
        informers.of::<Secret>().synced().await;
        informers.of::<EndpointSlice>().synced().await;
        informers.of::<Service>().synced().await;
        informers.of::<Node>().synced().await;
        informers.of::<Pod>().synced().await;
        Self {
            _subscriptions: subscriptions,
        }
    }
}

fn configuration<K: control_plane_client::kind::Kind>(
    informers: &Informers,
    index: &Arc<Index>,
    kind: pb::Type,
    source: fn(Arc<Cached<K>>) -> Source,
) -> Subscription {
    let index = Arc::clone(index);
    informers.of::<K>().subscribe(move |change| {
        let key = ItemKey::new(kind, change.object().key.to_string());
        let item = change
            .new_state()
            .map(|new| Item::new(new.revision, source(Arc::clone(new))));
        index.set_configuration(&key, item);
    })
}

fn pods(informers: &Informers, index: &Arc<Index>) -> Subscription {
    let index = Arc::clone(index);
    informers.of::<Pod>().subscribe(move |change| {
        // A successor of the same name shows as a modification: the old uid must go.
        if let (Some(old), Some(new)) = (change.old(), change.new_state())
            && old.metadata.uid != new.metadata.uid
        {
            index.set_pod(&pod_key(old), None);
        }
        let item = change
            .new_state()
            .map(|new| Item::new(new.revision, Source::Pod(Arc::clone(new))));
        index.set_pod(&pod_key(change.object()), item);
    })
}

fn pod_key(pod: &Cached<Pod>) -> ItemKey {
    ItemKey::new(pb::Type::Pod, pod.metadata.uid.clone().unwrap_or_default())
}

fn services(informers: &Informers, index: &Arc<Index>) -> Subscription {
    let index = Arc::clone(index);
    informers.of::<Service>().subscribe(move |change| {
        let key = ItemKey::new(pb::Type::Service, change.object().key.to_string());
        let model = change
            .new_state()
            .map(|new| (new.revision, join::service(&new.value)));
        // A change of the status or of labels that nodes do not see is no change for them.
        let before = change.old().map(|old| join::service(&old.value));
        if model.as_ref().map(|(_, now)| now) == before.as_ref() {
            return;
        }
        let item = model.map(|(version, now)| Item::message(version, &pb::Service::from(&now)));
        index.set_cluster(&key, item);
    })
}

fn nodes(informers: &Informers, index: &Arc<Index>) -> Subscription {
    let index = Arc::clone(index);
    informers.of::<Node>().subscribe(move |change| {
        let name = &change.object().key.name;
        let key = ItemKey::new(pb::Type::NodeRoute, Arc::clone(name));
        let Some(new) = change.new_state() else {
            index.set_cluster(&key, None);
            index.forget_node(name);
            return;
        };
        let route = join::node_route(&new.value);
        let before = match change {
            Change::Modified { old, .. } => Some(join::node_route(&old.value)),
            Change::Added(_) | Change::Deleted(_) => None,
        };
        if before.as_ref() != Some(&route) {
            let message = pb::NodeRoute::from(&route);
            index.set_cluster(&key, Some(Item::message(new.revision, &message)));
        }
    })
}

fn slices(informers: &Informers, index: &Arc<Index>) -> Subscription {
    let index = Arc::clone(index);
    let known: Slices = Mutex::default();
    informers.of::<EndpointSlice>().subscribe(move |change| {
        let service_key = |slice: &Cached<EndpointSlice>| {
            let service = join::service_of(&slice.value)?;
            Some(format!("{}/{service}", slice.key.namespace))
        };
        let mut known = known.lock();
        let left = change
            .old()
            .and_then(|old| Some((service_key(old)?, &old.key.name)));
        let entered = change
            .new_state()
            .and_then(|new| Some((service_key(new)?, new)));
        if let Some((service, name)) = &left
            && entered.as_ref().is_none_or(|(there, _)| there != service)
        {
            if let Some(slices) = known.get_mut(service) {
                slices.remove(*name);
            }
            publish(&index, &mut known, service, change.object().revision);
        }
        if let Some((service, new)) = entered {
            let slices = known.entry(service.clone()).or_default();
            slices.insert(Arc::clone(&new.key.name), Arc::clone(new));
            publish(&index, &mut known, &service, new.revision);
        }
    })
}

fn publish(
    index: &Index,
    known: &mut HashMap<String, BTreeMap<Arc<str>, Arc<Cached<EndpointSlice>>>>,
    service: &str,
    version: u64,
) {
    let key = ItemKey::new(pb::Type::Endpoints, service);
    let Some(slices) = known.get(service).filter(|slices| !slices.is_empty()) else {
        known.remove(service);
        index.set_cluster(&key, None);
        return;
    };
    let endpoints = join::endpoints(slices.values().map(|slice| &slice.value));
    index.set_cluster(
        &key,
        Some(Item::message(version, &wire::encode_endpoints(&endpoints))),
    );
}
