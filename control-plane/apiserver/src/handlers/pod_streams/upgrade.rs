//! The change of protocol: WebSocket, and SPDY for clients that came before it.

use std::io;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{Sink, SinkExt as _, Stream, StreamExt as _};
use hyper::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use proto_spdy::{Connection, Role as SpdyRole};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_util::codec::{BytesCodec, FramedRead, FramedWrite};

use crate::handlers::Call;
use crate::http::{Request, Response, whole};
use crate::status::StatusError;

/// A client's message larger than this ends the session; kubectl's are 32 KiB.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// What client and server agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Agreed {
    WebSocket { protocol: &'static str, key: String },
    Spdy { protocol: &'static str },
}

impl Call {
    /// Picks a protocol: the first of ours that the client offers.
    ///
    /// # Errors
    /// 400 when the client asks for no upgrade, or offers nothing that we speak.
    pub(super) fn negotiate(
        &self,
        websocket: &[&'static str],
        spdy: &[&'static str],
    ) -> Result<Agreed, StatusError> {
        let text = |name: &HeaderName| {
            let value = self.headers.get(name).and_then(|v| v.to_str().ok());
            value.unwrap_or_default()
        };
        let upgrade = text(&UPGRADE);
        let is_spdy = upgrade.eq_ignore_ascii_case("SPDY/3.1");
        if !is_spdy && !upgrade.eq_ignore_ascii_case("websocket") {
            return Err(StatusError::bad_request("Upgrade request required"));
        }
        let (header, ours) = if is_spdy {
            (STREAM_PROTOCOL, spdy)
        } else {
            (SEC_WEBSOCKET_PROTOCOL, websocket)
        };
        let offered: Vec<&str> = self
            .headers
            .get_all(header)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .collect();
        let protocol = ours.iter().find(|protocol| offered.contains(protocol));
        let protocol = protocol.copied().ok_or_else(|| {
            StatusError::bad_request(format!(
                "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, \
                 server accepts {ours:?}"
            ))
        })?;
        if is_spdy {
            return Ok(Agreed::Spdy { protocol });
        }
        let key = text(&SEC_WEBSOCKET_KEY).to_owned();
        Ok(Agreed::WebSocket { protocol, key })
    }
}

/// The answer that changes the protocol.
pub(super) fn switching(agreed: &Agreed) -> Response {
    let mut answer = hyper::Response::new(whole(Bytes::new()));
    *answer.status_mut() = hyper::StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    match agreed {
        Agreed::WebSocket { protocol, key } => {
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
            if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
                headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
            }
        }
        Agreed::Spdy { protocol } => {
            headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
            headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
        }
    }
    answer
}

/// The WebSocket that the request has become.
pub(super) async fn socket(request: Request) -> Result<Socket, hyper::Error> {
    let io = TokioIo::new(hyper::upgrade::on(request).await?);
    let limits = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    Ok(WebSocketStream::from_raw_socket(io, Role::Server, Some(limits)).await)
}

/// The SPDY connection that the request has become.
pub(super) async fn spdy(
    request: Request,
) -> Result<(Connection, impl Future<Output = io::Result<()>>), hyper::Error> {
    let io = TokioIo::new(hyper::upgrade::on(request).await?);
    let (read, write) = tokio::io::split(io);
    let reader = FramedRead::new(read, BytesCodec::new()).map(|read| read.map(Into::into));
    let writer = FramedWrite::new(write, BytesCodec::new());
    Ok(Connection::new(SpdyRole::Server, reader, writer))
}

/// The SPDY connection inside the messages of a WebSocket.
pub(super) fn tunnelled(socket: Socket) -> (Connection, impl Future<Output = io::Result<()>>) {
    let (sink, stream) = socket.split();
    Connection::new(SpdyRole::Server, bytes_of(stream), messages_to(sink))
}

fn bytes_of(stream: SplitStream<Socket>) -> impl Stream<Item = io::Result<Bytes>> + Unpin {
    // A closing message ends the stream by itself.
    Box::pin(stream.filter_map(|message| async {
        match message {
            Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
            Ok(Message::Text(text)) => Some(Ok(Bytes::from(text))),
            Ok(Message::Close(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => None,
            Err(fault) => Some(Err(io::Error::other(fault))),
        }
    }))
}

fn messages_to(sink: SplitSink<Socket, Message>) -> impl Sink<Bytes, Error = io::Error> + Unpin {
    let sink = sink.sink_map_err(io::Error::other);
    Box::pin(sink.with(|bytes| async { Ok::<_, io::Error>(Message::Binary(bytes)) }))
}
