//! A command's streams as channels of a WebSocket.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tracing::debug;

use super::channel::{STATUS, STDERR, STDOUT, exec_input, exit_status, failure, framed};
use super::upgrade::Socket;
use crate::node_streams::{ExecInput, ExecOutput, ExecSession};

/// How long a client may take to answer our close.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// Carries both directions until the command ends or the client goes. Dropping the session then
/// ends the command.
pub(super) async fn bridge(socket: Socket, session: ExecSession) {
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
    let message = |channel, bytes: &[u8]| Message::Binary(framed(channel, bytes));
    let mut last = None;
    while let Some(said) = output.recv().await {
        let sent = match said {
            ExecOutput::Stdout(bytes) => sink.send(message(STDOUT, &bytes)).await,
            ExecOutput::Stderr(bytes) => sink.send(message(STDERR, &bytes)).await,
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
        message(STATUS, status.to_string().as_bytes()),
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
        if let Some(message) = exec_input(&bytes)
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
