//! Sessions of the API server with pods and agents, over the nodes' tunnels.

use async_trait::async_trait;
use control_plane_apiserver::node_streams::{
    AgentAnswer, AgentRequest, EXEC_INPUT_QUEUE, EXEC_OUTPUT_QUEUE, ExecInput, ExecOutput,
    ExecRequest, ExecSession, LogRequest, LogStream, NodeStreamError, NodeStreams, PORT_QUEUE,
    PortAt, PortInput, PortOutput, PortRequest, PortSession,
};
use control_plane_node_state::{OpenError, TunnelSession, Tunnels};
use futures::StreamExt as _;
use proto::agent::v1 as pb;
use proto::agent::v1::{open_session, session_down, session_up};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

/// Logs and commands over tunnels.
#[derive(Debug)]
pub(crate) struct Sessions {
    tunnels: Tunnels,
    tasks: TaskTracker,
}

impl Sessions {
    /// `tasks` owns the relays.
    pub(crate) fn new(tunnels: Tunnels, tasks: TaskTracker) -> Self {
        Self { tunnels, tasks }
    }

    async fn open(
        &self,
        node: &str,
        request: open_session::Request,
    ) -> Result<TunnelSession, NodeStreamError> {
        self.tunnels
            .open(node, request)
            .await
            .map_err(|error| match error {
                OpenError::NotConnected { node } => NodeStreamError::NotConnected { node },
                OpenError::Timeout { .. } => NodeStreamError::Failed {
                    node: node.to_owned(),
                    message: error.to_string(),
                },
            })
    }
}

/// How a session that ended says it failed.
fn failure(node: &str, end: pb::SessionEnd) -> Option<NodeStreamError> {
    if end.error.is_empty() {
        return None;
    }
    let message = end.error;
    Some(match end.error_code {
        404 => NodeStreamError::NotFound { message },
        400 => NodeStreamError::BadRequest { message },
        _ => NodeStreamError::Failed {
            node: node.to_owned(),
            message,
        },
    })
}

fn broken(node: &str) -> NodeStreamError {
    NodeStreamError::Failed {
        node: node.to_owned(),
        message: "the session broke off".to_owned(),
    }
}

#[async_trait]
impl NodeStreams for Sessions {
    async fn logs(&self, node: &str, request: LogRequest) -> Result<LogStream, NodeStreamError> {
        let target = request.target;
        let wire = pb::LogRequest {
            namespace: target.namespace,
            pod: target.pod,
            uid: target.pod_uid,
            container: target.container,
            follow: request.follow,
            previous: request.previous,
            timestamps: request.timestamps,
            tail_lines: request.tail_lines,
            limit_bytes: request.limit_bytes,
            since_seconds: request.since_seconds,
            since_time: request.since_time.unwrap_or_default(),
        };
        let mut session = self.open(node, open_session::Request::Log(wire)).await?;
        // The first message decides whether there is a log at all: then it is an HTTP status.
        let first = match session.up.recv().await {
            None => return Err(broken(node)),
            Some(session_up::Message::End(end)) => match failure(node, end) {
                Some(error) => return Err(error),
                None => return Ok(futures::stream::empty().boxed()),
            },
            Some(first) => first,
        };
        Ok(text(node.to_owned(), session, Some(first)))
    }

    async fn exec(&self, node: &str, request: ExecRequest) -> Result<ExecSession, NodeStreamError> {
        let target = request.target;
        let wire = pb::ExecRequest {
            namespace: target.namespace,
            pod: target.pod,
            uid: target.pod_uid,
            container: target.container,
            attach: request.command.is_empty(),
            command: request.command,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            tty: request.tty,
        };
        let session = self.open(node, open_session::Request::Exec(wire)).await?;
        let (input, from_client) = mpsc::channel(EXEC_INPUT_QUEUE);
        let (to_client, output) = mpsc::channel(EXEC_OUTPUT_QUEUE);
        self.tasks
            .spawn(relay(node.to_owned(), session, from_client, to_client));
        Ok(ExecSession { input, output })
    }

    async fn port(&self, node: &str, request: PortRequest) -> Result<PortSession, NodeStreamError> {
        let wire = pb::PortForwardRequest {
            namespace: request.namespace,
            pod: request.pod,
            uid: request.pod_uid,
            port: request.port.into(),
            pod_address: request.at == PortAt::PodAddress,
        };
        let wire = open_session::Request::PortForward(wire);
        let session = self.open(node, wire).await?;
        let (input, from_client) = mpsc::channel(PORT_QUEUE);
        let (to_client, output) = mpsc::channel(PORT_QUEUE);
        let relay = relay_port(node.to_owned(), session, from_client, to_client);
        self.tasks.spawn(relay);
        Ok(PortSession { input, output })
    }

    async fn agent(
        &self,
        node: &str,
        request: AgentRequest,
    ) -> Result<AgentAnswer, NodeStreamError> {
        let wire = pb::AgentRequest {
            path: request.path,
            query: request.query,
        };
        let mut session = self.open(node, open_session::Request::Agent(wire)).await?;
        let answer = match session.up.recv().await {
            Some(session_up::Message::Answer(answer)) => answer,
            Some(session_up::Message::End(end)) => {
                return Err(failure(node, end).unwrap_or_else(|| broken(node)));
            }
            _ => return Err(broken(node)),
        };
        Ok(AgentAnswer {
            status: u16::try_from(answer.status).unwrap_or(500),
            content_type: answer.content_type,
            body: text(node.to_owned(), session, None),
        })
    }
}

