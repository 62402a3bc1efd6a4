//! Logs, exec, attach and forwarded ports as the control plane asks for them on behalf of users.
//!
//! [`StreamHandler`] owns no task: a session is one future that its caller awaits and may drop.
//! Data go through bounded channels, so a slow user slows the session and nothing else.

mod agent;
mod attach;
mod exec;
mod follow;
mod forward;
mod line;
mod logs;

use std::path::Path;
use std::sync::Arc;

use crate::clock::{Chance, Clock};
use crate::runtime::{ContainerdClient, Runtime};
use crate::worker::{PodDirectory, PodSummary};

pub use self::agent::{AgentAnswer, AgentOutput};
pub use self::attach::AttachSession;
pub use self::exec::{ExecOutput, ExecSession, SessionInput};
pub use self::forward::{ForwardAt, ForwardInput, ForwardOutput, ForwardSession};
pub use self::logs::LogSession;

/// Why a session could not be served: an HTTP status and upstream's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StreamError {
    /// HTTP status that fits.
    pub code: u16,
    /// What users read.
    pub message: String,
}

impl StreamError {
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self {
            code: 400,
            message: message.into(),
        }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self {
            code: 404,
            message: message.into(),
        }
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self {
            code: 500,
            message: message.into(),
        }
    }
}

/// Serves sessions of this node's pods. Cheap to clone.
#[derive(Clone)]
pub struct StreamHandler {
    pub(crate) pods: PodDirectory,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) containerd: ContainerdClient,
    pub(crate) pipes: Arc<Path>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) chance: Arc<dyn Chance>,
}

impl std::fmt::Debug for StreamHandler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamHandler")
            .field("pipes", &self.pipes)
            .finish_non_exhaustive()
    }
}

impl StreamHandler {
    fn pod(&self, namespace: &str, name: &str, uid: &str) -> Result<PodSummary, StreamError> {
        self.pods
            .find(namespace, name, uid)
            .ok_or_else(|| StreamError::not_found(format!("pod \"{name}\" not found")))
    }
}

/// The end of a log as plain text: at most `lines` lines and `bytes` bytes.
pub(crate) async fn tail_text(log: &Path, lines: usize, bytes: usize) -> String {
    let Ok(data) = tokio::fs::read(log).await else {
        return String::new();
    };
    let start = line::tail_start(&data, lines);
    let mut text = Vec::new();
    for entry in data[start..].split_inclusive(|byte| *byte == b'\n') {
        if let Some(entry) = line::parse(entry) {
            text.extend_from_slice(entry.content);
            if entry.is_full {
                text.push(b'\n');
            }
        }
    }
    let cut = text.len().saturating_sub(bytes);
    String::from_utf8_lossy(&text[cut..]).into_owned()
}
