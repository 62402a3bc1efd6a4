//! Start and stop: cache, bootstrap objects, certificates, listeners.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use control_plane_storage::Store;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::addresses;
use crate::admission::dynamic::follow_policies;
use crate::alloc::{CidrError, ServiceCidr, ServiceRanges};
use crate::audit::{self, AuditConfig, AuditLog};
use crate::auth::{MASTERS, rbac};
use crate::bootstrap::bootstrap;
use crate::cache::{self, PumpError, WatchCache};
use crate::custom;
use crate::flow::{self, Flow};
use crate::handlers::{Api, Discovery, OpenApi};
use crate::http::{Listener, serve};
use crate::members::{Member, Members};
use crate::metrics::Metrics;
use crate::node_streams::NodeStreams;
use crate::pki::{Kubeconfig, Pki, PkiError, write_kubeconfig};
use crate::registry::Registry;
use crate::sealing::SealedStore;
use crate::server::Server;
use crate::signing;
use crate::status::StatusError;
use crate::webhooks::{Dialer, WebhookClients};

/// The Kubernetes version whose API this is.
const API_MINOR: &str = "37";
/// The oldest minor version that the API can be taken back to.
const API_MINOR_BEFORE: &str = "36";
/// Connections that wait to be accepted; the kernel's own bound may be lower.
const BACKLOG: u32 = 1024;

/// How to start.
#[derive(Debug, Clone)]
pub struct ApiServerConfig {
    /// The cluster's authority.
    pub pki: Arc<Pki>,
    /// This server's name among those of the same store, unique among all that ever ran.
    pub identity: String,
    /// Addresses to listen on; port 0 takes a free one.
    pub bind: Vec<SocketAddr>,
    /// Addresses that several servers of this machine listen on together: the kernel gives each
    /// connection to one of those that live.
    pub shared_bind: Vec<SocketAddr>,
    /// Where nodes, and the other servers of the store, reach this process; told to the others.
    pub nodes: Option<SocketAddr>,
    /// Where nodes and pods reach this server; port 0 is the first listener's.
    pub advertise: SocketAddr,
    /// Further names and addresses of the server's certificate.
    pub extra_names: Vec<String>,
    /// Range of service addresses, for example `10.96.0.0/16`; or one of each family with a comma
    /// between them, the primary one first.
    pub service_cidr: String,
    /// Domain of cluster DNS, for example `cluster.local`.
    pub cluster_domain: String,
    /// Where the administrator's kubeconfig is written, before anything is served.
    pub kubeconfig: Option<PathBuf>,
    /// Server address in that kubeconfig; the advertised one when absent.
    pub kubeconfig_server: Option<String>,
    /// The audit log; none when absent.
    pub audit: Option<AuditConfig>,
}

