//! Sessions with nodes whose stream another control plane has.
//!
//! A node has one stream, to any control plane. Who needs a session and does not have the stream asks
//! the others; there are few, and one that does not have it says so at once. The one that has it opens
//! the session as its own and passes the messages on: both ends see a session as if it were here.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::Mutex;
use proto::agent::v1 as pb;
use proto::agent::v1::node_link_client::NodeLinkClient;
use proto::agent::v1::{open_session, relay_down, session_up};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status, Streaming};
use tracing::debug;

use crate::tunnel::{OpenError, SESSION_QUEUE, TunnelSession, Tunnels};

/// How long another control plane may take to be reached.
const CONNECT_WAIT: Duration = Duration::from_secs(2);
/// How long it may take to open the session: it waits for the node itself.
const OPEN_WAIT: Duration = Duration::from_secs(12);
/// Silence after which the other end is asked for a sign of life, and how long that may take.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// The other control planes.
pub struct Peers {
    /// Their node listeners, as they come and go.
    addresses: watch::Receiver<Vec<SocketAddr>>,
    tls: ClientTlsConfig,
    clients: Mutex<HashMap<SocketAddr, NodeLinkClient<Channel>>>,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers")
            .field("addresses", &*self.addresses.borrow())
            .finish_non_exhaustive()
    }
}

impl Peers {
    /// `ca_pem`: who signed their certificates. `identity`: our own, as
    /// [`CONTROL_PLANE_USER`](crate::CONTROL_PLANE_USER); certificate and key, PEM.
    #[must_use]
    pub fn new(
        addresses: watch::Receiver<Vec<SocketAddr>>,
        ca_pem: &str,
        identity: (&str, &str),
    ) -> Self {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(ca_pem))
            .identity(Identity::from_pem(identity.0, identity.1));
        Self {
            addresses,
            tls,
            clients: Mutex::default(),
        }
    }

    pub(crate) async fn open(
        &self,
        node: &str,
        request: open_session::Request,
        tasks: &TaskTracker,
    ) -> Result<TunnelSession, OpenError> {
        let addresses = self.addresses.borrow().clone();
        self.clients
            .lock()
            .retain(|address, _| addresses.contains(address));
        for address in addresses {
            let asked = self.ask(address, node, request.clone(), tasks);
            match tokio::time::timeout(OPEN_WAIT, asked).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(status)) if status.code() == Code::DeadlineExceeded => {
                    return Err(OpenError::Timeout {
                        node: node.to_owned(),
                    });
                }
                Ok(Err(status)) => {
                    debug!(%address, node, error = %status.message(), "not there");
                }
                Err(_elapsed) => debug!(%address, node, "no answer"),
            }
        }
        Err(OpenError::NotConnected {
            node: node.to_owned(),
        })
    }

    async fn ask(
        &self,
        address: SocketAddr,
        node: &str,
        request: open_session::Request,
        tasks: &TaskTracker,
    ) -> Result<TunnelSession, Status> {
        let mut client = self.client(address)?;
        let (to, outgoing) = mpsc::channel(SESSION_QUEUE);
        let open = pb::RelayOpen {
            node: node.to_owned(),
            session: Some(pb::OpenSession {
                session_id: String::new(),
                request: Some(request),
            }),
        };
        let open = relay_message(relay_down::Message::Open(open));
        to.send(open)
            .await
            .map_err(|_closed| Status::unavailable("the session closed before it was open"))?;
        let incoming = client.relay(ReceiverStream::new(outgoing)).await?;
        let (down, from_here) = mpsc::channel(SESSION_QUEUE);
        let (to_here, up) = mpsc::channel(SESSION_QUEUE);
        tasks.spawn(send_down(from_here, to));
        tasks.spawn(take_up(incoming.into_inner(), to_here));
        Ok(TunnelSession { down, up })
    }

    fn client(&self, address: SocketAddr) -> Result<NodeLinkClient<Channel>, Status> {
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(&address) {
            return Ok(client.clone());
        }
        let fault = |error: tonic::transport::Error| Status::internal(error.to_string());
        let endpoint = Endpoint::from_shared(format!("https://{address}"))
            .and_then(|endpoint| endpoint.tls_config(self.tls.clone()))
            .map_err(fault)?
            .connect_timeout(CONNECT_WAIT)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .tcp_nodelay(true);
        let client = NodeLinkClient::new(endpoint.connect_lazy());
        clients.insert(address, client.clone());
        Ok(client)
    }
}

fn relay_message(message: relay_down::Message) -> pb::RelayDown {
    pb::RelayDown {
        message: Some(message),
    }
}

/// Passes on what goes down until either side is gone.
async fn send_down(mut from: mpsc::Receiver<pb::SessionDown>, to: mpsc::Sender<pb::RelayDown>) {
    while let Some(message) = from.recv().await {
        let message = relay_message(relay_down::Message::Down(message));
        if to.send(message).await.is_err() {
            return;
        }
    }
}

/// Passes on what comes up until either side is gone.
async fn take_up(mut from: Streaming<pb::SessionUp>, to: mpsc::Sender<session_up::Message>) {
    loop {
        // Cancel-safe: `message` keeps what it has; `closed` only looks.
        let next = tokio::select! {
            next = from.message() => next,
            () = to.closed() => return,
        };
        let Ok(Some(next)) = next else { return };
        if let Some(next) = next.message
            && to.send(next).await.is_err()
        {
            return;
        }
    }
}

/// Opens a session for another control plane. Answers what goes back to it.
pub(crate) async fn accept(
    tunnels: &Tunnels,
    mut from: Streaming<pb::RelayDown>,
) -> Result<mpsc::Receiver<pb::SessionUp>, Status> {
    let first = from.message().await?.and_then(|first| first.message);
    let Some(relay_down::Message::Open(pb::RelayOpen {
        node,
        session:
            Some(pb::OpenSession {
                request: Some(request),
                ..
            }),
    })) = first
    else {
        return Err(Status::invalid_argument(
            "the first message of a relay must name a node and what is asked of it",
        ));
    };
    let opened = tunnels.open_here(&node, request).await;
    let TunnelSession { down, mut up } = opened.map_err(|error| match error {
        OpenError::NotConnected { .. } => Status::not_found(error.to_string()),
        OpenError::Timeout { .. } => Status::deadline_exceeded(error.to_string()),
    })?;
    let (to, answers) = mpsc::channel(SESSION_QUEUE);
    tunnels.tasks().spawn(async move {
        while let Ok(Some(next)) = from.message().await {
            if let Some(relay_down::Message::Down(message)) = next.message
                && down.send(message).await.is_err()
            {
                return;
            }
        }
    });
    tunnels.tasks().spawn(async move {
        loop {
            // Cancel-safe: `recv` takes a message or does not; `closed` only looks.
            let next = tokio::select! {
                next = up.recv() => next,
                () = to.closed() => return,
            };
            let Some(message) = next else { return };
            let message = pb::SessionUp {
                message: Some(message),
            };
            if to.send(message).await.is_err() {
                return;
            }
        }
    });
    Ok(answers)
}
