//! Sessions of the control plane -> the kubelet's streams.

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use node_agent_kubelet::{
    AgentOutput, AttachSession, ExecOutput, ExecSession, ForwardAt, ForwardInput, ForwardOutput,
    ForwardSession, LogSession, SessionInput, StreamError, StreamHandler,
};
use node_agent_state::link::SessionHandler;
use proto::agent::v1 as pb;
use proto::agent::v1::{open_session, session_down, session_up};
use tokio::sync::mpsc;

/// Messages of a session that wait in one direction.
const QUEUE: usize = 16;

/// Serves sessions by the kubelet's streams.
#[derive(Debug)]
pub(crate) struct Sessions(pub(crate) StreamHandler);

fn failed(error: StreamError) -> pb::SessionEnd {
    let error_code = error.code.into();
    pb::SessionEnd {
        exit_code: 0,
        error: error.message,
        error_code,
    }
}

#[async_trait]
impl SessionHandler for Sessions {
    async fn serve(
        &self,
        request: open_session::Request,
        down: BoxStream<'static, pb::SessionDown>,
        up: mpsc::Sender<pb::SessionUp>,
    ) -> pb::SessionEnd {
        match request {
            open_session::Request::Log(request) => self.logs(request, up).await,
            open_session::Request::Exec(request) => self.exec(request, down, up).await,
            open_session::Request::PortForward(request) => {
                self.port_forward(request, down, up).await
            }
            open_session::Request::Agent(request) => self.agent(request, up).await,
        }
    }
}

impl Sessions {
    async fn logs(
        &self,
        request: pb::LogRequest,
        up: mpsc::Sender<pb::SessionUp>,
    ) -> pb::SessionEnd {
        let since_time = match parse_time(&request.since_time) {
            Ok(time) => time,
            Err(error) => return failed(error),
        };
        let session = LogSession {
            namespace: request.namespace,
            pod: request.pod,
            uid: request.uid,
            container: request.container,
            follow: request.follow,
            previous: request.previous,
            timestamps: request.timestamps,
            tail_lines: request
                .tail_lines
                .and_then(|lines| u64::try_from(lines).ok()),
            limit_bytes: request
                .limit_bytes
                .and_then(|bytes| u64::try_from(bytes).ok()),
            since_seconds: request.since_seconds,
            since_time,
        };
        let (output, mut lines) = mpsc::channel(QUEUE);
        let relay = async {
            while let Some(bytes) = lines.recv().await {
                let message = Some(session_up::Message::Stdout(bytes));
                if up.send(pb::SessionUp { message }).await.is_err() {
                    break;
                }
            }
        };
        let read = async move {
            let read = self.0.logs(&session, &output).await;
            drop(output);
            read
        };
        // The relay ends when the reader has dropped its end, so both end.
        let (read, ()) = tokio::join!(read, relay);
        match read {
            Ok(()) => pb::SessionEnd::default(),
            Err(error) => failed(error),
        }
    }

    async fn agent(
        &self,
        request: pb::AgentRequest,
        up: mpsc::Sender<pb::SessionUp>,
    ) -> pb::SessionEnd {
        let (output, mut said) = mpsc::channel(QUEUE);
        let relay = async {
            while let Some(message) = said.recv().await {
                let message = Some(match message {
                    AgentOutput::Body(bytes) => session_up::Message::Stdout(bytes),
                    AgentOutput::Answer(answer) => session_up::Message::Answer(pb::AgentAnswer {
                        status: answer.status.into(),
                        content_type: answer.content_type.to_owned(),
                    }),
                });
                if up.send(pb::SessionUp { message }).await.is_err() {
                    break;
                }
            }
            // Seen by the kubelet as a client who went away.
            drop(said);
        };
        let answer = self.0.agent(&request.path, &request.query, output);
        match tokio::join!(answer, relay).0 {
            Ok(()) => pb::SessionEnd::default(),
            Err(error) => failed(error),
        }
    }

