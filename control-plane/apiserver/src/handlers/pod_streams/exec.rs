//! `pods/exec` and `pods/attach` over WebSocket, `v4.channel.k8s.io` and `v5.channel.k8s.io`.
//!
//! Each binary message starts with a channel number: 0 stdin, 1 stdout, 2 stderr, 3 the final
//! Status, 4 terminal size; in v5, 255 followed by a channel closes that channel.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Empty};
use hyper::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    UPGRADE,
};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tracing::debug;

use super::{Located, locate, node_error};
use crate::handlers::Call;
use crate::http::{Request, Response};
use crate::node_streams::{ExecInput, ExecOutput, ExecRequest, ExecSession};
use crate::registry::Subresource;
use crate::server::Target;
use crate::status::StatusError;
use crate::tree;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;
/// How long a client may take to answer our close.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// Protocols that we speak, best first.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

type Socket = WebSocketStream<TokioIo<Upgraded>>;

impl Call {
    pub(in crate::handlers) async fn exec(
        &self,
        target: &Target,
        request: Request,
    ) -> Result<Response, StatusError> {
        let main = Target {
            subresource: None,
            ..target.clone()
        };
        let pod = self.api.server.get(&main, None).await?.value();
        let name = self.query.get("container").unwrap_or_default();
        let located = locate(target, &pod, name)?;
        let phase = tree::text(&pod, &["status", "phase"]);
        if matches!(phase, "Succeeded" | "Failed") {
            let message = format!(
                "cannot exec into a container in a completed pod; current phase is {phase}"
            );
            return Err(StatusError::bad_request(message));
        }
        let (protocol, key) = self.negotiate()?;
        let exec = self.exec_request(target, &located)?;
        let opened = self.api.nodes.exec(&located.node, exec).await;
        let session = opened.map_err(|fault| node_error(target, &fault))?;
        let stop = self.api.stop.clone();
        self.api.tasks.spawn(async move {
            match hyper::upgrade::on(request).await {
                Ok(upgraded) => {
                    let io = TokioIo::new(upgraded);
                    let socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
                    tokio::select! {
                        () = bridge(socket, session) => {}
                        () = stop.cancelled() => {}
                    }
                }
                Err(fault) => debug!(%fault, "exec was not upgraded"),
            }
        });
        Ok(switching(protocol, &key))
    }

    /// The protocol and the handshake's key.
    fn negotiate(&self) -> Result<(&'static str, String), StatusError> {
        let text = |name| {
            self.headers
                .get(name)
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default()
        };
        if !text(UPGRADE).eq_ignore_ascii_case("websocket") {
            return Err(StatusError::bad_request(
                "unable to upgrade: exec and attach need a WebSocket connection \
                 (v5.channel.k8s.io)",
            ));
        }
        let offered: Vec<&str> = self
            .headers
            .get_all(SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .collect();
        let protocol = PROTOCOLS
            .into_iter()
            .find(|protocol| offered.contains(protocol));
        let protocol = protocol.ok_or_else(|| {
            StatusError::bad_request(format!(
                "unable to upgrade: none of the protocols {offered:?} is known, use {PROTOCOLS:?}"
            ))
        })?;
        Ok((protocol, text(SEC_WEBSOCKET_KEY).to_owned()))
    }

    fn exec_request(&self, target: &Target, located: &Located) -> Result<ExecRequest, StatusError> {
        let command: Vec<String> = self.query.all("command").map(str::to_owned).collect();
        if command.is_empty() && target.subresource == Some(Subresource::Exec) {
            return Err(StatusError::bad_request(
                "you must specify a command for the container",
            ));
        }
        let tty = self.query.flag("tty");
        let request = ExecRequest {
            target: located.container.clone(),
            command,
            stdin: self.query.flag("stdin"),
            stdout: self.query.flag("stdout"),
            // A terminal has one output.
            stderr: self.query.flag("stderr") && !tty,
            tty,
        };
        if !(request.stdin || request.stdout || request.stderr) {
            let message = "you must specify at least one of stdin, stdout, stderr";
            return Err(StatusError::bad_request(message));
        }
        Ok(request)
    }
}

fn switching(protocol: &'static str, key: &str) -> Response {
    let mut answer = hyper::Response::new(Empty::<Bytes>::new().boxed_unsync());
    *answer.status_mut() = hyper::StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    answer
}

/// Carries both directions until the command ends or the client goes. Dropping the session then
/// ends the command.
async fn bridge(socket: Socket, session: ExecSession) {
    let (sink, stream) = socket.split();
    let ExecSession { input, output } = session;
    let mut incoming = std::pin::pin!(from_client(stream, input));
    tokio::select! {
        () = to_client(sink, output) => {}
        () = &mut incoming => return,
    }
    // Until the client has closed its side too: unread bytes would turn the close into a reset, and
    // the client could lose the status.
    if tokio::time::timeout(CLOSE_WAIT, incoming).await.is_err() {
        debug!("the client did not close its exec socket");
    }
}

async fn to_client(mut sink: SplitSink<Socket, Message>, mut output: mpsc::Receiver<ExecOutput>) {
    let mut last = None;
    while let Some(message) = output.recv().await {
        let sent = match message {
            ExecOutput::Stdout(bytes) => sink.send(framed(STDOUT, &bytes)).await,
            ExecOutput::Stderr(bytes) => sink.send(framed(STDERR, &bytes)).await,
            ExecOutput::Exited { code } => {
                last = Some(exit_status(code));
                break;
            }
            ExecOutput::Failed { message } => {
                last = Some(failure(&message));
                break;
            }
        };
        if sent.is_err() {
            return;
        }
    }
    let status = last.unwrap_or_else(|| failure("the node closed the stream"));
    // kubectl takes any code but "normal" for an error, even after a status.
    let normal = CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    };
    let last = [
        framed(STATUS, status.to_string().as_bytes()),
        Message::Close(Some(normal)),
    ];
    for message in last {
        if let Err(fault) = sink.send(message).await {
            return debug!(%fault, "exec status was not delivered");
        }
    }
}

