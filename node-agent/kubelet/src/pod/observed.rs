//! What the runtime says about one pod, as the state machine reads it.

use std::net::IpAddr;

use jiff::Timestamp;
use proto::cri::v1 as cri;

use crate::runtime::labels;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObservedSandbox {
    pub(crate) id: String,
    pub(crate) attempt: u32,
    pub(crate) created_at: Timestamp,
    pub(crate) ready: bool,
    /// Empty for a pod on the node's network.
    pub(crate) ips: Vec<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunState {
    Created,
    Running,
    Exited,
    /// The runtime lost track of it; it may still run.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObservedContainer {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) sandbox_id: String,
    pub(crate) attempt: u32,
    pub(crate) restart_count: u32,
    pub(crate) state: RunState,
    pub(crate) created_at: Timestamp,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Option<Timestamp>,
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) image: String,
    pub(crate) image_id: String,
    pub(crate) spec_hash: String,
}

/// One pod's sandboxes and containers, each newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) sandboxes: Vec<ObservedSandbox>,
    pub(crate) containers: Vec<ObservedContainer>,
}

impl Observed {
    pub(crate) fn new(
        mut sandboxes: Vec<ObservedSandbox>,
        mut containers: Vec<ObservedContainer>,
    ) -> Self {
        sandboxes.sort_by_key(|sandbox| {
            std::cmp::Reverse((sandbox.attempt, sandbox.created_at, sandbox.id.clone()))
        });
        containers.sort_by_key(|container| {
            // By attempt, not by time: a creation that was given up may take effect late.
            std::cmp::Reverse((
                container.attempt,
                container.created_at,
                container.id.clone(),
            ))
        });
        Self {
            sandboxes,
            containers,
        }
    }

    /// The newest sandbox, if it is ready.
    pub(crate) fn sandbox(&self) -> Option<&ObservedSandbox> {
        self.sandboxes.first().filter(|sandbox| sandbox.ready)
    }

    /// The newest container of that name in any sandbox.
    pub(crate) fn newest(&self, name: &str) -> Option<&ObservedContainer> {
        self.containers
            .iter()
            .find(|container| container.name == name)
    }

    /// The newest container of that name in the given sandbox.
    pub(crate) fn active(&self, sandbox_id: &str, name: &str) -> Option<&ObservedContainer> {
        self.containers
            .iter()
            .find(|container| container.name == name && container.sandbox_id == sandbox_id)
    }
}

/// Nanoseconds since the epoch, 0 for "not yet".
fn instant(nanos: i64) -> Option<Timestamp> {
    (nanos > 0)
        .then(|| Timestamp::from_nanosecond(i128::from(nanos)).ok())
        .flatten()
}

/// Reads a sandbox; `None` for one that is not a pod's.
pub(crate) fn sandbox(status: &cri::PodSandboxStatus) -> Option<ObservedSandbox> {
    let metadata = status.metadata.as_ref()?;
    let network = status.network.as_ref();
    let ips = network
        .into_iter()
        .flat_map(|network| {
            std::iter::once(&network.ip).chain(network.additional_ips.iter().map(|ip| &ip.ip))
        })
        .filter_map(|ip| ip.parse().ok())
        .collect();
    Some(ObservedSandbox {
        id: status.id.clone(),
        attempt: metadata.attempt,
        created_at: instant(status.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
        ready: status.state() == cri::PodSandboxState::SandboxReady,
        ips,
    })
}

/// Reads a container; `None` for one that has no name.
pub(crate) fn container(
    sandbox_id: &str,
    status: &cri::ContainerStatus,
) -> Option<ObservedContainer> {
    let metadata = status.metadata.as_ref()?;
    let annotation = |key: &str| status.annotations.get(key).cloned().unwrap_or_default();
    let state = match status.state() {
        cri::ContainerState::ContainerCreated => RunState::Created,
        cri::ContainerState::ContainerRunning => RunState::Running,
        cri::ContainerState::ContainerExited => RunState::Exited,
        cri::ContainerState::ContainerUnknown => RunState::Unknown,
    };
    Some(ObservedContainer {
        id: status.id.clone(),
        name: metadata.name.clone(),
        sandbox_id: sandbox_id.to_owned(),
        attempt: metadata.attempt,
        restart_count: annotation(labels::RESTART_COUNT)
            .parse()
            .unwrap_or(metadata.attempt),
        state,
        created_at: instant(status.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
        started_at: instant(status.started_at),
        finished_at: instant(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason.clone(),
        message: status.message.clone(),
        image: status
            .image
            .as_ref()
            .map(|image| image.image.clone())
            .unwrap_or_default(),
        image_id: status.image_ref.clone(),
        spec_hash: annotation(labels::SPEC_HASH),
    })
}
