//! TLS listeners: HTTP/1.1 with upgrades and HTTP/2 on one port, clients with or without a
//! certificate.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::guarded::Guarded;
use super::limits::{HEADERS_MAX, TRANSPORT_HEAD_MAX};
use super::{Request, Response};
use crate::auth::User;

/// How long a client may take for the TLS handshake.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);
/// How long a client may take for the header of a request.
const HEADER_WAIT: Duration = Duration::from_secs(10);
/// Connections at a time; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 20_000;
/// Bytes that an answer may be ahead of its client, a stream.
const SEND_BUFFER_MAX: usize = 64 * 1024;
/// Bytes that a client may send ahead of us: a stream, and a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Streams that a client opens and resets at once, before the connection is closed.
const RESET_STREAMS_MAX: usize = 20;
/// Pause after an accept that failed (out of descriptors, for one).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Streams of one HTTP/2 connection at a time.
const STREAMS_MAX: u32 = 1000;
/// How long open requests may take to end at shutdown.
const DRAIN_WAIT: Duration = Duration::from_secs(5);
/// How often an idle HTTP/2 peer is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// The verified client certificate.
    pub(crate) certificate: Option<CertificateDer<'static>>,
    /// Whom the certificate names, read with the connection's first request.
    pub(crate) user: Arc<OnceLock<Option<User>>>,
}

/// A bound socket and its TLS configuration.
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) tls: Arc<rustls::ServerConfig>,
}

/// Serves `listener` until `stop`, then lets open requests end.
pub(crate) async fn serve<F, R>(listener: Listener, stop: CancellationToken, handle: F)
where
    F: Fn(Peer, Request) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(listener.tls);
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accept = async {
            // Never closed.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (listener.socket.accept().await, place)
        };
        // Cancel safe: a connection is accepted in the last step, and stopping drops it anyway.
        let (accepted, place) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                let (acceptor, stop, handle) = (acceptor.clone(), stop.clone(), handle.clone());
                let served = serve_connection(stream, address, acceptor, stop, handle);
                connections.spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            Err(fault) => {
                warn!(%fault, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
}

async fn serve_connection<F, R>(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    stop: CancellationToken,
    handle: F,
) where
    F: Fn(Peer, Request) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response> + Send + 'static,
{
    if let Err(fault) = stream.set_nodelay(true) {
        debug!(%address, %fault, "set nodelay");
    }
    let handshake = tokio::time::timeout(HANDSHAKE_WAIT, acceptor.accept(stream));
    let shaken = tokio::select! {
        () = stop.cancelled() => return,
        shaken = handshake => shaken,
    };
    let tls = match shaken {
        Ok(Ok(tls)) => tls,
        Ok(Err(fault)) => return debug!(%address, %fault, "TLS handshake failed"),
        Err(_) => return debug!(%address, "TLS handshake timed out"),
    };
    let certificate = tls
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first)
        .map(|c| c.clone().into_owned());
    let protocol = match tls.get_ref().1.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    };
    let tls = Guarded::new(tls);
    let peer = Peer {
        address,
        certificate,
        user: Arc::default(),
    };
    let service = service_fn(move |request| {
        let answer = handle(peer.clone(), request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let ended = match protocol {
        Protocol::Http2 => http2(tls, service, &stop).await,
        Protocol::Http1 => http1(tls, service, &stop).await,
    };
    if let Err(fault) = ended {
        debug!(%address, %fault, "connection ended");
    }
}

/// What the client chose in the TLS handshake.
#[derive(Debug, Clone, Copy)]
enum Protocol {
    Http1,
    Http2,
}

type Tls = Guarded<TlsStream<TcpStream>>;

async fn http2<S, R>(tls: Tls, service: S, stop: &CancellationToken) -> hyper::Result<()>
where
    S: Service<Request, Response = Response, Error = Infallible, Future = R> + 'static,
    R: Future<Output = Result<Response, Infallible>> + Send + 'static,
{
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(TRANSPORT_HEAD_MAX)
        .max_send_buf_size(SEND_BUFFER_MAX)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(KEEP_ALIVE);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(tls), service));
    // The connection is polled on after the select, so nothing of it is lost.
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    drained(connection).await
}

async fn http1<S, R>(tls: Tls, service: S, stop: &CancellationToken) -> hyper::Result<()>
where
    S: Service<Request, Response = Response, Error = Infallible, Future = R> + Send + 'static,
    R: Future<Output = Result<Response, Infallible>> + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WAIT)
        .max_headers(2 * HEADERS_MAX)
        .max_buf_size(usize::try_from(TRANSPORT_HEAD_MAX).unwrap_or(usize::MAX));
    let connection = builder.serve_connection(TokioIo::new(tls), service);
    let mut connection = std::pin::pin!(connection.with_upgrades());
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    drained(connection).await
}

/// Lets open requests end.
async fn drained(connection: impl Future<Output = hyper::Result<()>>) -> hyper::Result<()> {
    match tokio::time::timeout(DRAIN_WAIT, connection).await {
        Ok(ended) => ended,
        Err(_) => {
            debug!("connection closed at shutdown");
            Ok(())
        }
    }
}
