//! The ownership graph, read from the shared stores: no copy of its own, no discovery, no virtual nodes.

use std::sync::Arc;

use control_plane_client::{
    Change, Informer, Informers, Kind, ObjectKey, Resource, Subscription, WorkQueue, resources,
};
use futures::future::BoxFuture;
use proto_api::types::apps::v1::{Deployment, ReplicaSet};
use proto_api::types::coordination::v1::Lease;
use proto_api::types::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, Pod, Secret, Service, ServiceAccount,
};
use proto_api::types::discovery::v1::EndpointSlice;
use proto_api::types::meta::v1::ObjectMeta;

use super::plan::{FOREGROUND, Item, ORPHAN};

/// What the collector works on.
pub(super) type Key = (Resource, ObjectKey);

/// One kind of the graph.
trait Vertices: Send + Sync {
    fn resource(&self) -> Resource;
    fn get(&self, key: &ObjectKey) -> Option<Item>;
    fn dependents(&self, uid: &str) -> Vec<Item>;
    fn synced(&self) -> BoxFuture<'_, ()>;
    fn subscribe(&self, on: Box<dyn Fn(Seen<'_>) + Send + Sync>) -> Subscription;
    fn owned(&self) -> Vec<Key>;
}

/// A change of one object, without its kind.
struct Seen<'a> {
    resource: Resource,
    key: &'a ObjectKey,
    old: Option<&'a ObjectMeta>,
    new: Option<&'a ObjectMeta>,
}

impl<K: Kind> Vertices for Arc<Informer<K>> {
    fn resource(&self) -> Resource {
        K::RESOURCE
    }

    fn get(&self, key: &ObjectKey) -> Option<Item> {
        let cached = Informer::get(self, key)?;
        Some(Item::of(
            K::RESOURCE,
            &cached.key,
            cached.revision,
            cached.metadata(),
        ))
    }

    fn dependents(&self, uid: &str) -> Vec<Item> {
        self.snapshot()
            .owned_by(uid)
            .map(|cached| Item::of(K::RESOURCE, &cached.key, cached.revision, cached.metadata()))
            .collect()
    }

    fn synced(&self) -> BoxFuture<'_, ()> {
        Box::pin(Informer::synced(self))
    }

    fn subscribe(&self, on: Box<dyn Fn(Seen<'_>) + Send + Sync>) -> Subscription {
        Informer::subscribe(self, move |change: &Change<K>| {
            on(Seen {
                resource: K::RESOURCE,
                key: &change.object().key,
                old: change.old().map(|old| old.metadata()),
                new: change.new_state().map(|new| new.metadata()),
            });
        })
    }

    fn owned(&self) -> Vec<Key> {
        self.snapshot()
            .iter()
            .filter(|cached| !cached.metadata().owner_references.is_empty())
            .map(|cached| (K::RESOURCE, cached.key.clone()))
            .collect()
    }
}

/// All kinds together.
pub(super) struct Graph {
    kinds: Arc<[Box<dyn Vertices>]>,
}

impl Graph {
    pub(super) async fn open(informers: &Informers) -> Self {
        let kinds: Vec<Box<dyn Vertices>> = vec![
            Box::new(informers.of::<ConfigMap>()),
            Box::new(informers.of::<Deployment>()),
            Box::new(informers.of::<Endpoints>()),
            Box::new(informers.of::<EndpointSlice>()),
            Box::new(informers.of::<Lease>()),
            Box::new(informers.of::<Namespace>()),
            Box::new(informers.of::<Node>()),
            Box::new(informers.of::<Pod>()),
            Box::new(informers.of::<ReplicaSet>()),
            Box::new(informers.of::<Secret>()),
            Box::new(informers.of::<Service>()),
            Box::new(informers.of::<ServiceAccount>()),
        ];
        for kind in &kinds {
            kind.synced().await;
        }
        Self {
            kinds: kinds.into(),
        }
    }

    pub(super) fn get(&self, resource: Resource, key: &ObjectKey) -> Option<Item> {
        self.kinds
            .iter()
            .find(|kind| kind.resource() == resource)?
            .get(key)
    }

    pub(super) fn dependents(&self, uid: &str) -> Vec<Item> {
        dependents(&self.kinds, uid)
    }

    /// Everything that has an owner.
    pub(super) fn owned(&self) -> Vec<Key> {
        self.kinds.iter().flat_map(|kind| kind.owned()).collect()
    }

    /// Puts in `queue` whatever a change may concern.
    pub(super) fn wake(&self, queue: &WorkQueue<Key>) -> Vec<Subscription> {
        self.kinds
            .iter()
            .map(|kind| {
                // The graph is held weakly: the subscription lives in what it would hold.
                let (queue, graph) = (queue.clone(), Arc::downgrade(&self.kinds));
                kind.subscribe(Box::new(move |seen| {
                    if let Some(kinds) = graph.upgrade() {
                        wake_for(&kinds, &seen, &queue);
                    }
                }))
            })
            .collect()
    }
}

fn dependents(kinds: &[Box<dyn Vertices>], uid: &str) -> Vec<Item> {
    if uid.is_empty() {
        return Vec::new();
    }
    kinds.iter().flat_map(|kind| kind.dependents(uid)).collect()
}

fn waits(metadata: &ObjectMeta) -> bool {
    metadata.deletion_timestamp.is_some()
        && metadata
            .finalizers
            .iter()
            .any(|held| held == FOREGROUND || held == ORPHAN)
}

fn wake_for(kinds: &[Box<dyn Vertices>], seen: &Seen<'_>, queue: &WorkQueue<Key>) {
    let uid = |metadata: &ObjectMeta| metadata.uid.clone().unwrap_or_default();
    match (seen.old, seen.new) {
        (old, Some(new)) => {
            let owners_changed = old.is_none_or(|old| old.owner_references != new.owner_references);
            if owners_changed && !new.owner_references.is_empty() {
                queue.add((seen.resource, seen.key.clone()));
            }
            if waits(new) && !old.is_some_and(waits) {
                queue.add((seen.resource, seen.key.clone()));
                for item in dependents(kinds, &uid(new)) {
                    queue.add((item.resource, item.key));
                }
            }
        }
        (Some(old), None) => {
            for item in dependents(kinds, &uid(old)) {
                queue.add((item.resource, item.key));
            }
            for owner in &old.owner_references {
                if let Some((resource, key)) = owner_key(owner, &seen.key.namespace) {
                    queue.add((resource, key));
                }
            }
        }
        (None, None) => {}
    }
}

/// Where an owner is found; `None` for kinds that are not known here.
pub(super) fn owner_key(
    owner: &proto_api::types::meta::v1::OwnerReference,
    namespace: &Arc<str>,
) -> Option<Key> {
    let group = owner
        .api_version
        .split_once('/')
        .map_or("", |(group, _)| group);
    let resource = resources::ALL
        .iter()
        .copied()
        .find(|resource| resource.group == group && resource.kind == owner.kind)?;
    let namespace = match resource.scope {
        control_plane_client::Scope::Namespaced => Arc::clone(namespace),
        control_plane_client::Scope::Cluster => Arc::from(""),
    };
    Some((resource, ObjectKey::new(namespace, owner.name.as_str())))
}
