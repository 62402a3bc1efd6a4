//! What hickory's transports run on: connected sockets, and tasks of the server's own tracker.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use hickory_resolver::net::runtime::{RuntimeProvider, Spawn, TokioRuntimeProvider, TokioTime};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

type Opening<T> = Pin<Box<dyn Send + Future<Output = io::Result<T>>>>;

/// Opens the sockets and owns the tasks of connections.
#[derive(Clone)]
pub(crate) struct Provider {
    tasks: Tasks,
    tokio: TokioRuntimeProvider,
}

/// Where connections run; they end with the server.
#[derive(Clone, Debug)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Provider {
    pub(crate) fn new(tracker: TaskTracker, stop: CancellationToken) -> Self {
        Self {
            tasks: Tasks { tracker, stop },
            tokio: TokioRuntimeProvider::new(),
        }
    }
}

impl Spawn for Tasks {
    fn spawn_bg(&mut self, future: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tracker.spawn(stop.run_until_cancelled_owned(future));
    }
}

impl RuntimeProvider for Provider {
    type Handle = Tasks;
    type Timer = TokioTime;
    type Udp = UdpSocket;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Tasks {
        self.tasks.clone()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        local: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Opening<Self::Tcp> {
        self.tokio.connect_tcp(server, local, timeout)
    }

    /// Connected, so that the kernel drops what others send, and tells at once that nobody listens
    /// there. Linux takes a target address on such a socket, as hickory gives with each packet.
    fn bind_udp(&self, local: SocketAddr, server: SocketAddr) -> Opening<UdpSocket> {
        Box::pin(async move {
            let socket = UdpSocket::bind(local).await?;
            socket.connect(server).await?;
            Ok(socket)
        })
    }
}
