//! What a pod worker may do to the world, and what comes back.

use std::time::Duration;

use jiff::Timestamp;

use super::resize::Amounts;

/// Why a container is stopped; decides event text and whether hooks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// The pod ends.
    PodEnds,
    /// The grace period got shorter while a stop was under way: no second preStop.
    GraceShrunk,
    LivenessFailed,
    StartupFailed,
    SpecChanged,
    /// Its new resources take effect only at a start.
    Resized,
    /// The runtime lost track of the container.
    StateUnknown,
}

/// One thing to do. At most one of a kind is in flight for each sandbox, container and pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    PrepareVolumes,
    RunSandbox {
        attempt: u32,
    },
    EnsureImage {
        container: String,
    },
    StartContainer(StartContainer),
    StopContainer {
        id: String,
        container: String,
        grace: Duration,
        why: StopReason,
    },
    RemoveContainer {
        id: String,
    },
    ResizeContainer {
        id: String,
        container: String,
        amounts: Amounts,
    },
    StopSandbox {
        id: String,
    },
    RemoveSandbox {
        id: String,
    },
    /// Give back volumes and cgroup; nothing of the pod runs any more.
    TearDown,
    /// Remove what is left on disk; the object is gone.
    Forget,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StartContainer {
    pub(crate) container: String,
    pub(crate) sandbox_id: String,
    /// Unique among the containers of that name in this pod.
    pub(crate) attempt: u32,
    pub(crate) restart_count: u32,
    pub(crate) image_ref: String,
}

/// A failure as `state.waiting` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// The answer to an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// When the volumes must be written anew (tokens end), if ever.
    Volumes(Result<Option<Timestamp>, String>),
    Sandbox {
        attempt: u32,
        result: Result<String, String>,
    },
    /// The reference to create containers with.
    Image {
        container: String,
        result: Result<String, Failure>,
    },
    Start {
        container: String,
        result: Result<(), Failure>,
    },
    Stop {
        id: String,
        result: Result<(), String>,
    },
    Remove {
        id: String,
        result: Result<(), String>,
    },
    Resize {
        id: String,
        amounts: Amounts,
        result: Result<(), String>,
    },
    SandboxStop {
        id: String,
        result: Result<(), String>,
    },
    SandboxRemove {
        id: String,
        result: Result<(), String>,
    },
    TearDown(Result<(), String>),
    Forget(Result<(), String>),
}

/// Something users shall read as an Event; not an act on the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A container waits before its next start.
    CrashLoop { container: String },
    /// An image waits before its next pull.
    ImageBackOff { container: String },
    /// The sandbox died and is made anew.
    SandboxChanged,
    /// The pod was active for too long.
    DeadlineExceeded,
}