    /// Starts a command, or attaches to what runs.
    async fn exec(
        &self,
        request: pb::ExecRequest,
        down: BoxStream<'static, pb::SessionDown>,
        up: mpsc::Sender<pb::SessionUp>,
    ) -> pb::SessionEnd {
        let (input, from_user) = mpsc::channel(QUEUE);
        let (to_user, mut output) = mpsc::channel(QUEUE);
        let relay_up = async {
            while let Some(message) = output.recv().await {
                let message = Some(match message {
                    ExecOutput::Stdout(bytes) => session_up::Message::Stdout(bytes),
                    ExecOutput::Stderr(bytes) => session_up::Message::Stderr(bytes),
                });
                if up.send(pb::SessionUp { message }).await.is_err() {
                    break;
                }
            }
            // Seen by the kubelet as a user who went away.
            drop(output);
        };
        let run = async { tokio::join!(self.process(request, from_user, to_user), relay_up).0 };
        let ran = tokio::select! {
            ran = run => ran,
            never = relay_down(down, input, to_kubelet) => match never {},
        };
        match ran {
            Ok(exit_code) => pb::SessionEnd {
                exit_code,
                ..pb::SessionEnd::default()
            },
            Err(error) => failed(error),
        }
    }

    async fn process(
        &self,
        request: pb::ExecRequest,
        input: mpsc::Receiver<SessionInput>,
        output: mpsc::Sender<ExecOutput>,
    ) -> Result<i32, StreamError> {
        if request.attach {
            let session = AttachSession {
                namespace: request.namespace,
                pod: request.pod,
                uid: request.uid,
                container: request.container,
                stdin: request.stdin,
                stdout: request.stdout,
                stderr: request.stderr,
            };
            return self.0.attach(&session, input, output).await.map(|()| 0);
        }
        let session = ExecSession {
            namespace: request.namespace,
            pod: request.pod,
            uid: request.uid,
            container: request.container,
            command: request.command,
            stdin: request.stdin,
            tty: request.tty,
        };
        self.0.exec(&session, input, output).await
    }

    async fn port_forward(
        &self,
        request: pb::PortForwardRequest,
        down: BoxStream<'static, pb::SessionDown>,
        up: mpsc::Sender<pb::SessionUp>,
    ) -> pb::SessionEnd {
        let Some(port) = u16::try_from(request.port).ok().filter(|port| *port > 0) else {
            return failed(StreamError {
                code: 400,
                message: format!("port {} is no TCP port", request.port),
            });
        };
        let session = ForwardSession {
            namespace: request.namespace,
            pod: request.pod,
            uid: request.uid,
            port,
            at: if request.pod_address {
                ForwardAt::PodAddress
            } else {
                ForwardAt::Loopback
            },
        };
        let (input, from_user) = mpsc::channel(QUEUE);
        let (to_user, mut output) = mpsc::channel(QUEUE);
        let relay_up = async {
            while let Some(message) = output.recv().await {
                let message = Some(match message {
                    ForwardOutput::Data(bytes) => session_up::Message::Stdout(bytes),
                    ForwardOutput::Closed => session_up::Message::OutputClosed(pb::OutputClosed {}),
                });
                if up.send(pb::SessionUp { message }).await.is_err() {
                    break;
                }
            }
            drop(output);
        };
        let forward = self.0.port_forward(&session, from_user, to_user);
        let run = async { tokio::join!(forward, relay_up).0 };
        let ran = tokio::select! {
            ran = run => ran,
            never = relay_down(down, input, to_port) => match never {},
        };
        match ran {
            Ok(()) => pb::SessionEnd::default(),
            Err(error) => failed(error),
        }
    }
}

/// Hands on what comes down, for as long as it is polled: without more input a session goes on.
async fn relay_down<T: Send>(
    mut down: BoxStream<'static, pb::SessionDown>,
    input: mpsc::Sender<T>,
    convert: fn(session_down::Message) -> Option<T>,
) -> std::convert::Infallible {
    while let Some(message) = down.next().await {
        let Some(message) = message.message.and_then(convert) else {
            continue;
        };
        if input.send(message).await.is_err() {
            break;
        }
    }
    std::future::pending().await
}

fn to_port(message: session_down::Message) -> Option<ForwardInput> {
    match message {
        session_down::Message::Stdin(bytes) => Some(ForwardInput::Data(bytes)),
        session_down::Message::StdinClosed(_) => Some(ForwardInput::Close),
        session_down::Message::Resize(_) => None,
    }
}

fn to_kubelet(message: session_down::Message) -> Option<SessionInput> {
    Some(match message {
        session_down::Message::Stdin(bytes) => SessionInput::Data(bytes),
        session_down::Message::StdinClosed(_) => SessionInput::Close,
        session_down::Message::Resize(size) => SessionInput::Resize {
            width: size.width,
            height: size.height,
        },
    })
}

fn parse_time(text: &str) -> Result<Option<jiff::Timestamp>, StreamError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| StreamError {
        code: 400,
        message: format!("sinceTime {text:?} is no RFC 3339 time: {error}"),
    })
}
