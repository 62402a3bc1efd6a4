//! The seam to the nodes: logs, commands and ports of pods, whatever carries them.
//!
//! Owns: requests and answers as data. Must not know: HTTP, WebSocket, gRPC. The wiring implements
//! [`NodeStreams`] over the node's tunnel; the handlers in `pod_streams/` bridge it to clients.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use tokio::sync::mpsc;

/// Messages that a forwarded connection holds in one direction.
pub const PORT_QUEUE: usize = 16;
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

/// A port of a pod to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRequest {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// `metadata.uid` of the pod.
    pub pod_uid: String,
    /// TCP port.
    pub port: u16,
    /// Where in the pod.
    pub at: PortAt,
}

/// The address in the pod that is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortAt {
    /// Its loopback: what port-forward reaches.
    Loopback,
    /// Its own address: what the proxy reaches.
    PodAddress,
}

/// What the client sends on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortInput {
    /// Bytes.
    Data(Bytes),
    /// No more bytes; the pod may still answer.
    Close,
}

/// What the pod sends on a connection. `Failed` is the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortOutput {
    /// Bytes.
    Data(Bytes),
    /// No more bytes; the pod may still read.
    Closed,
    /// The connection could not be made, or broke.
    Failed {
        /// What went wrong, for a person.
        message: String,
    },
}

/// A connection to a port. Dropping it ends the connection.
#[derive(Debug)]
pub struct PortSession {
    /// To the pod.
    pub input: mpsc::Sender<PortInput>,
    /// From the pod; closed after the last message.
    pub output: mpsc::Receiver<PortOutput>,
}

/// A GET of something that a node's agent shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRequest {
    /// Without a leading slash.
    pub path: String,
    /// As in a URL, without the question mark.
    pub query: String,
}

/// What an agent shows.
pub struct AgentAnswer {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: String,
    /// The body.
    pub body: LogStream,
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

    /// Connects to a port of a pod on `node`. That nobody listens there is told by the session.
    async fn port(&self, node: &str, request: PortRequest) -> Result<PortSession, NodeStreamError>;

    /// Asks the agent of `node` for something of its own.
    async fn agent(
        &self,
        node: &str,
        request: AgentRequest,
    ) -> Result<AgentAnswer, NodeStreamError>;
}
