//! A gRPC channel to a Unix socket that connects on first use and again after a restart.

use std::path::PathBuf;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// Largest message accepted: lists of a full node exceed gRPC's default of 4 MiB.
pub(crate) const MESSAGE_MAX_BYTES: usize = 16 * 1024 * 1024;

/// A channel to `socket`. Nothing is connected before the first call.
pub(crate) fn unix(socket: PathBuf) -> Channel {
    // The authority is never resolved: the connector below knows the only address there is.
    Endpoint::from_static("http://containerd.invalid").connect_with_connector_lazy(service_fn(
        move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        },
    ))
}
