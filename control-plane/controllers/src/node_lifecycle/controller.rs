//! The node lifecycle's I/O. A node is looked at when its object, its Lease or a pod on it changes, and
//! exactly when its silence or a pod's stay would end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use control_plane_client::events::reference;
use control_plane_client::resources::PODS;
use control_plane_client::{
    Cached, DeleteOptions, EventType, Informer, ObjectKey, Patch, Subscription, WorkQueue,
};
use proto_api::types::Time;
use proto_api::types::coordination::v1::Lease;
use proto_api::types::core::v1::{Node, Pod};
use serde_json::json;
use tracing::{info, warn};

use super::eviction::{self, Stay};
use super::heartbeat::Heartbeats;
use super::plan::{self, Execute, State};
use super::zones::{self, Budgets, Zone};
use crate::context::{Context, ReconcileError, failed};
use crate::pods;
use crate::runner::{Next, Reconciler};

const LEASE_NAMESPACE: &str = "kube-node-lease";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// A node that never reported gets this long in the beginning.
const STARTUP_GRACE: Duration = Duration::from_secs(60);
/// Look again while a zone allows no eviction.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct NodeLifecycleController {
    context: Context,
    nodes: Arc<Informer<Node>>,
    leases: Arc<Informer<Lease>>,
    pods: Arc<Informer<Pod>>,
    heartbeats: Heartbeats,
    budgets: Budgets,
    _subscriptions: [Subscription; 3],
}

impl NodeLifecycleController {
    pub(crate) async fn start(context: Context) -> (Arc<Self>, WorkQueue<ObjectKey>) {
        let nodes = context.informers.of::<Node>();
        let leases = context.informers.of::<Lease>();
        let pods = context.informers.of::<Pod>();
        nodes.synced().await;
        leases.synced().await;
        pods.synced().await;
        let queue = WorkQueue::new();
        let wake = queue.clone();
        let on_node = nodes.subscribe(move |change| wake.add(change.object().key.clone()));
        let wake = queue.clone();
        let on_lease = leases.subscribe(move |change| {
            let key = &change.object().key;
            if &*key.namespace == LEASE_NAMESPACE {
                wake.add(ObjectKey::new("", Arc::clone(&key.name)));
            }
        });
        let (wake, known) = (queue.clone(), Arc::clone(&nodes));
        let on_pod = pods.subscribe(move |change| {
            let Some(pod) = change.new_state() else {
                return;
            };
            let key = ObjectKey::new("", pods::node_name(pod));
            if known
                .get(&key)
                .is_some_and(|node| plan::state(&node) != State::Ready)
            {
                wake.add(key);
            }
        });
        let controller = Self {
            context,
            nodes,
            leases,
            pods,
            heartbeats: Heartbeats::default(),
            budgets: Budgets::default(),
            _subscriptions: [on_node, on_lease, on_pod],
        };
        (Arc::new(controller), queue)
    }

    /// Marks a node unknown when it has been silent too long; otherwise when to look again.
    async fn watch_over(&self, node: &Cached<Node>) -> Result<Next, ReconcileError> {
        let lease = self
            .leases
            .get(&ObjectKey::new(LEASE_NAMESPACE, Arc::clone(&node.key.name)));
        let lease = lease.as_ref().map(|cached| &cached.value);
        let silence = self.heartbeats.silence(&node.key.name, node, lease);
        let grace = self.context.config.node_grace;
        let reported = plan::condition(node, "Ready").is_some();
        let grace = if reported {
            grace
        } else {
            grace.max(STARTUP_GRACE)
        };
        if silence < grace {
            return Ok(Next::After(grace - silence));
        }
        let Some(conditions) = plan::silenced(node, self.context.clock.now()) else {
            return Ok(Next::Done);
        };
        let name = &node.key.name;
        warn!(node = %name, silence_s = silence.as_secs(), "node is silent, marked unknown");
        let status = json!({"conditions": conditions});
        self.context
            .patch_status::<Node>(&node.key, node.revision, status)
            .await?;
        let text = format!("Node {name} status is now: NodeNotReady");
        let about = reference(&node.value);
        self.context
            .events
            .record(about, EventType::Normal, "NodeNotReady", text);
        Ok(Next::Done)
    }

