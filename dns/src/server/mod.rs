//! The server: sockets, tasks, and who owns them.
//!
//! One task a UDP socket answers cluster names on the spot; what must be asked elsewhere goes to a
//! task of its own, of which there is a bounded number. All tasks belong to one tracker and end
//! with one token.

mod reply;
mod tcp;
mod udp;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cluster::ClusterNames;
use crate::config::DnsConfig;
use crate::handler::Context;
use crate::metrics::Metrics;
use crate::names;
use crate::snapshot::{Snapshot, Zone};
use crate::upstream::Forwarder;

/// How long a shutdown waits for questions that are being forwarded.
const DRAIN: Duration = Duration::from_secs(2);
/// Tries to find a port that is free for UDP and TCP.
const PORT_TRIES: usize = 20;

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The cluster's domain is no domain name.
    #[error("{domain:?} is no domain name; use one such as cluster.local")]
    Domain {
        /// What was given.
        domain: String,
    },
    /// An address cannot be used.
    #[error("listen on {address} ({transport}); is the address on an interface, and free?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// `udp` or `tcp`.
        transport: &'static str,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
}

/// The cluster's DNS server.
#[derive(Debug)]
pub struct DnsServer;

/// A running server. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct DnsHandle {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    stop: CancellationToken,
}

/// Gives a server new states of the cluster. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SnapshotPublisher {
    shared: Arc<Shared>,
}

/// What all tasks share.
#[derive(Debug)]
pub(crate) struct Shared {
    zone: Zone,
    snapshot: ArcSwapOption<Snapshot>,
    forwarder: Option<Arc<Forwarder>>,
    metrics: Arc<Metrics>,
    forwards: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    idle_timeout: Duration,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl DnsServer {
    /// Binds all addresses and starts to answer. Cluster names get SERVFAIL until the first state
    /// is published.
    ///
    /// # Errors
    /// [`BindError`]; nothing is left running then.
    pub async fn bind(config: DnsConfig) -> Result<DnsHandle, BindError> {
        let Some(name) = names::absolute(&config.cluster_domain) else {
            return Err(BindError::Domain {
                domain: config.cluster_domain,
            });
        };
        let zone = Zone {
            name,
            ttl_s: config.ttl_s,
            pod_names: config.pod_names,
        };
        let mut sockets = Vec::with_capacity(config.listen.len());
        for address in &config.listen {
            sockets.push(bind(*address).await?);
        }
        let addresses: Vec<_> = sockets.iter().map(|(.., address)| *address).collect();
        let shared = Arc::new(Shared::new(&config, zone, &addresses));
        for (udp, tcp, _) in sockets {
            shared
                .tasks
                .spawn(udp::serve(Arc::clone(&shared), Arc::new(udp)));
            shared.tasks.spawn(tcp::serve(Arc::clone(&shared), tcp));
        }
        if let Some(forwarder) = &shared.forwarder {
            let watch = Arc::clone(forwarder).watch_loops();
            shared
                .tasks
                .spawn(shared.stop.clone().run_until_cancelled_owned(watch));
        }
        shared.tasks.close();
        tracing::info!(?addresses, zone = %names::text(&shared.zone.name), "dns serves");
        let stop = shared.stop.clone();
        Ok(DnsHandle {
            shared,
            addresses,
            stop,
        })
    }
}

impl DnsHandle {
    /// The addresses in use, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The way to give the server new states.
    #[must_use]
    pub fn publisher(&self) -> SnapshotPublisher {
        SnapshotPublisher {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Whether a state of the cluster has come.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.shared.snapshot.load().is_some()
    }

    /// Adds the server's metrics to a registry.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.shared.metrics.register(registry);
    }