async fn from_client(mut stream: SplitStream<Socket>, input: mpsc::Sender<ExecInput>) {
    while let Some(Ok(message)) = stream.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => Bytes::from(text),
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        if let Some(message) = parse_input(&bytes)
            && input.send(message).await.is_err()
        {
            // The command reads no more; its output may still go on.
            while let Some(Ok(message)) = stream.next().await {
                if message.is_close() {
                    return;
                }
            }
            return;
        }
    }
}

fn framed(channel: u8, bytes: &[u8]) -> Message {
    let mut frame = Vec::with_capacity(bytes.len() + 1);
    frame.push(channel);
    frame.extend_from_slice(bytes);
    Message::Binary(Bytes::from(frame))
}

/// One message of the client; `None` for what has no meaning here.
fn parse_input(bytes: &Bytes) -> Option<ExecInput> {
    match *bytes.first()? {
        STDIN if bytes.len() > 1 => Some(ExecInput::Stdin(bytes.slice(1..))),
        CLOSE if bytes.get(1) == Some(&STDIN) => Some(ExecInput::CloseStdin),
        RESIZE => {
            let size: Value = serde_json::from_slice(&bytes[1..]).ok()?;
            let side = |name: &str| size[name].as_u64().and_then(|n| u16::try_from(n).ok());
            Some(ExecInput::Resize {
                width: side("Width")?,
                height: side("Height")?,
            })
        }
        _ => None,
    }
}

fn exit_status(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

fn failure(message: &str) -> Value {
    json!({
        "metadata": {}, "status": "Failure", "reason": "InternalError",
        "message": message, "code": 500,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_told_apart() {
        let parse = |bytes: &'static [u8]| parse_input(&Bytes::from_static(bytes));
        assert_eq!(
            parse(b"\x00hi"),
            Some(ExecInput::Stdin(Bytes::from_static(b"hi")))
        );
        assert_eq!(parse(b"\xff\x00"), Some(ExecInput::CloseStdin));
        assert_eq!(
            parse(b"\x04{\"Width\":80,\"Height\":24}"),
            Some(ExecInput::Resize {
                width: 80,
                height: 24
            })
        );
        for nothing in [
            &b""[..],
            b"\x00",
            b"\xff\x01",
            b"\x04{",
            b"\x04{\"Width\":70000}",
            b"\x09x",
        ] {
            assert_eq!(
                parse_input(&Bytes::copy_from_slice(nothing)),
                None,
                "{nothing:?}"
            );
        }
    }

    #[test]
    fn an_exit_code_reaches_kubectl_as_a_cause() {
        assert_eq!(exit_status(0)["status"], "Success");
        let status = exit_status(3);
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0]["message"], "3");
    }
}
