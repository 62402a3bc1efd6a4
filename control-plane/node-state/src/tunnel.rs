//! Log, exec and port-forward sessions: asked for on a node's stream, opened by the node.
//!
//! Each session is one HTTP/2 stream that the agent opens, so each has its own flow control and a
//! node needs no inbound port.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use proto::agent::v1 as pb;
use proto::agent::v1::server_message::Message;
use proto::agent::v1::{open_session, session_up};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;
use tonic::{Status, Streaming};

use crate::relay::Peers;
use crate::stream::{Down, message};

/// How long a node may take to open a session.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages of a session that wait in one direction.
pub(crate) const SESSION_QUEUE: usize = 16;

/// Why a session did not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The node has no stream to this control plane.
    #[error("node {node} is not connected to the control plane")]
    NotConnected {
        /// Name of the node.
        node: String,
    },
    /// The node did not open the session in time.
    #[error("node {node} did not open the session within {} seconds", OPEN_TIMEOUT.as_secs())]
    Timeout {
        /// Name of the node.
        node: String,
    },
}

/// An open session. Dropping both ends closes it on the node.
#[derive(Debug)]
pub struct TunnelSession {
    /// To the node.
    pub down: mpsc::Sender<pb::SessionDown>,
    /// From the node; the last message is the end. A broken stream ends without one.
    pub up: mpsc::Receiver<session_up::Message>,
}

#[derive(Debug, Default)]
struct Inner {
    nodes: HashMap<String, (u64, Down)>,
    waiting: HashMap<String, (String, oneshot::Sender<TunnelSession>)>,
    generation: u64,
}

/// The nodes that can be asked, and the sessions that are awaited. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tunnels {
    inner: Arc<Mutex<Inner>>,
    peers: Arc<OnceLock<Peers>>,
    tasks: TaskTracker,
}

impl Tunnels {
    /// Where a node may be that has no stream here. Once; later calls change nothing.
    pub fn set_peers(&self, peers: Peers) {
        drop(self.peers.set(peers));
    }

    /// Asks `node` for a session, through another control plane when the node's stream is there,
    /// and waits until it is open.
    ///
    /// # Errors
    /// The node is not connected, or does not answer in time.
    pub async fn open(
        &self,
        node: &str,
        request: open_session::Request,
    ) -> Result<TunnelSession, OpenError> {
        match (
            self.open_here(node, request.clone()).await,
            self.peers.get(),
        ) {
            (Err(OpenError::NotConnected { .. }), Some(peers)) => {
                peers.open(node, request, &self.tasks).await
            }
            (opened, _) => opened,
        }
    }

    /// As [`Tunnels::open`], for a node whose stream is here.
    pub(crate) async fn open_here(
        &self,
        node: &str,
        request: open_session::Request,
    ) -> Result<TunnelSession, OpenError> {
        let not_connected = || OpenError::NotConnected {
            node: node.to_owned(),
        };
        let session_id = uuid::Uuid::new_v4().to_string();
        let (sender, receiver) = oneshot::channel();
        let down = {
            let mut inner = self.inner.lock();
            let (_, down) = inner.nodes.get(node).ok_or_else(not_connected)?;
            let down = down.clone();
            inner
                .waiting
                .insert(session_id.clone(), (node.to_owned(), sender));
            down
        };
        let forget = Forget {
            tunnels: self,
            session_id: &session_id,
        };
        let open = pb::OpenSession {
            session_id: session_id.clone(),
            request: Some(request),
        };
        let opened = tokio::time::timeout(OPEN_TIMEOUT, async {
            down.send(Ok(message(Message::OpenSession(open))))
                .await
                .ok()?;
            receiver.await.ok()
        });
        let opened = opened.await;
        drop(forget);
        match opened {
            Ok(Some(session)) => Ok(session),
            Ok(None) => Err(not_connected()),
            Err(_elapsed) => Err(OpenError::Timeout {
                node: node.to_owned(),
            }),
        }
    }

    /// Waits until every session has ended.
    pub(crate) async fn stopped(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Owns what relays sessions.
    pub(crate) const fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// A node's stream is open. Answers the number that [`Tunnels::leave`] takes.
    pub(crate) fn join(&self, node: &str, down: Down) -> u64 {
        let mut inner = self.inner.lock();
        inner.generation += 1;
        let generation = inner.generation;
        inner.nodes.insert(node.to_owned(), (generation, down));
        generation
    }

    /// A node's stream is closed. False when a newer one of the same node has taken its place.
    pub(crate) fn leave(&self, node: &str, generation: u64) -> bool {
        let mut inner = self.inner.lock();
        let current = inner
            .nodes
            .get(node)
            .is_some_and(|(current, _)| *current == generation);
        if current {
            inner.nodes.remove(node);
            inner.waiting.retain(|_, (there, _)| there != node);
        }
        current
    }

    /// A node opened a session: hands it to whoever asked. Answers what goes down the stream.
    pub(crate) async fn accept(
        &self,
        node: &str,
        mut up: Streaming<pb::SessionUp>,
    ) -> Result<mpsc::Receiver<pb::SessionDown>, Status> {
        let first = up.message().await?.and_then(|first| first.message);
        let Some(session_up::Message::Open(open)) = first else {
            return Err(Status::invalid_argument(
                "the first message of a session must open it",
            ));
        };
        let waiting = self.inner.lock().waiting.remove(&open.session_id);
        let Some((owner, sender)) = waiting else {
            return Err(Status::not_found("nobody waits for this session any more"));
        };
        if owner != node {
            return Err(Status::permission_denied("this session is another node's"));
        }
        let (down, down_receiver) = mpsc::channel(SESSION_QUEUE);
        let (up_sender, up_receiver) = mpsc::channel(SESSION_QUEUE);
        let session = TunnelSession {
            down,
            up: up_receiver,
        };
        if sender.send(session).is_err() {
            return Err(Status::cancelled(
                "the client left before the session was open",
            ));
        }
        self.tasks.spawn(relay(up, up_sender));
        Ok(down_receiver)
    }
}

/// Relays what the node sends until either side is gone.
async fn relay(mut up: Streaming<pb::SessionUp>, to: mpsc::Sender<session_up::Message>) {
    loop {
        // Cancel-safe: `message` keeps what it has; `closed` only looks.
        let next = tokio::select! {
            next = up.message() => next,
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

struct Forget<'a> {
    tunnels: &'a Tunnels,
    session_id: &'a str,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.tunnels.inner.lock().waiting.remove(self.session_id);
    }
}
