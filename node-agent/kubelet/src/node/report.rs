//! Registers the node and keeps its status: at every change, and every five minutes without one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use node_agent_state::UpstreamError;
use proto::cri::v1 as cri;
use proto_api::types::Time;
use proto_api::types::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints,
    NodeSpec, NodeStatus,
};
use proto_api::types::meta::v1::ObjectMeta;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::facts::MachineFacts;
use crate::event::Kind;
use crate::worker::Context;

/// Images that the status names at most, the largest first.
const IMAGES_MAX: usize = 50;
/// Names that the status gives of one image.
const IMAGE_NAMES_MAX: usize = 5;
const UNCHANGED_REPORT: SignedDuration = SignedDuration::from_secs(300);
/// Time that a report gets to come back around before it is repeated.
const MISJUDGED_REPORT: SignedDuration = SignedDuration::from_secs(5);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(7);

/// Reports this node.
pub(crate) struct NodeReporter {
    context: Arc<Context>,
    facts: MachineFacts,
    conditions: Vec<NodeCondition>,
    reported: Option<(NodeStatus, Timestamp)>,
}

/// What the runtime says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct RuntimeHealth {
    version: String,
    /// Why it does not work, if it does not.
    trouble: Option<String>,
}

impl NodeReporter {
    pub(crate) fn new(context: Arc<Context>, facts: MachineFacts) -> Self {
        Self {
            context,
            facts,
            conditions: Vec::new(),
            reported: None,
        }
    }

