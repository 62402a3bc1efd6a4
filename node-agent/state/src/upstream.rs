//! What goes up: pod statuses, the node, events, and requests for tokens.
//!
//! The kubelet part decides what to say; the source decides how it travels. Every call answers once
//! the control plane has stored it, so a caller knows what to repeat.

use std::time::SystemTime;

use async_trait::async_trait;
use proto_api::types::core::v1::{Event, Node, PodStatus};

/// A pod as its reports name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodRef {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid: a pod of the same name with another uid is another pod.
    pub uid: String,
}

/// A token for a service account, bound to a pod of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRequest {
    /// The pod it is for.
    pub pod: PodRef,
    /// Name of the service account, in the pod's namespace.
    pub service_account: String,
    /// Who may accept the token; empty for the API server.
    pub audiences: Vec<String>,
    /// Wanted life, seconds, at least 600.
    pub expiration_seconds: u32,
}

/// A token and its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedToken {
    /// JSON Web Token.
    pub token: String,
    /// When it ends.
    pub expires: SystemTime,
}

/// Why a report was not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// No connection, or the control plane asks to wait: repeat later.
    #[error("the control plane did not take the report: {reason}")]
    Unavailable {
        /// What the transport or the server said.
        reason: String,
    },
    /// The object is gone: forget it.
    #[error("{what} no longer exists in the cluster")]
    Gone {
        /// What was reported on.
        what: String,
    },
    /// The report is wrong: repeating it is of no use.
    #[error("the control plane refused the report on {what}: {reason}")]
    Rejected {
        /// What was reported on.
        what: String,
        /// What the server said.
        reason: String,
    },
}

/// The way up.
#[async_trait]
pub trait Upstream: Send + Sync + 'static {
    /// Stores a pod's status. The status is complete: its lists replace the stored ones.
    async fn pod_status(&self, pod: &PodRef, status: &PodStatus) -> Result<(), UpstreamError>;

    /// The pod is stopped and cleaned up: the API object may go (grace 0, only this uid).
    async fn pod_finished(&self, pod: &PodRef) -> Result<(), UpstreamError>;

    /// Registers the node or updates its status; answers the Node as stored.
    async fn node(&self, node: &Node) -> Result<Node, UpstreamError>;

    /// Stores events. Events may be lost when the control plane is away for long.
    async fn events(&self, events: &[Event]) -> Result<(), UpstreamError>;

    /// A token for a pod's service account.
    async fn token(&self, request: &TokenRequest) -> Result<IssuedToken, UpstreamError>;
}