/// Why the API server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be read.
    #[error(transparent)]
    Cache(#[from] PumpError),
    /// The service range is unusable.
    #[error(transparent)]
    Cidr(#[from] CidrError),
    /// A certificate cannot be made, or the kubeconfig not written.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// TLS cannot be configured.
    #[error("configure TLS: {message}")]
    Tls {
        /// Why.
        message: String,
    },
    /// An address is not free.
    #[error("listen on {address}: is another process using it?")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No address to listen on.
    #[error("no address to listen on was given")]
    NoAddress,
    /// The first objects cannot be written.
    #[error("write the cluster's first objects: {0}")]
    Bootstrap(#[from] StatusError),
}

/// The API server.
#[derive(Debug)]
pub struct ApiServer;

/// A running API server.
#[derive(Debug)]
pub struct ApiServerHandle {
    server: Arc<Server>,
    pki: Arc<Pki>,
    addresses: Vec<SocketAddr>,
    members: watch::Receiver<Vec<Member>>,
    leaving: CancellationToken,
    membership: TaskTracker,
    stop: CancellationToken,
    pump_stop: CancellationToken,
    tasks: TaskTracker,
    pump: TaskTracker,
}

impl ApiServerHandle {
    /// The verbs, for callers in this process.
    #[must_use]
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// The cluster's authority.
    #[must_use]
    pub fn pki(&self) -> &Arc<Pki> {
        &self.pki
    }

    /// The addresses that are listened on.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// All control planes of the store, this one included, as they come and go.
    #[must_use]
    pub fn members(&self) -> watch::Receiver<Vec<Member>> {
        self.members.clone()
    }

    /// Leaves the other servers, stops accepting, ends watches, lets open requests finish, then stops the cache. In-process
    /// callers should be stopped first.
    pub async fn shutdown(self) {
        self.leaving.cancel();
        self.membership.close();
        self.membership.wait().await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.pump_stop.cancel();
        self.pump.close();
        self.pump.wait().await;
    }
}

impl ApiServer {
    /// Loads the store, writes the cluster's first objects and the kubeconfig, and serves.
    ///
    /// # Errors
    /// See [`StartError`]; nothing keeps running then.
    pub async fn start(
        config: ApiServerConfig,
        store: Arc<dyn Store>,
        node_streams: Arc<dyn NodeStreams>,
    ) -> Result<ApiServerHandle, StartError> {
        let service_ranges: ServiceRanges = config.service_cidr.parse()?;
        let (sockets, addresses) = bind(&config)?;
        let mut advertise = config.advertise;
        if advertise.port() == 0 {
            advertise.set_port(addresses[0].port());
        }
        let sealed = Arc::new(SealedStore::new(store, Arc::clone(config.pki.sealing())));
        let store: Arc<dyn Store> = Arc::<SealedStore>::clone(&sealed);
        let registry = Registry::default();
        let cache = Arc::new(WatchCache::new(&registry));
        let revision = cache::load(&cache, &*store).await?;
        let pump_stop = CancellationToken::new();
        let pump = TaskTracker::new();
        follow(&pump, &cache, &store, revision, &pump_stop);
        // From here on a failure must stop the pump.
        let guard = pump_stop.clone().drop_guard();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let server = Arc::new(Server::new(store, cache, registry.clone(), service_ranges));
        reach_webhooks(&server, &node_streams, &tasks, &stop);
        write_first(&server, advertise).await?;
        let own = Member {
            identity: config.identity.clone(),
            api: advertise,
            nodes: config.nodes,
        };
        let members = Arc::new(Members::new(Arc::clone(&server), own));
        members.hold().await?;
        let tls = tls_config(&config, service_ranges.primary, advertise, &addresses)?;
        write_admin(&config, advertise)?;
        let discovery = Discovery::new(registry, &advertise.to_string());
        let audit = start_audit(config.audit.clone(), &tasks, &stop);
        let metrics = Metrics::new(audit.as_ref().map(|log| Arc::clone(log.counts())))
            .with(|all| server.dynamic.webhooks().metrics().register(all));
        let flow = Arc::new(Flow::new(metrics.flow()));
        flow::load(&flow, &server)?;
        let api = Arc::new(Api {
            server: Arc::clone(&server),
            nodes: node_streams,
            tokens: Arc::clone(config.pki.tokens()),
            openapi: OpenApi::default(),
            discovery,
            flow: Arc::clone(&flow),
            metrics,
            audit,
            version: version(),
            stop: stop.clone(),
            tasks: tasks.clone(),
        });
        hold_true(&server, flow, &config.pki, (&tasks, &stop));
        tasks.spawn(stop.clone().run_until_cancelled_owned(reseal(sealed)));
        serve_all(&api, sockets, &tls, &stop);
        guard.disarm();
        let (leaving, membership) = (CancellationToken::new(), TaskTracker::new());
        let told = members.subscribe();
        membership.spawn(members.run(leaving.clone()));
        info!(?addresses, revision, "API server started");
        Ok(ApiServerHandle {
            server,
            pki: config.pki,
            addresses,
            members: told,
            leaving,
            membership,
            stop,
            pump_stop,
            tasks,
            pump,
        })
    }
}

/// Takes the store's changes after `revision` into the cache, until `stop`.
fn follow(
    pump: &TaskTracker,
    cache: &Arc<WatchCache>,
    store: &Arc<dyn Store>,
    revision: u64,
    stop: &CancellationToken,
) {
    let (cache, store, stop) = (Arc::clone(cache), Arc::clone(store), stop.clone());
    pump.spawn(async move { cache::pump(&cache, &*store, revision, stop).await });
}

/// Writes what every cluster has, as far as it is missing.
async fn write_first(server: &Arc<Server>, advertise: SocketAddr) -> Result<(), StatusError> {
    addresses::complete(server).await?;
    bootstrap(server, advertise).await?;
    rbac::reconcile(server).await
}

/// Starts what holds objects true that are the server's own.
fn hold_true(
    server: &Arc<Server>,
    flow: Arc<Flow>,
    pki: &Arc<Pki>,
    (tasks, stop): (&TaskTracker, &CancellationToken),
) {
    let signer = signing::follow(Arc::clone(server), Arc::clone(pki), stop.clone());
    tasks.spawn(signer);
    tasks.spawn(rbac::follow(Arc::clone(server), stop.clone()));
    tasks.spawn(addresses::follow(Arc::clone(server), stop.clone()));
    tasks.spawn(flow::follow(flow, Arc::clone(server), stop.clone()));
    tasks.spawn(custom::run(Arc::clone(server), stop.clone()));
    tasks.spawn(follow_policies(Arc::clone(server), stop.clone()));
}

/// Lets the server ask webhooks; those in pods are reached through the nodes' streams.
fn reach_webhooks(
    server: &Server,
    nodes: &Arc<dyn NodeStreams>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let dialer = Dialer {
        cache: Arc::clone(&server.cache),
        registry: server.registry.clone(),
        nodes: Arc::clone(nodes),
        tasks: tasks.clone(),
        stop: stop.clone(),
    };
    server.reach_webhooks(&Arc::new(WebhookClients::new(dialer)));
}

/// Starts the writer of the audit log.
fn start_audit(
    config: Option<AuditConfig>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Option<AuditLog> {
    let config = config?;
    let (log, events) = AuditLog::new(Arc::clone(&config.policy));
    let counts = Arc::clone(log.counts());
    tasks.spawn(audit::write(config, events, counts, stop.clone()));
    Some(log)
}

/// Serves every socket until `stop`.
fn serve_all(
    api: &Arc<Api>,
    sockets: Vec<TcpListener>,
    tls: &Arc<rustls::ServerConfig>,
    stop: &CancellationToken,
) {
    for socket in sockets {
        let served = Arc::clone(api);
        let listener = Listener {
            socket,
            tls: Arc::clone(tls),
        };
        let answer = move |peer, request| Arc::clone(&served).handle(peer, request);
        api.tasks.spawn(serve(listener, stop.clone(), answer));
    }
}

/// Seals anew what the present key did not seal: after a rotation, or of an older release.
async fn reseal(store: Arc<SealedStore>) {
    match store.reseal().await {
        Ok(done) if done.rewritten > 0 => {
            info!(
                rewritten = done.rewritten,
                current = done.current,
                "secrets sealed anew"
            );
        }
        Ok(_) => {}
        Err(fault) => warn!(%fault, "secrets are not all sealed with the present key; the next \
                                     start tries again"),
    }
}

/// Opens all sockets; the addresses are those that are this server's own.
fn bind(config: &ApiServerConfig) -> Result<(Vec<TcpListener>, Vec<SocketAddr>), StartError> {
    let (mut sockets, mut addresses) = (Vec::new(), Vec::new());
    let shared = config
        .shared_bind
        .iter()
        .map(|address| (*address, Use::Shared));
    let own = config.bind.iter().map(|address| (*address, Use::Own));
    for (address, usage) in own.chain(shared) {
        let fault = |source| StartError::Bind { address, source };
        let socket = listen(address, usage).map_err(fault)?;
        if usage == Use::Own {
            addresses.push(socket.local_addr().map_err(fault)?);
        }
        sockets.push(socket);
    }
    if addresses.is_empty() {
        return Err(StartError::NoAddress);
    }
    Ok((sockets, addresses))
}

/// Whether other processes may listen on the same address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Own,
    Shared,
}

fn listen(address: SocketAddr, usage: Use) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    if usage == Use::Shared {
        socket.set_reuseport(true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Names and addresses that clients reach the server by.
fn server_names(
    config: &ApiServerConfig,
    service_cidr: ServiceCidr,
    advertise: SocketAddr,
    addresses: &[SocketAddr],
) -> Vec<String> {
    let domain = &config.cluster_domain;
    let mut names: Vec<String> = ["localhost", "kubernetes", "kubernetes.default"]
        .into_iter()
        .map(str::to_owned)
        .collect();
    names.push("kubernetes.default.svc".to_owned());
    names.push(format!("kubernetes.default.svc.{domain}"));
    let mut ips: Vec<IpAddr> = vec![
        IpAddr::from([127, 0, 0, 1]),
        IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
        service_cidr.address(1),
        advertise.ip(),
    ];
    ips.extend(
        addresses
            .iter()
            .chain(&config.shared_bind)
            .map(SocketAddr::ip)
            .filter(|ip| !ip.is_unspecified()),
    );
    names.extend(ips.iter().map(IpAddr::to_string));
    names.extend(config.extra_names.iter().cloned());
    names.sort();
    names.dedup();
    names
}

fn tls_config(
    config: &ApiServerConfig,
    service_cidr: ServiceCidr,
    advertise: SocketAddr,
    addresses: &[SocketAddr],
) -> Result<Arc<rustls::ServerConfig>, StartError> {
    let fault = |message: &dyn std::fmt::Display| StartError::Tls {
        message: message.to_string(),
    };
    let names = server_names(config, service_cidr, advertise, addresses);
    let identity = config.pki.server_identity("kube-apiserver", &names)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(config.pki.ca_pem().as_bytes());
    roots
        .add(ca.map_err(|e| fault(&e))?)
        .map_err(|e| fault(&e))?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(|e| fault(&e))?;
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|e| fault(&e))?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(|e| fault(&e))?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| fault(&e))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|e| fault(&e))?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
}

fn write_admin(config: &ApiServerConfig, advertise: SocketAddr) -> Result<(), PkiError> {
    let Some(path) = &config.kubeconfig else {
        return Ok(());
    };
    let identity = config.pki.client_identity("kubernetes-admin", &[MASTERS])?;
    let advertised = format!("https://{advertise}");
    let server = config.kubeconfig_server.as_ref().unwrap_or(&advertised);
    let file = Kubeconfig {
        cluster: "skep",
        server,
        ca_pem: config.pki.ca_pem(),
        identity: &identity,
    };
    write_kubeconfig(path, &file)
}

fn version() -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "major": "1", "minor": API_MINOR,
        "emulationMajor": "1", "emulationMinor": API_MINOR,
        "minCompatibilityMajor": "1", "minCompatibilityMinor": API_MINOR_BEFORE,
        "gitVersion": format!("v1.{API_MINOR}.0+skep-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc", "platform": format!("linux/{architecture}"),
    })
}
