//! A TCP connection from inside a pod's network namespace: what port-forward needs.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::namespace::NetworkNamespace;

/// Connects to `address` as a process in the namespace at `path` would.
///
/// # Errors
/// The namespace is gone, or the connection is refused or takes longer than `timeout`.
pub async fn connect_inside(
    path: &Path,
    address: SocketAddr,
    timeout: Duration,
) -> io::Result<TcpStream> {
    let namespace = NetworkNamespace::open(path)?;
    // The whole connect happens on the thread inside, which lives no longer than `timeout`.
    let connect = move || std::net::TcpStream::connect_timeout(&address, timeout);
    let stream = namespace.run(connect).await?;
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    TcpStream::from_std(stream)
}
