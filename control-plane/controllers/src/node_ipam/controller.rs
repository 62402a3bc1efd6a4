//! Gives every node that has none its pod ranges.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use control_plane_client::events::reference;
use control_plane_client::{EventType, Informer, ObjectKey, Subscription, WorkQueue};
use parking_lot::Mutex;
use proto_api::types::core::v1::Node;
use serde_json::json;

use super::plan;
use crate::context::{Context, ReconcileError};
use crate::runner::{Next, Reconciler};

/// A node without a range is tried again after this, should no node go earlier.
const EXHAUSTED_RETRY: Duration = Duration::from_secs(60);

pub(crate) struct NodeIpamController {
    context: Context,
    nodes: Arc<Informer<Node>>,
    /// Given out but perhaps not in the cache yet, by node. One worker, so no two decide at once.
    given: Mutex<HashMap<ObjectKey, Vec<String>>>,
    _subscription: Subscription,
}

impl NodeIpamController {
    pub(crate) async fn start(context: Context) -> (Arc<Self>, WorkQueue<ObjectKey>) {
        let nodes = context.informers.of::<Node>();
        nodes.synced().await;
        let queue = WorkQueue::new();
        let wake = queue.clone();
        let subscription = nodes.subscribe(move |change| wake.add(change.object().key.clone()));
        let controller = Self {
            context,
            nodes,
            given: Mutex::default(),
            _subscription: subscription,
        };
        (Arc::new(controller), queue)
    }

    fn used(&self) -> HashSet<String> {
        let nodes = self.nodes.snapshot();
        let shown = nodes.iter().flat_map(|node| ranges_of(node));
        let given = self.given.lock();
        shown.chain(given.values().flatten().cloned()).collect()
    }
}

fn ranges_of(node: &Node) -> Vec<String> {
    let Some(spec) = &node.spec else {
        return Vec::new();
    };
    let mut ranges = spec.pod_cidrs.clone();
    ranges.extend(spec.pod_cidr.clone().filter(|range| !range.is_empty()));
    ranges
}

#[async_trait]
impl Reconciler for NodeIpamController {
    type Key = ObjectKey;
    const NAME: &'static str = "nodeipam";
    const WORKERS: usize = 1;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let Some(node) = self.nodes.get(key) else {
            self.given.lock().remove(key);
            return Ok(Next::Done);
        };
        if !ranges_of(&node).is_empty() {
            self.given.lock().remove(key);
            return Ok(Next::Done);
        }
        let present = self.given.lock().get(key).cloned();
        let ranges =
            present.or_else(|| plan::allocate(&self.context.config.cluster_cidrs, &self.used()));
        let Some(ranges) = ranges else {
            let text = format!("Node {} status is now: CIDRNotAvailable", key.name);
            let about = reference(&node.value);
            self.context
                .events
                .record(about, EventType::Normal, "CIDRNotAvailable", text);
            return Ok(Next::After(EXHAUSTED_RETRY));
        };
        let Some(first) = ranges.first().cloned() else {
            return Ok(Next::Done);
        };
        self.given.lock().insert(key.clone(), ranges.clone());
        let change = json!({"spec": {"podCIDR": first, "podCIDRs": ranges}});
        self.context.patch_seen(&node, change).await?;
        Ok(Next::Done)
    }

    fn all_keys(&self) -> Vec<ObjectKey> {
        self.nodes
            .snapshot()
            .iter()
            .map(|node| node.key.clone())
            .collect()
    }
}
