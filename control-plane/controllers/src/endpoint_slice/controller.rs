//! The EndpointSlice controller's I/O: what wakes it, what it reads, how it carries writes out.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use control_plane_client::resources::ENDPOINT_SLICES;
use control_plane_client::{
    Cached, Change, DeleteOptions, Expectations, Informer, ObjectKey, Subscription, WorkQueue,
    selector,
};
use jiff::Timestamp;
use proto_api::types::Object as _;
use proto_api::types::core::v1::{Node, Pod, Service, ServiceSpec};
use proto_api::types::discovery::v1::EndpointSlice;

use super::desired::{self, SERVICE_NAME, Template};
use super::plan::{self, Slice, Writes};
use super::trigger::{self, Triggers};
use crate::context::{Context, ReconcileError, failed, outcome_unknown};
use crate::runner::{Next, Reconciler};
use crate::service_pods;

const ZONE: &str = "topology.kubernetes.io/zone";
/// Look again when own writes have not shown up; events come earlier as a rule.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) struct EndpointSliceController {
    context: Context,
    services: Arc<Informer<Service>>,
    pods: Arc<Informer<Pod>>,
    slices: Arc<Informer<EndpointSlice>>,
    nodes: Arc<Informer<Node>>,
    expectations: Expectations<ObjectKey>,
    triggers: Triggers,
    _subscriptions: [Subscription; 4],
}

impl EndpointSliceController {
    pub(crate) async fn start(context: Context) -> (Arc<Self>, WorkQueue<ObjectKey>) {
        let services = context.informers.of::<Service>();
        let pods = context.informers.of::<Pod>();
        let slices = context.informers.of::<EndpointSlice>();
        let nodes = context.informers.of::<Node>();
        services.synced().await;
        pods.synced().await;
        slices.synced().await;
        nodes.synced().await;
        let queue = WorkQueue::new();
        let wake = queue.clone();
        let on_service = services.subscribe(move |change| wake.add(change.object().key.clone()));
        let (wake, known) = (queue.clone(), Arc::clone(&services));
        let on_pod =
            pods.subscribe(move |change| service_pods::wake_for_pod(change, &known, &wake));
        let wake = queue.clone();
        let on_slice = slices.subscribe(move |change| wake_for_slice(change, &wake));
        let (wake, known, on_it) = (queue.clone(), Arc::clone(&services), Arc::clone(&pods));
        let on_node = nodes.subscribe(move |change| wake_for_node(change, &known, &on_it, &wake));
        let controller = Self {
            context,
            services,
            pods,
            slices,
            nodes,
            expectations: Expectations::default(),
            triggers: Triggers::default(),
            _subscriptions: [on_service, on_pod, on_slice, on_node],
        };
        (Arc::new(controller), queue)
    }

    fn own_slices(&self, key: &ObjectKey) -> Vec<Slice> {
        let slices = self.slices.snapshot();
        slices
            .with_labels(&key.namespace, &[(SERVICE_NAME, &key.name)])
            .filter(|slice| desired::is_ours(slice, &key.name))
            .cloned()
            .collect()
    }

    async fn trust(&self, key: &ObjectKey) -> Result<bool, ReconcileError> {
        let check = || {
            let slices = self.slices.snapshot();
            let own = self.own_slices(key);
            let gone = |uid: &str| !own.iter().any(|slice| slice.value.uid() == uid);
            self.expectations.check(key, slices.revision(), gone)
        };
        self.context
            .trust::<EndpointSlice>(&self.expectations, key, check)
            .await
    }

    fn plan(&self, service: &Cached<Service>, spec: &ServiceSpec) -> (Writes, Option<Timestamp>) {
        let pods = self.pods.snapshot();
        let nodes = self.nodes.snapshot();
        let labels = selector::equalities(&spec.selector);
        let selected: Vec<_> = service_pods::selected(&pods, &service.key.namespace, &labels)
            .cloned()
            .collect();
        let zone = |node: &str| {
            let node = nodes.get(&ObjectKey::new("", node))?;
            node.metadata.labels.get(ZONE).cloned()
        };
        let families = service_pods::families(spec)
            .into_iter()
            .map(|family| {
                let groups = desired::groups(&service.key, spec, family, selected.iter(), &zone);
                (family, groups)
            })
            .collect();
        let template = Template::of(service, spec);
        let writes = plan::plan(&template, families, &self.own_slices(&service.key));
        (writes, self.triggers.take(service, &selected))
    }

