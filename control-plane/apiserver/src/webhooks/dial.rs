//! Connections to webhooks: to a URL's host over the network, to a pod through its node's stream.
//!
//! Nothing is connected to but what the configuration names: no redirect is followed, no proxy is
//! asked, and of a service only its ready endpoints are taken.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rand::seq::SliceRandom as _;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::Place;
use super::service::{self, Backend, Destination, ServiceError, may_be_dialled};
use super::tls;
use crate::cache::WatchCache;
use crate::node_pipe::{Failure, pipe};
use crate::node_streams::{NodeStreamError, NodeStreams, PortAt, PortRequest};
use crate::object::ObjKey;
use crate::registry::Registry;
use crate::tree;

const HTTPS: u16 = 443;
/// Endpoints of one service that are tried for one connection.
const ENDPOINTS_TRIED: usize = 3;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error(transparent)]
    Service(#[from] ServiceError),
    #[error("dial tcp {address}: {source}")]
    Tcp {
        address: String,
        #[source]
        source: std::io::Error,
    },
    #[error("dial pod {pod}: {source}")]
    Node {
        pod: String,
        #[source]
        source: NodeStreamError,
    },
    #[error("dial pod {pod}: it has no node")]
    NoNode { pod: String },
    #[error("endpoint {address} is an address of this machine or its link: it is not connected to")]
    Own { address: String },
    #[error("{told}")]
    Tls { told: String },
    #[error("{host} is no host name: {why}")]
    Host { host: String, why: String },
}

/// What carries bytes.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
type Carried = Box<dyn Stream>;

/// Connects to places.
pub(crate) struct Dialer {
    pub(crate) cache: Arc<WatchCache>,
    pub(crate) registry: Registry,
    pub(crate) nodes: Arc<dyn NodeStreams>,
    /// Owns what carries connections to pods.
    pub(crate) tasks: TaskTracker,
    /// Ends them.
    pub(crate) stop: CancellationToken,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer").finish_non_exhaustive()
    }
}

impl Dialer {
    /// A connection to `place`, before TLS; and why it broke, if a node tells.
    async fn open(&self, place: &Place, uri: &Uri) -> Result<(Carried, Failure), DialError> {
        let (namespace, name, port) = match place {
            Place::Url(_) => {
                let host = bare_host(uri);
                let port = uri.port_u16().unwrap_or(HTTPS);
                return tcp(host, port).await;
            }
            Place::Service {
                namespace,
                name,
                port,
                ..
            } => (namespace, name, *port),
        };
        let of = (namespace.as_str(), name.as_str());
        match service::resolve(&self.cache, &self.registry, of, port)? {
            Destination::External { host, port } => tcp(&host, port).await,
            Destination::Backends(mut backends) => {
                backends.shuffle(&mut rand::rng());
                let mut last = DialError::Service(ServiceError::NoEndpoints(name.clone()));
                for backend in backends.iter().take(ENDPOINTS_TRIED) {
                    match self.to_backend(namespace, backend).await {
                        Ok(open) => return Ok(open),
                        Err(fault) => last = fault,
                    }
                }
                Err(last)
            }
        }
    }

    async fn to_backend(
        &self,
        namespace: &str,
        backend: &Backend,
    ) -> Result<(Carried, Failure), DialError> {
        let Some((pod, uid)) = &backend.pod else {
            let address: Option<IpAddr> = backend.address.parse().ok();
            if !address.is_some_and(may_be_dialled) {
                let address = backend.address.clone();
                return Err(DialError::Own { address });
            }
            return tcp(&backend.address, backend.port).await;
        };
        let node = self.node_of(namespace, pod);
        let node = node.ok_or_else(|| DialError::NoNode { pod: pod.clone() })?;
        let request = PortRequest {
            namespace: namespace.to_owned(),
            pod: pod.clone(),
            pod_uid: uid.clone(),
            port: backend.port,
            at: PortAt::PodAddress,
        };
        let session = self.nodes.port(&node, request).await;
        let session = session.map_err(|source| DialError::Node {
            pod: pod.clone(),
            source,
        })?;
        let (io, failure) = pipe(session, &self.tasks, &self.stop);
        Ok((Box::new(io), failure))
    }

    fn node_of(&self, namespace: &str, pod: &str) -> Option<String> {
        let pods = self.registry.by_plural("", "v1", "pods")?;
        let pod = self.cache.of(&pods).get(&ObjKey::new(namespace, pod))?;
        let value = pod.value();
        let node = tree::text(&value, &["spec", "nodeName"]);
        (!node.is_empty()).then(|| node.to_owned())
    }
}

/// The host without the brackets of an IPv6 address.
fn bare_host(uri: &Uri) -> &str {
    let host = uri.host().unwrap_or_default();
    host.trim_start_matches('[').trim_end_matches(']')
}

async fn tcp(host: &str, port: u16) -> Result<(Carried, Failure), DialError> {
    let stream = TcpStream::connect((host, port)).await;
    let stream = stream.map_err(|source| DialError::Tcp {
        address: format!("{host}:{port}"),
        source,
    })?;
    // Questions are small and waited for.
    let _best_effort = stream.set_nodelay(true);
    Ok((Box::new(stream), Failure::default()))
}

/// Makes the connections of one webhook's HTTP client.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) dialer: Arc<Dialer>,
    pub(super) place: Arc<Place>,
    pub(super) tls: TlsConnector,
}

impl tower::Service<Uri> for Connector {
    type Response = Secured;
    type Error = DialError;
    type Future = BoxFuture<'static, Result<Secured, DialError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let own = self.clone();
        Box::pin(async move {
            let (io, failure) = own.dialer.open(&own.place, &uri).await?;
            let host = bare_host(&uri);
            let name = ServerName::try_from(host.to_owned()).map_err(|fault| DialError::Host {
                host: host.to_owned(),
                why: fault.to_string(),
            })?;
            match own.tls.connect(name, io).await {
                Ok(stream) => Ok(Secured(TokioIo::new(stream))),
                Err(fault) => {
                    // What the node says is nearer to the cause than a broken handshake.
                    let told = failure.get().cloned();
                    let told = told.unwrap_or_else(|| tls::told(&fault));
                    Err(DialError::Tls { told })
                }
            }
        })
    }
}

/// A connection under TLS.
pub(super) struct Secured(TokioIo<TlsStream<Carried>>);

impl Connection for Secured {
    fn connected(&self) -> Connected {
        let (_, session) = self.0.inner().get_ref();
        if session.alpn_protocol() == Some(b"h2") {
            Connected::new().negotiated_h2()
        } else {
            Connected::new()
        }
    }
}

impl Read for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl Write for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
