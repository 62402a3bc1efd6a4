//! Forwarded ports as pairs of WebSocket channels: one connection a port.

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tracing::debug;

use super::channel::{PortMessage, framed, port_channels, port_input};
use super::forward::Forwarder;
use super::upgrade::Socket;
use crate::node_streams::{PORT_QUEUE, PortInput, PortOutput, PortSession};

/// Serves the ports until all of them have ended or the client goes.
pub(super) async fn bridge(socket: Socket, forwarder: Forwarder, ports: &[u16]) {
    let (sink, stream) = socket.split();
    let (to_client, said) = mpsc::channel(PORT_QUEUE);
    let mut inputs = Vec::new();
    // Dropped with this future, so that no connection outlives its client.
    let mut running = JoinSet::new();
    for (index, port) in ports.iter().enumerate() {
        let Some(channels) = port_channels(index) else {
            return;
        };
        let (input, from_client) = mpsc::channel(PORT_QUEUE);
        inputs.push(input);
        let one = OnePort {
            port: *port,
            channels,
            to_client: to_client.clone(),
        };
        running.spawn(one.run(forwarder.clone(), from_client));
    }
    // The writer ends when the last port has.
    drop(to_client);
    let mut incoming = std::pin::pin!(from_client(stream, inputs));
    tokio::select! {
        () = write(sink, said) => incoming.await,
        () = &mut incoming => {}
    }
}

struct OnePort {
    port: u16,
    /// Data, error.
    channels: (u8, u8),
    to_client: mpsc::Sender<Bytes>,
}

impl OnePort {
    async fn run(self, forwarder: Forwarder, input: mpsc::Receiver<PortInput>) {
        let number = self.port.to_le_bytes();
        let (data, error) = self.channels;
        for channel in [data, error] {
            if self.to_client.send(framed(channel, &number)).await.is_err() {
                return;
            }
        }
        let failed = match forwarder.connect(self.port).await {
            Ok(session) => self.carry(session, input).await,
            Err(fault) => Some(format!("error forwarding port {}: {fault}", self.port)),
        };
        if let Some(message) = failed
            && self
                .to_client
                .send(framed(error, message.as_bytes()))
                .await
                .is_err()
        {
            debug!(port = self.port, "the client left before it could be told");
        }
    }

    /// Carries both directions; answers why it failed, if it did.
    async fn carry(
        &self,
        session: PortSession,
        mut from_client: mpsc::Receiver<PortInput>,
    ) -> Option<String> {
        let PortSession { input, mut output } = session;
        let to_pod = async {
            while let Some(message) = from_client.recv().await {
                if input.send(message).await.is_err() {
                    break;
                }
            }
            std::future::pending::<()>().await;
        };
        let from_pod = async {
            while let Some(said) = output.recv().await {
                match said {
                    PortOutput::Data(bytes) => {
                        let message = framed(self.channels.0, &bytes);
                        self.to_client.send(message).await.ok()?;
                    }
                    // This protocol has no word for it; the end of all ports ends the connection.
                    PortOutput::Closed => return None,
                    PortOutput::Failed { message } => return Some(message),
                }
            }
            None
        };
        tokio::select! {
            failed = from_pod => failed,
            () = to_pod => None,
        }
    }
}

async fn from_client(mut stream: SplitStream<Socket>, inputs: Vec<mpsc::Sender<PortInput>>) {
    while let Some(Ok(message)) = stream.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => Bytes::from(text),
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        let Some(message) = port_input(&bytes, inputs.len()) else {
            continue;
        };
        let (port, message) = match message {
            PortMessage::Data { port, bytes } => (port, PortInput::Data(bytes)),
            PortMessage::Close { port } => (port, PortInput::Close),
        };
        if let Some(input) = inputs.get(port)
            && input.send(message).await.is_err()
        {
            debug!(port, "a forwarded port takes no more");
        }
    }
}

async fn write(mut sink: SplitSink<Socket, Message>, mut said: mpsc::Receiver<Bytes>) {
    while let Some(bytes) = said.recv().await {
        if sink.send(Message::Binary(bytes)).await.is_err() {
            return;
        }
    }
    let normal = CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    };
    if let Err(fault) = sink.send(Message::Close(Some(normal))).await {
        debug!(%fault, "the client did not take our close");
    }
}
