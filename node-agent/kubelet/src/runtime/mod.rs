//! What the agent asks of a container runtime, as a seam with a real and a fake side.
//!
//! Owns: the trait, its error, and the words by which the agent marks what it creates.
//! Must not know: why a pod needs a call. Data go to and come from the runtime's CRI v1 socket.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use proto::cri::v1 as cri;

mod channel;
mod containerd;
mod cri_client;
mod events;
pub(crate) mod labels;
mod native_exec;

pub use containerd::{ContainerdClient, ImportError, Pin};
pub use cri_client::CriClient;
pub(crate) use events::{RuntimeHint, watch_events};
pub use native_exec::ExecInput;
pub(crate) use native_exec::{ExecProcess, ExecRequest, NativeExecError};

/// Why a call to the runtime gave no result. Retry is sensible for all but [`Self::NotFound`].
#[derive(Debug, Clone, thiserror::Error)]
pub enum RuntimeError {
    /// The runtime did not answer in time; the call may still take effect.
    #[error("{call}: the container runtime gave no answer within {deadline:?}")]
    Deadline {
        /// The RPC.
        call: &'static str,
        /// How long was waited.
        deadline: Duration,
    },
    /// No such sandbox, container or image.
    #[error("{message}")]
    NotFound {
        /// The RPC.
        call: &'static str,
        /// The runtime's words.
        message: String,
    },
    /// This version of the runtime does not know the call.
    #[error("{call}: this container runtime does not offer the call")]
    Unimplemented {
        /// The RPC.
        call: &'static str,
    },
    /// The socket does not answer.
    #[error("{call}: cannot reach the container runtime: {message}; is containerd running?")]
    Unavailable {
        /// The RPC.
        call: &'static str,
        /// The transport's words.
        message: String,
    },
    /// The runtime refused.
    #[error("rpc error: code = {code} desc = {message}")]
    Failed {
        /// The RPC.
        call: &'static str,
        /// gRPC code, upstream spelling.
        code: &'static str,
        /// The runtime's words.
        message: String,
    },
}

impl RuntimeError {
    /// Whether the object asked about does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether the call may have taken effect although it failed.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Deadline { .. } | Self::Unavailable { .. })
    }
}

/// Result of a command run to its end inside a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// Both output streams, stdout first.
    pub output: Vec<u8>,
    /// Exit code.
    pub exit_code: i32,
}

/// The container runtime as the agent needs it. Every call has a deadline of its own.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Name and versions.
    async fn version(&self) -> Result<cri::VersionResponse, RuntimeError>;
    /// Conditions `RuntimeReady` and `NetworkReady`.
    async fn status(&self) -> Result<cri::StatusResponse, RuntimeError>;

    /// Creates and starts a sandbox; returns its id.
    async fn run_sandbox(&self, config: cri::PodSandboxConfig) -> Result<String, RuntimeError>;
    /// Stops a sandbox and gives back its network. Idempotent.
    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError>;
    /// Removes a sandbox and its containers. Idempotent.
    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError>;
    /// One sandbox in full.
    async fn sandbox_status(&self, id: &str) -> Result<cri::PodSandboxStatus, RuntimeError>;
    /// Sandboxes that carry all of `labels`.
    async fn list_sandboxes(
        &self,
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<cri::PodSandbox>, RuntimeError>;

    /// Creates a container; returns its id.
    async fn create_container(
        &self,
        sandbox_id: &str,
        config: cri::ContainerConfig,
        sandbox_config: cri::PodSandboxConfig,
    ) -> Result<String, RuntimeError>;
    /// Starts a created container.
    async fn start_container(&self, id: &str) -> Result<(), RuntimeError>;
    /// Stops a container: its stop signal, `grace`, then SIGKILL. Idempotent.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError>;
    /// Removes a container, killing it if need be. Idempotent.
    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError>;
    /// Containers that carry all of `labels`.
    async fn list_containers(
        &self,
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<cri::Container>, RuntimeError>;
    /// One container in full.
    async fn container_status(&self, id: &str) -> Result<cri::ContainerStatus, RuntimeError>;
    /// Makes the runtime open the container's log file anew, after a rename.
    async fn reopen_log(&self, id: &str) -> Result<(), RuntimeError>;
    /// Runs a command in a container and waits for its end.
    async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError>;

    /// Where to attach to the container's own process: an address of the runtime's stream server.
    async fn attach(&self, request: cri::AttachRequest) -> Result<String, RuntimeError>;
    /// The file that stands for a sandbox's network namespace.
    async fn network_namespace(&self, sandbox_id: &str) -> Result<PathBuf, RuntimeError>;
    /// Changes the limits of a running container.
    async fn update_resources(
        &self,
        id: &str,
        resources: cri::LinuxContainerResources,
    ) -> Result<(), RuntimeError>;

    /// The image under this name, if it is present.
    async fn image_status(&self, image: &str) -> Result<Option<cri::Image>, RuntimeError>;
    /// Pulls an image; returns its reference.
    async fn pull_image(
        &self,
        image: &str,
        auth: Option<cri::AuthConfig>,
        sandbox: Option<cri::PodSandboxConfig>,
    ) -> Result<String, RuntimeError>;
    /// All images.
    async fn list_images(&self) -> Result<Vec<cri::Image>, RuntimeError>;
}