    /// Reports until cancelled.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let period = self.context.config.node_status_period;
        let mut retry = RETRY_FIRST;
        loop {
            // A report may wait for a control plane that is away; the end of the agent does not.
            let reported = tokio::select! {
                () = stop.cancelled() => return,
                reported = self.report() => reported,
            };
            let wait = match reported {
                Ok(ready) => {
                    retry = RETRY_FIRST;
                    // An unready node looks at itself more often: it may become ready any moment.
                    if ready {
                        period
                    } else {
                        period.min(Duration::from_millis(500))
                    }
                }
                Err(error) => {
                    debug!(%error, "node status not taken yet");
                    retry = (retry * 2).min(RETRY_MAX);
                    retry
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Reports if there is something new; answers whether the node is ready.
    async fn report(&mut self) -> Result<bool, UpstreamError> {
        let health = self.health().await;
        let images = self.images().await;
        let now = self.context.clock.now();
        let was_ready = is_ready(&self.conditions);
        self.conditions = conditions(&health, &self.conditions, now);
        let ready = is_ready(&self.conditions);
        let status = self.status(&health, images);
        let due = self.reported.as_ref().is_none_or(|(last, at)| {
            !same(last, &status) || now.duration_since(*at) >= UNCHANGED_REPORT
        });
        if due || self.is_misjudged(ready, now) {
            let node = self.node(status.clone());
            self.context.upstream.node(&node).await?;
            if self.reported.is_none() {
                info!(node = %self.context.config.node_name, "node registered");
                self.context
                    .events
                    .node(Kind::Normal, "Starting", "Starting kubelet.");
            }
            self.reported = Some((status, now));
        }
        if ready != was_ready {
            let name = &self.context.config.node_name;
            let reason = if ready { "NodeReady" } else { "NodeNotReady" };
            let message = format!("Node {name} status is now: {reason}");
            self.context.events.node(Kind::Normal, reason, message);
        }
        Ok(ready)
    }

    /// The cluster holds this node for unready although it reported ready: it was out of reach.
    fn is_misjudged(&self, ready: bool, now: Timestamp) -> bool {
        let snapshot = self.context.hub.snapshot();
        let seen = snapshot.nodes.get(self.context.config.node_name.as_str());
        let told_lately = self
            .reported
            .as_ref()
            .is_some_and(|(_, at)| now.duration_since(*at) < MISJUDGED_REPORT);
        ready && seen.is_some_and(|node| !node.ready) && !told_lately
    }

    async fn health(&self) -> RuntimeHealth {
        let runtime = &self.context.runtime;
        let version = match runtime.version().await {
            Ok(version) => {
                format!(
                    "{}://{}",
                    version.runtime_name,
                    version.runtime_version.trim_start_matches('v')
                )
            }
            Err(error) => {
                let trouble = Some(format!("container runtime is down: {error}"));
                return RuntimeHealth {
                    version: String::new(),
                    trouble,
                };
            }
        };
        let trouble = match runtime.status().await {
            Ok(answer) => trouble_of(&answer.status.unwrap_or_default()),
            Err(error) => Some(format!("container runtime is down: {error}")),
        };
        RuntimeHealth { version, trouble }
    }

    async fn images(&self) -> Vec<ContainerImage> {
        match self.context.runtime.list_images().await {
            Ok(images) => image_list(images),
            Err(error) => {
                warn!(%error, "cannot list images");
                self.reported
                    .as_ref()
                    .map(|(status, _)| status.images.clone())
                    .unwrap_or_default()
            }
        }
    }

    fn status(&self, health: &RuntimeHealth, images: Vec<ContainerImage>) -> NodeStatus {
        let config = &self.context.config;
        let mut addresses: Vec<NodeAddress> = config
            .node_ips
            .iter()
            .map(|ip| NodeAddress {
                address: ip.to_string(),
                type_: "InternalIP".to_owned(),
            })
            .collect();
        addresses.push(NodeAddress {
            address: config.node_name.clone(),
            type_: "Hostname".to_owned(),
        });
        NodeStatus {
            addresses,
            capacity: self.facts.capacity(config.pods_max),
            allocatable: self.context.allocatable.clone(),
            conditions: self.conditions.clone(),
            daemon_endpoints: Some(NodeDaemonEndpoints {
                kubelet_endpoint: Some(DaemonEndpoint::default()),
            }),
            images,
            node_info: Some(Box::new(self.facts.node_info(&health.version))),
            ..NodeStatus::default()
        }
    }

    fn node(&self, status: NodeStatus) -> Node {
        let config = &self.context.config;
        let arch = self.facts.node_info("").architecture;
        let mut labels = BTreeMap::from([
            (
                "kubernetes.io/hostname".to_owned(),
                config.node_name.clone(),
            ),
            ("kubernetes.io/os".to_owned(), "linux".to_owned()),
            ("kubernetes.io/arch".to_owned(), arch.clone()),
            ("beta.kubernetes.io/os".to_owned(), "linux".to_owned()),
            ("beta.kubernetes.io/arch".to_owned(), arch),
        ]);
        labels.extend(config.node_labels.clone());
        Node {
            metadata: ObjectMeta {
                name: Some(config.node_name.clone()),
                labels,
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec::default()),
            status: Some(status),
        }
    }
}

fn is_ready(conditions: &[NodeCondition]) -> bool {
    conditions
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Equal but for heartbeat times.
fn same(left: &NodeStatus, right: &NodeStatus) -> bool {
    let bare = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in &mut status.conditions {
            condition.last_heartbeat_time = None;
        }
        status
    };
    bare(left) == bare(right)
}

/// The runtime's own conditions, as one sentence when one of them fails.
fn trouble_of(status: &cri::RuntimeStatus) -> Option<String> {
    let failing: Vec<String> = ["RuntimeReady", "NetworkReady"]
        .into_iter()
        .filter_map(
            |name| match status.conditions.iter().find(|c| c.r#type == name) {
                Some(condition) if condition.status => None,
                Some(condition) => Some(format!(
                    "{name}=false reason:{} message:{}",
                    condition.reason, condition.message
                )),
                None => Some(format!("{name} is not reported")),
            },
        )
        .collect();
    (!failing.is_empty()).then(|| format!("container runtime not ready: {}", failing.join(", ")))
}

fn conditions(
    health: &RuntimeHealth,
    previous: &[NodeCondition],
    now: Timestamp,
) -> Vec<NodeCondition> {
    let ready = match &health.trouble {
        None => (
            "Ready",
            "True",
            "KubeletReady",
            "kubelet is posting ready status".to_owned(),
        ),
        Some(trouble) => ("Ready", "False", "KubeletNotReady", trouble.clone()),
    };
    let fixed = [
        (
            "MemoryPressure",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        (
            "DiskPressure",
            "KubeletHasNoDiskPressure",
            "kubelet has no disk pressure",
        ),
        (
            "PIDPressure",
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available",
        ),
    ]
    .map(|(kind, reason, message)| (kind, "False", reason, message.to_owned()));
    fixed
        .into_iter()
        .chain([ready])
        .map(|(kind, status, reason, message)| {
            let since = previous
                .iter()
                .find(|condition| condition.type_ == kind && condition.status == status)
                .and_then(|condition| condition.last_transition_time.clone());
            NodeCondition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message),
                last_heartbeat_time: Some(Time::from(now)),
                last_transition_time: Some(since.unwrap_or_else(|| Time::from(now))),
            }
        })
        .collect()
}

fn image_list(mut images: Vec<cri::Image>) -> Vec<ContainerImage> {
    images.sort_by(|left, right| right.size.cmp(&left.size).then(left.id.cmp(&right.id)));
    images
        .into_iter()
        .take(IMAGES_MAX)
        .map(|image| ContainerImage {
            names: image
                .repo_digests
                .into_iter()
                .chain(image.repo_tags)
                .take(IMAGE_NAMES_MAX)
                .collect(),
            size_bytes: i64::try_from(image.size).ok(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn healthy() -> RuntimeHealth {
        RuntimeHealth {
            version: "containerd://1.6.20".to_owned(),
            trouble: None,
        }
    }

    #[test]
    fn the_ready_condition_follows_the_runtime_and_keeps_its_time() {
        let first = conditions(&healthy(), &[], at(10));
        assert!(is_ready(&first));
        let second = conditions(&healthy(), &first, at(20));
        let ready = second
            .iter()
            .find(|condition| condition.type_ == "Ready")
            .unwrap();
        assert_eq!(ready.last_transition_time, Some(Time::from(at(10))));
        assert_eq!(ready.last_heartbeat_time, Some(Time::from(at(20))));
        let down = RuntimeHealth {
            trouble: Some("x".to_owned()),
            ..healthy()
        };
        let third = conditions(&down, &second, at(30));
        assert!(!is_ready(&third));
        let ready = third
            .iter()
            .find(|condition| condition.type_ == "Ready")
            .unwrap();
        assert_eq!(ready.last_transition_time, Some(Time::from(at(30))));
        assert_eq!(ready.message.as_deref(), Some("x"));
    }

    #[test]
    fn a_runtime_without_a_network_is_not_ready() {
        let condition = |name: &str, status| cri::RuntimeCondition {
            r#type: name.to_owned(),
            status,
            reason: "NetworkPluginNotReady".to_owned(),
            message: "cni plugin not initialized".to_owned(),
        };
        let status = cri::RuntimeStatus {
            conditions: vec![
                condition("RuntimeReady", true),
                condition("NetworkReady", false),
            ],
        };
        assert_eq!(
            trouble_of(&status).unwrap(),
            "container runtime not ready: NetworkReady=false reason:NetworkPluginNotReady \
             message:cni plugin not initialized"
        );
    }

    #[test]
    fn fifty_images_are_named_the_largest_first() {
        let images = (0..60_u64)
            .map(|size| cri::Image {
                id: size.to_string(),
                size,
                ..cri::Image::default()
            })
            .collect();
        let list = image_list(images);
        assert_eq!(list.len(), 50);
        assert_eq!(list[0].size_bytes, Some(59));
    }
}
