//! The source that is our own control plane: one connection, kept alive.
//!
//! Owns: joining, the certificate and its renewal, the stream with its reconnects, heartbeats and
//! acknowledgements, sessions that the server asks for. A lost connection changes nothing on the node:
//! the last snapshot stays published until a newer one is complete.

pub mod identity;
mod report;
mod session;
mod stream;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use proto::agent::v1::node_link_client::NodeLinkClient;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;
use tracing::warn;

use crate::hub::{StateHub, StateWriter};
pub use identity::{Identity, JoinError};
pub use session::SessionHandler;

/// Largest message taken from the control plane: a Secret of the API's maximum size and more.
pub(crate) const MESSAGE_SIZE_MAX: usize = 16 << 20;
/// Pause before the first reconnect; doubled each time up to [`RECONNECT_PAUSE_MAX`].
pub(crate) const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause between reconnects.
pub(crate) const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Silence on the connection after which the peer is asked for a sign of life.
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long that sign may take.
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one report may take.
pub(crate) const REPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the control plane is and who this node is.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// Name of this node.
    pub node_name: String,
    /// `host:port` of the node listeners of all control planes, at least one: any of them will do.
    pub control_planes: Vec<String>,
    /// The cluster's CA, PEM: the only issuer that is trusted.
    pub ca_file: PathBuf,
    /// Token for the first join; not read once there is a certificate.
    pub join_token_file: PathBuf,
    /// Directory that holds key and certificate.
    pub pki_dir: PathBuf,
    /// Changes when the machine boots.
    pub boot_id: String,
}

impl LinkConfig {
    /// The control plane of turn `turn`: round and round.
    pub(crate) fn control_plane(&self, turn: usize) -> &str {
        let count = self.control_planes.len().max(1);
        self.control_planes
            .get(turn % count)
            .map_or("", String::as_str)
    }
}

/// Spreads the nodes over the control planes, each always the same way (FNV-1a).
fn start_at(node_name: &str) -> usize {
    let hash = node_name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    usize::try_from(hash).unwrap_or(0)
}

/// What the link is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkStatus {
    /// The stream is open.
    pub connected: bool,
    /// Why it is not.
    pub error: Option<String>,
}

/// The connection to the control plane. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Link {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: LinkConfig,
    /// Counts on; which of the control planes is in use.
    turn: AtomicUsize,
    client: Mutex<NodeLinkClient<Channel>>,
    status: watch::Sender<LinkStatus>,
}

impl Link {
    /// Joins the cluster if this node has no certificate yet, and prepares the connection. Waits for
    /// a control plane that is not up yet; fails on what waiting does not mend.
    ///
    /// # Errors
    /// [`JoinError`]: an unreadable file, a refused token.
    pub async fn connect(config: LinkConfig) -> Result<Self, JoinError> {
        let first = start_at(&config.node_name);
        let (identity, turn) = Identity::obtain(&config, first).await?;
        let client = identity::client(&config, turn, &identity)?;
        let (status, _) = watch::channel(LinkStatus::default());
        let shared = Shared {
            config,
            turn: AtomicUsize::new(turn),
            client: Mutex::new(client),
            status,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Runs the stream until `stop`: publishes snapshots, acknowledges what consumers applied,
    /// renews the certificate, serves sessions.
    pub async fn run(
        &self,
        writer: StateWriter,
        hub: StateHub,
        sessions: Arc<dyn SessionHandler>,
        stop: CancellationToken,
    ) {
        let tasks = TaskTracker::new();
        tasks.spawn(identity::renew_forever(self.clone(), stop.clone()));
        stream::run(self, &writer, &hub, &sessions, &tasks, &stop).await;
        tasks.close();
        tasks.wait().await;
    }

    /// What the link is doing, as it changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<LinkStatus> {
        self.shared.status.subscribe()
    }

    /// `host:port` of the control plane that is in use.
    #[must_use]
    pub fn control_plane(&self) -> &str {
        self.shared.config.control_plane(self.turn())
    }

    pub(crate) fn turn(&self) -> usize {
        self.shared.turn.load(Ordering::Relaxed)
    }

    /// Goes to the next control plane. False when there is only one.
    pub(crate) fn take_next(&self) -> bool {
        if self.shared.config.control_planes.len() < 2 {
            return false;
        }
        let turn = self
            .shared
            .turn
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(1);
        match identity::stored_client(&self.shared.config, turn) {
            Ok(client) => self.replace_client(client),
            Err(error) => warn!(%error, "cannot turn to the next control plane"),
        }
        true
    }

    pub(crate) fn client(&self) -> NodeLinkClient<Channel> {
        self.shared.client.lock().clone()
    }

    pub(crate) fn replace_client(&self, client: NodeLinkClient<Channel>) {
        *self.shared.client.lock() = client;
    }

    pub(crate) fn config(&self) -> &LinkConfig {
        &self.shared.config
    }

    pub(crate) fn set_status(&self, status: LinkStatus) {
        self.shared.status.send_if_modified(|current| {
            let changed = *current != status;
            *current = status;
            changed
        });
    }
}
