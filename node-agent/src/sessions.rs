//! Log and exec sessions of the control plane -> the kubelet's streams.

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use node_agent_kubelet::{
    ExecOutput, ExecSession, LogSession, SessionInput, StreamError, StreamHandler,
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
            open_session::Request::Exec(request) if request.attach => pb::SessionEnd {
                error: "this node does not serve attach; use exec".to_owned(),
                error_code: 501,
                ..pb::SessionEnd::default()
            },
            open_session::Request::Exec(request) => self.exec(request, down, up).await,
            open_session::Request::PortForward(_) => pb::SessionEnd {
                error: "this node does not serve port-forward".to_owned(),
                error_code: 501,
                ..pb::SessionEnd::default()
            },
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

    async fn exec(
        &self,
        request: pb::ExecRequest,
        down: BoxStream<'static, pb::SessionDown>,
        up: mpsc::Sender<pb::SessionUp>,
    ) -> pb::SessionEnd {
        let session = ExecSession {
            namespace: request.namespace,
            pod: request.pod,
            uid: request.uid,
            container: request.container,
            command: request.command,
            stdin: request.stdin,
            tty: request.tty,
        };
        let (input, from_user) = mpsc::channel(QUEUE);
        let (to_user, mut output) = mpsc::channel(QUEUE);
        let relay_down = async move {
            let mut down = down;
            while let Some(message) = down.next().await {
                let Some(message) = message.message.map(to_kubelet) else {
                    continue;
                };
                if input.send(message).await.is_err() {
                    break;
                }
            }
            // Without more input the command goes on.
            std::future::pending::<()>().await;
        };
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
        };
        let run = async { tokio::join!(self.0.exec(&session, from_user, to_user), relay_up).0 };
        let ran = tokio::select! {
            ran = run => ran,
            () = relay_down => return pb::SessionEnd::default(),
        };
        match ran {
            Ok(exit_code) => pb::SessionEnd {
                exit_code,
                ..pb::SessionEnd::default()
            },
            Err(error) => failed(error),
        }
    }
}

fn to_kubelet(message: session_down::Message) -> SessionInput {
    match message {
        session_down::Message::Stdin(bytes) => SessionInput::Data(bytes),
        session_down::Message::StdinClosed(_) => SessionInput::Close,
        session_down::Message::Resize(size) => SessionInput::Resize {
            width: size.width,
            height: size.height,
        },
    }
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