/// What a session says on stdout from here on, beginning with `first`.
fn text(node: String, session: TunnelSession, first: Option<session_up::Message>) -> LogStream {
    // The session rides along, so that dropping the stream closes it on the node.
    let rest = futures::stream::unfold(Some((session, first, node)), |state| async {
        let (mut session, first, node) = state?;
        let next = match first {
            Some(first) => Some(first),
            None => session.up.recv().await,
        };
        match next {
            Some(session_up::Message::Stdout(bytes) | session_up::Message::Stderr(bytes)) => {
                Some((Ok(bytes), Some((session, None, node))))
            }
            Some(session_up::Message::End(end)) => {
                failure(&node, end).map(|error| (Err(error), None))
            }
            Some(
                session_up::Message::Open(_)
                | session_up::Message::OutputClosed(_)
                | session_up::Message::Answer(_),
            )
            | None => Some((Err(broken(&node)), None)),
        }
    });
    rest.boxed()
}

/// Both directions of a forwarded connection until the node ends it or the client leaves.
async fn relay_port(
    node: String,
    session: TunnelSession,
    mut from_client: mpsc::Receiver<PortInput>,
    to_client: mpsc::Sender<PortOutput>,
) {
    let TunnelSession { down, mut up } = session;
    let input = async {
        while let Some(input) = from_client.recv().await {
            let message = Some(match input {
                PortInput::Data(bytes) => session_down::Message::Stdin(bytes),
                PortInput::Close => session_down::Message::StdinClosed(pb::StdinClosed {}),
            });
            if down.send(pb::SessionDown { message }).await.is_err() {
                break;
            }
        }
        // The client's end is told by `Close`; that it left shows on the other channel.
        std::future::pending::<()>().await;
    };
    let output = async {
        loop {
            let message = match up.recv().await {
                Some(session_up::Message::Stdout(bytes)) => PortOutput::Data(bytes),
                Some(session_up::Message::OutputClosed(_)) => PortOutput::Closed,
                Some(session_up::Message::End(end)) => match failure(&node, end) {
                    None => return,
                    Some(error) => failed(&error),
                },
                None => failed(&broken(&node)),
                Some(_) => continue,
            };
            let last = matches!(message, PortOutput::Failed { .. });
            if to_client.send(message).await.is_err() || last {
                return;
            }
        }
    };
    tokio::select! {
        () = input => {}
        () = output => {}
        () = to_client.closed() => {}
    }
}

fn failed(error: &NodeStreamError) -> PortOutput {
    let message = match error {
        NodeStreamError::Failed { message, .. } => message.clone(),
        NodeStreamError::NotConnected { .. }
        | NodeStreamError::NotFound { .. }
        | NodeStreamError::BadRequest { .. } => error.to_string(),
    };
    PortOutput::Failed { message }
}

/// Both directions of a command until it ends or the client leaves.
async fn relay(
    node: String,
    session: TunnelSession,
    mut from_client: mpsc::Receiver<ExecInput>,
    to_client: mpsc::Sender<ExecOutput>,
) {
    let TunnelSession { down, mut up } = session;
    let input = async {
        while let Some(input) = from_client.recv().await {
            if down
                .send(pb::SessionDown {
                    message: Some(to_node(input)),
                })
                .await
                .is_err()
            {
                break;
            }
        }
        // No more input is not the end: the command may go on.
        std::future::pending::<()>().await;
    };
    let output = async {
        loop {
            let message = match up.recv().await {
                Some(session_up::Message::Stdout(bytes)) => ExecOutput::Stdout(bytes),
                Some(session_up::Message::Stderr(bytes)) => ExecOutput::Stderr(bytes),
                Some(
                    session_up::Message::Open(_)
                    | session_up::Message::OutputClosed(_)
                    | session_up::Message::Answer(_),
                ) => continue,
                Some(session_up::Message::End(end)) => ended(&node, end),
                None => ExecOutput::Failed {
                    message: broken(&node).to_string(),
                },
            };
            let last = matches!(
                message,
                ExecOutput::Exited { .. } | ExecOutput::Failed { .. }
            );
            if to_client.send(message).await.is_err() || last {
                return;
            }
        }
    };
    tokio::select! {
        () = input => {}
        () = output => {}
        () = to_client.closed() => {}
    }
}

fn to_node(input: ExecInput) -> session_down::Message {
    match input {
        ExecInput::Stdin(bytes) => session_down::Message::Stdin(bytes),
        ExecInput::CloseStdin => session_down::Message::StdinClosed(pb::StdinClosed {}),
        ExecInput::Resize { width, height } => session_down::Message::Resize(pb::Resize {
            width: width.into(),
            height: height.into(),
        }),
    }
}

fn ended(node: &str, end: pb::SessionEnd) -> ExecOutput {
    let code = end.exit_code;
    match failure(node, end) {
        Some(error) => ExecOutput::Failed {
            message: error.to_string(),
        },
        None => ExecOutput::Exited { code },
    }
}
