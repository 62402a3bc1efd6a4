//! The seam to the nodes: logs and exec of a container, whatever carries them.
//!
//! Owns: requests and answers as data. Must not know: HTTP, WebSocket, gRPC. The wiring implements
//! [`NodeStreams`] over the node's tunnel; the handlers in `streaming/` bridge it to kubectl.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use tokio::sync::mpsc;

/// Input messages that a session holds before the client is slowed down.
pub const EXEC_INPUT_QUEUE: usize = 16;
/// Output messages that a session holds before the node is slowed down.
pub const EXEC_OUTPUT_QUEUE: usize = 64;

/// One container of one pod on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRef {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// `metadata.uid` of the pod: a successor of the same name is another pod.
    pub pod_uid: String,
    /// Container name; init containers included.
    pub container: String,
}

/// What to read of a container's log (`PodLogOptions`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRequest {
    /// Whose log.
    pub target: ContainerRef,
    /// Keep the stream open for new lines.
    pub follow: bool,
    /// The log of the container's previous run.
    pub previous: bool,
    /// Prefix every line with its RFC 3339 time.
    pub timestamps: bool,
    /// Only lines of the last so many seconds.
    pub since_seconds: Option<i64>,
    /// Only lines after this RFC 3339 time.
    pub since_time: Option<String>,
    /// Only the last so many lines.
    pub tail_lines: Option<i64>,
    /// Stop after so many bytes.
    pub limit_bytes: Option<i64>,
}

/// A command to run in a container (`PodExecOptions`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRequest {
    /// Where to run it.
    pub target: ContainerRef,
    /// Program and arguments; empty attaches to the container's main process.
    pub command: Vec<String>,
    /// The client sends standard input.
    pub stdin: bool,
    /// The client wants standard output.
    pub stdout: bool,
    /// The client wants standard error; never together with `tty`.
    pub stderr: bool,
    /// Allocate a terminal.
    pub tty: bool,
}

/// What the client sends to a running command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecInput {
    /// Bytes for standard input.
    Stdin(Bytes),
    /// Standard input ends; output may go on.
    CloseStdin,
    /// The client's terminal changed its size.
    Resize {
        /// Columns.
        width: u16,
        /// Rows.
        height: u16,
    },
}

/// What a running command answers; `Exited` or `Failed` is the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecOutput {
    /// Bytes of standard output.
    Stdout(Bytes),
    /// Bytes of standard error.
    Stderr(Bytes),
    /// The command ended.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// The command could not run, or the session broke.
    Failed {
        /// What went wrong, for a person.
        message: String,
    },
}

/// A running command. Dropping `input` and `output` ends it.
#[derive(Debug)]
pub struct ExecSession {
    /// To the command.
    pub input: mpsc::Sender<ExecInput>,
    /// From the command; closed after the last message.
    pub output: mpsc::Receiver<ExecOutput>,
}

/// Why a node did not serve a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeStreamError {
    /// The node has no open stream to the control plane.
    #[error("node {node} is not connected to the control plane")]
    NotConnected {
        /// Name of the node.
        node: String,
    },
    /// The node does not know the container, or it has no such log.
    #[error("{message}")]
    NotFound {
        /// The node's words.
        message: String,
    },
    /// The request does not fit the container's state.
    #[error("{message}")]
    BadRequest {
        /// The node's words.
        message: String,
    },
    /// The node tried and failed, or the stream broke.
    #[error("node {node}: {message}")]
    Failed {
        /// Name of the node.
        node: String,
        /// The node's words.
        message: String,
    },
}

/// A container's log, in chunks as the node reads them.
pub type LogStream = BoxStream<'static, Result<Bytes, NodeStreamError>>;

/// Logs and commands of containers on nodes.
#[async_trait]
pub trait NodeStreams: Send + Sync + 'static {
    /// Opens the log of a container on `node`.
    async fn logs(&self, node: &str, request: LogRequest) -> Result<LogStream, NodeStreamError>;

    /// Runs a command in (or attaches to) a container on `node`.
    async fn exec(&self, node: &str, request: ExecRequest) -> Result<ExecSession, NodeStreamError>;
}