    /// Takes no more questions, waits a moment for answers that are under way, and ends.
    pub async fn shutdown(self) {
        self.stop.cancel();
        if tokio::time::timeout(DRAIN, self.shared.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(after = ?DRAIN, tasks = self.shared.tasks.len(), "dns ends with work left");
        }
    }
}

impl Drop for DnsHandle {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl SnapshotPublisher {
    /// Makes the table of names and swaps it in; readers never wait. An older revision than the
    /// one that is served is taken, too: the caller's order counts.
    ///
    /// Takes some tens of milliseconds for ten thousand services: do not call it on a thread that
    /// must not wait.
    pub fn publish(&self, cluster: &ClusterNames) {
        let serial = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| {
                u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
            });
        let snapshot = Snapshot::build(cluster, &self.shared.zone, serial);
        let metrics = &self.shared.metrics;
        metrics
            .revision
            .set(i64::try_from(snapshot.revision).unwrap_or(i64::MAX));
        metrics
            .names
            .set(i64::try_from(snapshot.len()).unwrap_or(i64::MAX));
        tracing::debug!(
            revision = snapshot.revision,
            names = snapshot.len(),
            "names published"
        );
        self.shared.snapshot.store(Some(Arc::new(snapshot)));
    }
}

impl SnapshotPublisher {
    /// Upstreams at these addresses are not asked from now on: they lead back here.
    pub fn exclude(&self, own_addresses: &[IpAddr]) {
        if let Some(forwarder) = &self.shared.forwarder {
            forwarder.exclude(own_addresses);
        }
    }
}

impl Shared {
    fn new(config: &DnsConfig, zone: Zone, addresses: &[SocketAddr]) -> Self {
        let metrics = Arc::new(Metrics::new());
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        // A wildcard address is every address of the machine: then only the probe finds loops.
        let ours = addresses.iter().filter(|address| address.port() == 53);
        let own: Vec<IpAddr> = config
            .own_addresses
            .iter()
            .copied()
            .chain(ours.map(SocketAddr::ip))
            .collect();
        let forwarder = Forwarder::new(
            config,
            &own,
            tasks.clone(),
            stop.clone(),
            Arc::clone(&metrics),
        );
        Self {
            zone,
            snapshot: ArcSwapOption::empty(),
            forwarder: forwarder.is_any().then(|| Arc::new(forwarder)),
            metrics,
            forwards: Arc::new(Semaphore::new(config.forwards_max)),
            connections: Arc::new(Semaphore::new(config.connections_max)),
            idle_timeout: config.idle_timeout,
            tasks,
            stop,
        }
    }

    fn context<'a>(
        &'a self,
        snapshot: Option<&'a Snapshot>,
        rotation: usize,
        limit: usize,
    ) -> Context<'a> {
        let forwarding = self.forwarder.is_some();
        Context {
            zone: &self.zone,
            snapshot,
            forwarding,
            rotation,
            limit,
        }
    }
}

/// Both sockets of an address. With port 0 UDP chooses and TCP must get the same.
async fn bind(address: SocketAddr) -> Result<(UdpSocket, TcpListener, SocketAddr), BindError> {
    let fault = |transport| {
        move |source| BindError::Listen {
            address,
            transport,
            source,
        }
    };
    let mut tries = 0;
    loop {
        let udp = UdpSocket::bind(address).await.map_err(fault("udp"))?;
        let bound = udp.local_addr().map_err(fault("udp"))?;
        match TcpListener::bind(bound).await {
            Ok(tcp) => return Ok((udp, tcp, bound)),
            Err(_) if address.port() == 0 && tries < PORT_TRIES => tries += 1,
            Err(source) => return Err(fault("tcp")(source)),
        }
    }
}

/// Upstream servers of the node: those of `path` that are not this server.
///
/// # Errors
/// When the file cannot be read.
pub fn node_upstreams(
    path: &Path,
    own_addresses: &[IpAddr],
) -> Result<Vec<SocketAddr>, crate::ResolvConfError> {
    let mut upstreams = crate::upstream::upstreams_from_resolv_conf(path)?;
    upstreams.retain(|upstream| !own_addresses.contains(&upstream.ip()));
    Ok(upstreams)
}
