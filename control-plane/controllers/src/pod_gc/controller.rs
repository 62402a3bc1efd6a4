//! Removes what is left of pods.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use control_plane_client::resources::NODES;
use control_plane_client::{
    Cached, Change, DeleteOptions, Informer, ObjectKey, Subscription, WorkQueue,
};
use proto_api::types::core::v1::{Node, Pod};

use crate::context::{Context, ReconcileError, failed};
use crate::pods;
use crate::runner::{Next, Reconciler};

/// How long a node may be missing before its pods go: its object may be made anew.
const QUARANTINE: Duration = Duration::from_secs(40);
/// How long ended pods are counted together before the oldest go.
const COUNT_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Task {
    /// The pods of a node that may be gone.
    Node(Arc<str>),
    /// A pod that is deleted and was never bound.
    Unbound(ObjectKey),
    /// The number of ended pods.
    Ended,
}

pub(crate) struct PodGcController {
    context: Context,
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    _subscriptions: [Subscription; 2],
}

impl PodGcController {
    pub(crate) async fn start(context: Context) -> (Arc<Self>, WorkQueue<Task>) {
        let pods = context.informers.of::<Pod>();
        let nodes = context.informers.of::<Node>();
        pods.synced().await;
        nodes.synced().await;
        let queue = WorkQueue::new();
        let (wake, known) = (queue.clone(), Arc::clone(&nodes));
        let on_pod = pods.subscribe(move |change| wake_for_pod(change, &known, &wake));
        let wake = queue.clone();
        let on_node = nodes.subscribe(move |change| {
            if let Change::Deleted(node) = change {
                wake.add_after(Task::Node(Arc::clone(&node.key.name)), QUARANTINE);
            }
        });
        let controller = Self {
            context,
            pods,
            nodes,
            _subscriptions: [on_pod, on_node],
        };
        (Arc::new(controller), queue)
    }

    async fn remove(&self, pod: &Cached<Pod>) -> Result<(), ReconcileError> {
        let now = DeleteOptions {
            grace_period_seconds: Some(0),
            ..DeleteOptions::default()
        };
        self.context.delete_seen(pod, now).await
    }

    async fn of_node(&self, node: &Arc<str>) -> Result<(), ReconcileError> {
        let key = ObjectKey::new("", Arc::clone(node));
        if self.nodes.get(&key).is_some() {
            return Ok(());
        }
        match self.context.api().get(NODES, &key).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(failed("get", NODES, &key)(error)),
        }
        for pod in self.pods.snapshot().on_node(node) {
            self.remove(pod).await?;
        }
        Ok(())
    }

    async fn ended(&self) -> Result<(), ReconcileError> {
        let pods = self.pods.snapshot();
        let mut ended: Vec<_> = pods.iter().filter(|pod| pods::is_terminal(pod)).collect();
        let surplus = ended
            .len()
            .saturating_sub(self.context.config.terminated_pods_max);
        ended.sort_by(|a, b| {
            a.metadata
                .creation_timestamp
                .cmp(&b.metadata.creation_timestamp)
        });
        for pod in ended.into_iter().take(surplus) {
            self.remove(pod).await?;
        }
        Ok(())
    }
}

fn wake_for_pod(change: &Change<Pod>, nodes: &Informer<Node>, queue: &WorkQueue<Task>) {
    let Some(pod) = change.new_state() else {
        return;
    };
    let node = pods::node_name(pod);
    if node.is_empty() {
        if pods::is_terminating(pod) {
            queue.add(Task::Unbound(pod.key.clone()));
        }
    } else if nodes.get(&ObjectKey::new("", node)).is_none() {
        queue.add_after(Task::Node(Arc::from(node)), QUARANTINE);
    }
    if pods::is_terminal(pod) {
        queue.add_after(Task::Ended, COUNT_AFTER);
    }
}

#[async_trait]
impl Reconciler for PodGcController {
    type Key = Task;
    const NAME: &'static str = "podgc";
    const WORKERS: usize = 1;

    async fn reconcile(&self, key: &Task) -> Result<Next, ReconcileError> {
        match key {
            Task::Node(node) => self.of_node(node).await?,
            Task::Unbound(key) => {
                if let Some(pod) = self.pods.get(key)
                    && pods::is_terminating(&pod)
                    && pods::node_name(&pod).is_empty()
                {
                    self.remove(&pod).await?;
                }
            }
            Task::Ended => self.ended().await?,
        }
        Ok(Next::Done)
    }

    fn all_keys(&self) -> Vec<Task> {
        vec![Task::Ended]
    }
}