    async fn taint(&self, node: &Cached<Node>) -> Result<Next, ReconcileError> {
        let mut next = Next::Done;
        let mut execute = Execute::Deferred;
        if plan::wants_execute(node) {
            match self.spend(node) {
                Ok(()) => execute = Execute::Allowed,
                Err(wait) => next = Next::After(wait),
            }
        }
        if let Some(taints) = plan::taints(node, execute, self.context.clock.now()) {
            info!(node = %node.key.name, state = ?plan::state(node), "taints changed");
            let taints = if taints.is_empty() {
                json!(null)
            } else {
                json!(taints)
            };
            self.context
                .patch_seen(node, json!({"spec": {"taints": taints}}))
                .await?;
        }
        Ok(next)
    }

    fn spend(&self, node: &Node) -> Result<(), Duration> {
        let zone_of = |node: &Node| {
            node.metadata
                .labels
                .get(ZONE_LABEL)
                .cloned()
                .unwrap_or_default()
        };
        let mut zones: HashMap<String, Zone> = HashMap::new();
        for other in self.nodes.snapshot().iter() {
            let zone = zones.entry(zone_of(other)).or_default();
            match plan::state(other) {
                State::Ready => zone.ready += 1,
                State::NotReady | State::Unknown => zone.failed += 1,
            }
        }
        let name = zone_of(node);
        let all: Vec<Zone> = zones.values().copied().collect();
        let zone = zones.get(&name).copied().unwrap_or_default();
        match zones::pause(zone, &all) {
            Some(pause) => self.budgets.take(&name, pause),
            None => Err(PATIENCE),
        }
    }

    /// Pods of a node that answers no more serve no more.
    async fn mark_pods(&self, node: &Cached<Node>) -> Result<(), ReconcileError> {
        if plan::state(node) != State::Unknown {
            return Ok(());
        }
        for pod in self.pods.snapshot().on_node(&node.key.name) {
            if !pods::is_ready(pod) {
                continue;
            }
            let now = Time::from_timestamp(self.context.clock.now());
            let mut conditions = pod.status.clone().unwrap_or_default().conditions;
            for ready in conditions
                .iter_mut()
                .filter(|condition| condition.type_ == "Ready")
            {
                "False".clone_into(&mut ready.status);
                ready.reason = Some("NodeNotReady".to_owned());
                ready.last_transition_time = Some(now.clone());
            }
            let patch = Patch::Merge(json!({
                "metadata": {"uid": pod.metadata.uid, "resourceVersion": pod.revision.to_string()},
                "status": {"conditions": conditions},
            }));
            match self
                .context
                .api()
                .patch(PODS, &pod.key, Some("status"), patch)
                .await
            {
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(failed("patch status of", PODS, &pod.key)(error)),
            }
        }
        Ok(())
    }

    /// Deletes the pods whose stay has ended; otherwise when the next one's does.
    async fn evict(&self, node: &Cached<Node>) -> Result<Next, ReconcileError> {
        let taints = node.spec.as_ref().map_or(&[][..], |spec| &spec.taints);
        if !taints.iter().any(|taint| taint.effect == plan::NO_EXECUTE) {
            return Ok(Next::Done);
        }
        let now = self.context.clock.now();
        let mut next = Next::Done;
        for pod in self.pods.snapshot().on_node(&node.key.name) {
            if pods::is_terminating(pod) || pods::is_terminal(pod) {
                continue;
            }
            match eviction::stay(pod, taints, now) {
                Stay::Forever => {}
                Stay::For(Duration::ZERO) => {
                    let text = format!("Marking for deletion Pod {}", pod.key);
                    let about = reference(&pod.value);
                    let reason = "TaintManagerEviction";
                    self.context
                        .events
                        .record(about, EventType::Normal, reason, text);
                    self.context
                        .delete_seen(pod, DeleteOptions::default())
                        .await?;
                }
                Stay::For(left) => next = next.min(Next::After(left)),
            }
        }
        Ok(next)
    }
}

#[async_trait]
impl Reconciler for NodeLifecycleController {
    type Key = ObjectKey;
    const NAME: &'static str = "nodelifecycle";
    const WORKERS: usize = 4;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let Some(node) = self.nodes.get(key) else {
            self.heartbeats.forget(&key.name);
            return Ok(Next::Done);
        };
        let mut next = self.watch_over(&node).await?;
        self.mark_pods(&node).await?;
        next = next.min(self.evict(&node).await?);
        // A conflict here is the condition written above: the event of it brings the next look.
        next = next.min(self.taint(&node).await?);
        Ok(next)
    }

    fn all_keys(&self) -> Vec<ObjectKey> {
        self.nodes
            .snapshot()
            .iter()
            .map(|node| node.key.clone())
            .collect()
    }
}