    async fn act(
        &self,
        key: &ObjectKey,
        writes: Writes,
        trigger: Option<Timestamp>,
    ) -> Result<(), ReconcileError> {
        let Writes {
            create,
            update,
            delete,
        } = writes;
        // Additions first: for a moment an endpoint may be listed twice, never not at all.
        for mut slice in create {
            annotate(&mut slice, trigger);
            let body = encode(&slice)?;
            let written = self
                .context
                .api()
                .create(ENDPOINT_SLICES, &key.namespace, body)
                .await;
            self.note(key, written.map(|object| object.revision))?;
        }
        for (present, mut next) in update {
            next.metadata.name = Some(present.key.name.to_string());
            next.metadata
                .generate_name
                .clone_from(&present.metadata.generate_name);
            next.metadata.resource_version = Some(present.revision.to_string());
            next.metadata.uid.clone_from(&present.metadata.uid);
            next.metadata
                .annotations
                .clone_from(&present.metadata.annotations);
            annotate(&mut next, trigger);
            let body = encode(&next)?;
            let written = self
                .context
                .api()
                .update(ENDPOINT_SLICES, &present.key, None, body)
                .await;
            self.note(key, written.map(|object| object.revision))?;
        }
        for slice in delete {
            self.context
                .delete_seen(&slice, DeleteOptions::default())
                .await?;
            self.expectations.expect_deletion(key, slice.value.uid());
        }
        Ok(())
    }

    fn note(
        &self,
        key: &ObjectKey,
        written: Result<u64, control_plane_client::ApiError>,
    ) -> Result<(), ReconcileError> {
        match written {
            Ok(revision) => {
                self.expectations.expect_revision(key, revision);
                Ok(())
            }
            Err(error) => {
                if outcome_unknown(&error) {
                    self.expectations.mark_uncertain(key);
                }
                Err(failed("write", ENDPOINT_SLICES, key)(error))
            }
        }
    }

    /// The Service is gone or selects nothing any more: so do its slices go.
    async fn clean(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        for slice in self.own_slices(key) {
            self.context
                .delete_seen(&slice, DeleteOptions::default())
                .await?;
        }
        self.triggers.forget(key);
        self.expectations.forget(key);
        Ok(Next::Done)
    }
}

#[async_trait]
impl Reconciler for EndpointSliceController {
    type Key = ObjectKey;
    const NAME: &'static str = "endpointslice";
    const WORKERS: usize = 5;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let Some(service) = self.services.get(key) else {
            return self.clean(key).await;
        };
        let Some(spec) = service_pods::selecting(&service) else {
            return self.clean(key).await;
        };
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Done);
        }
        if !self.trust(key).await? {
            return Ok(Next::After(PATIENCE));
        }
        let (writes, trigger) = self.plan(&service, spec);
        if !writes.is_empty() {
            self.act(key, writes, trigger).await?;
        }
        Ok(Next::Done)
    }

    fn all_keys(&self) -> Vec<ObjectKey> {
        self.services
            .snapshot()
            .iter()
            .map(|service| service.key.clone())
            .collect()
    }
}

fn encode(slice: &EndpointSlice) -> Result<serde_json::Value, ReconcileError> {
    serde_json::to_value(slice).map_err(|source| ReconcileError::Encode {
        what: "EndpointSlice",
        source,
    })
}

fn annotate(slice: &mut EndpointSlice, trigger: Option<Timestamp>) {
    let annotations = &mut slice.metadata.annotations;
    match trigger {
        Some(at) => drop(annotations.insert(trigger::ANNOTATION.to_owned(), at.to_string())),
        None => drop(annotations.remove(trigger::ANNOTATION)),
    }
}

fn wake_for_slice(change: &Change<EndpointSlice>, queue: &WorkQueue<ObjectKey>) {
    for slice in [change.old(), change.new_state()].into_iter().flatten() {
        if let Some(service) = desired::service_of(slice) {
            queue.add(ObjectKey::new(Arc::clone(&slice.key.namespace), service));
        }
    }
}

/// A node's zone shows in the endpoints on it.
fn wake_for_node(
    change: &Change<Node>,
    services: &Informer<Service>,
    pods: &Informer<Pod>,
    queue: &WorkQueue<ObjectKey>,
) {
    let zone = |node: &Arc<Cached<Node>>| node.metadata.labels.get(ZONE).cloned();
    if change.old().and_then(zone) == change.new_state().and_then(zone) {
        return;
    }
    let services = services.snapshot();
    for pod in pods.snapshot().on_node(&change.object().key.name) {
        for service in services.in_namespace(&pod.key.namespace) {
            let selects = service_pods::selecting(service)
                .is_some_and(|spec| selector::matches_map(&spec.selector, &pod.metadata.labels));
            if selects {
                queue.add(service.key.clone());
            }
        }
    }
}
