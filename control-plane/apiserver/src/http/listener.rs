//! TLS listeners: HTTP/1.1 with upgrades and HTTP/2 on one port, clients with or without a
//! certificate.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::{Request, Response};

/// How long a client may take for the TLS handshake.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);
/// How long a client may take for the header of a request.
const HEADER_WAIT: Duration = Duration::from_secs(30);
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
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                let (acceptor, stop, handle) = (acceptor.clone(), stop.clone(), handle.clone());
                connections.spawn(serve_connection(stream, address, acceptor, stop, handle));
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
    let peer = Peer {
        address,
        certificate,
    };
    let service = service_fn(move |request| {
        let answer = handle(peer.clone(), request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WAIT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(KEEP_ALIVE);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(tls), service);
    let mut connection = std::pin::pin!(connection);
    // The connection is polled on after the select, so nothing of it is lost.
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stop.cancelled() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN_WAIT, connection).await {
                Ok(ended) => ended,
                Err(_) => return debug!(%address, "connection closed at shutdown"),
            }
        }
    };
    if let Err(fault) = ended {
        debug!(%address, %fault, "connection ended");
    }
}
