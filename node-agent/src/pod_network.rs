//! Desired state -> node network: this node's pod ranges, and the routes to the other nodes' pods.

use std::sync::Arc;
use std::time::Duration;

use node_agent_network::{NodeNetwork, Range, RemoteNode};
use node_agent_state::{Consumer, Snapshot, StateHub};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Pause before routes that are not in force are tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What the network should be.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    own: Vec<Range>,
    cluster: Vec<Range>,
    others: Vec<RemoteNode>,
}

/// Follows the desired state until `stop`.
pub(crate) async fn run(
    node_name: String,
    network: Arc<NodeNetwork>,
    hub: StateHub,
    consumer: Consumer,
    stop: CancellationToken,
) {
    let mut snapshots = hub.subscribe();
    let mut in_force: Option<Wanted> = None;
    loop {
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        let wanted = wanted(&node_name, &snapshot);
        // Routes are removed only once the list of nodes is complete.
        let complete = snapshot.in_sync;
        let mut failed = false;
        if complete && in_force.as_ref() != Some(&wanted) {
            network
                .set_ranges(wanted.own.clone(), wanted.cluster.clone())
                .await;
            failed = !network.set_nodes(&wanted.others).await.is_empty();
            in_force = (!failed).then_some(wanted);
        }
        if !failed {
            consumer.applied(&snapshot);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = snapshots.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if failed => {}
        }
    }
}

fn ranges(node: &str, texts: &[String]) -> Vec<Range> {
    let parse = |text: &String| match text.parse() {
        Ok(range) => Some(range),
        Err(error) => {
            warn!(node, %error, "an address range is left out");
            None
        }
    };
    texts.iter().filter_map(parse).collect()
}

fn wanted(node_name: &str, snapshot: &Snapshot) -> Wanted {
    let own = snapshot
        .nodes
        .get(node_name)
        .map(|node| ranges(node_name, &node.pod_cidrs));
    let others = snapshot
        .nodes
        .iter()
        .filter(|(name, _)| &***name != node_name);
    Wanted {
        own: own.unwrap_or_default(),
        cluster: ranges("(cluster)", &snapshot.cluster.pod_cidrs),
        others: others
            .map(|(name, node)| RemoteNode {
                name: name.to_string(),
                addresses: node.addresses.clone(),
                pod_ranges: ranges(name, &node.pod_cidrs),
            })
            .collect(),
    }
}
