//! What the control plane is made of, in start order; stopped in the reverse.
//!
//! Store, authority, API server; then everything that uses the API in process: informers, controllers,
//! scheduler, node state and the nodes' listener.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use control_plane_apiserver::node_streams::NodeStreams;
use control_plane_apiserver::pki::Pki;
use control_plane_apiserver::{ApiServer, ApiServerConfig, ApiServerHandle};
use control_plane_client::{Clock, Health, Informers};
use control_plane_controllers::PodRange;
use control_plane_node_state::{NodeState, NodeStateConfig, Tunnels};
use control_plane_storage::Store;
use tempfile::NamedTempFile;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tracing::{error, info};

use crate::authority::Authority;
use crate::config::Config;
use crate::in_process::InProcess;
use crate::leader::Leading;
use crate::members;
use crate::open_store::{self, Opened};
use crate::sessions::Sessions;
use crate::snapshot;

/// Ports that services of type NodePort get.
const NODE_PORTS: (u16, u16) = (30_000, 32_767);
/// Length of each node's part of a pod range.
const NODE_PREFIX_V4: u8 = 24;
const NODE_PREFIX_V6: u8 = 64;
/// Silence after which a node's connection is asked for a sign of life, and how long that may take.
const NODE_KEEPALIVE: std::time::Duration = std::time::Duration::from_secs(10);
/// Calls and sessions of one node at a time; each forwarded connection is one. With hyper's 200 the
/// 201st user would wait until the session times out.
const NODE_STREAMS_MAX: u32 = 4096;

/// Runs the control plane until `stop`.
pub(crate) async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let pki_dir = config.pki_dir.clone();
    let pki_dir = pki_dir.unwrap_or_else(|| config.storage.data_dir.join("pki"));
    let pki = tokio::task::spawn_blocking(move || Pki::open(&pki_dir)).await??;
    let pki = Arc::new(pki);
    if let Some(path) = &config.join_token_out {
        write_secret(path, pki.join_token())?;
    }
    let Some(opened) = open_store::open_when_writable(&config.storage, &stop).await? else {
        return Ok(());
    };
    members::same_authority(&*opened.store(), pki.ca_pem()).await?;
    let identity = members::identity();
    let (tunnels, relays) = (Tunnels::default(), TaskTracker::new());
    let sessions = Sessions::new(tunnels.clone(), relays.clone());
    let api = start_api(&config, &identity, &pki, &opened, Arc::new(sessions)).await?;

    let inner = CancellationToken::new();
    relays.spawn(members::connect_peers(
        api.members(),
        identity.clone(),
        Arc::clone(&pki),
        tunnels.clone(),
        inner.clone(),
    ));
    if let Opened::Embedded(_) = opened {
        let dir = config.storage.data_dir.clone();
        relays.spawn(snapshot::serve(opened.store(), dir, inner.clone()));
    }
    let inside = Inside {
        config: &config,
        identity,
        api: &api,
        pki: &pki,
        store: opened.store(),
        tunnels,
    };
    let ran = inside.run(&inner, &stop).await;
    inner.cancel();
    relays.close();
    api.shutdown().await;
    relays.wait().await;
    if let Opened::Embedded(store) = opened {
        // Everything that held the store has ended.
        match Arc::into_inner(store) {
            Some(store) => store.close().await,
            None => error!("the store is still in use; it is closed by the end of the process"),
        }
    }
    info!("stopped");
    ran
}

async fn start_api(
    config: &Config,
    identity: &str,
    pki: &Arc<Pki>,
    opened: &Opened,
    sessions: Arc<dyn NodeStreams>,
) -> anyhow::Result<ApiServerHandle> {
    let service_cidr = config.service_cidrs.join(",");
    let port = config.binds.first().map_or(0, SocketAddr::port);
    let api_config = ApiServerConfig {
        pki: Arc::clone(pki),
        identity: identity.to_owned(),
        bind: config.binds.clone(),
        shared_bind: config.shared_binds.clone(),
        nodes: Some(SocketAddr::new(config.advertise(), config.node_bind.port())),
        advertise: SocketAddr::new(config.advertise(), port),
        extra_names: config.tls_sans.clone(),
        service_cidr,
        cluster_domain: config.cluster_domain.clone(),
        kubeconfig: config.kubeconfig_out.clone(),
        kubeconfig_server: config.kubeconfig_server.clone(),
        audit: config.audit()?,
    };
    ApiServer::start(api_config, opened.store(), sessions)
        .await
        .context("start the API server")
}

/// What uses the API in process, and what it needs.
struct Inside<'a> {
    config: &'a Config,
    identity: String,
    api: &'a ApiServerHandle,
    pki: &'a Arc<Pki>,
    store: Arc<dyn Store>,
    tunnels: Tunnels,
}

impl Inside<'_> {
    /// Runs until `stop` or until the nodes' listener fails.
    async fn run(self, inner: &CancellationToken, stop: &CancellationToken) -> anyhow::Result<()> {
        let Inside {
            config,
            identity,
            api,
            pki,
            store,
            tunnels,
        } = self;
        let handle = InProcess::handle(api.server(), pki.tokens(), "node-state");
        let informers = Informers::new(handle, inner.child_token());
        let tasks = TaskTracker::new();
        let port = api.addresses().first().map_or(0, SocketAddr::port);
        let leading = Leading {
            identity,
            server: Arc::clone(api.server()),
            tokens: Arc::clone(pki.tokens()),
            store,
            informers: informers.clone(),
            controllers: controllers_config(config, pki, port)?,
        };
        tasks.spawn(leading.run(inner.clone()));

        let node_config = NodeStateConfig {
            cluster_domain: config.cluster_domain.clone(),
            cluster_dns: vec![config.cluster_dns],
            service_cidrs: config.service_cidrs.clone(),
            pod_cidrs: config.pod_cidrs.clone(),
            api_servers: vec![format!(
                "https://{}",
                SocketAddr::new(config.advertise(), port)
            )],
            node_ports: NODE_PORTS,
        };
        let authority = Arc::new(Authority(Arc::clone(pki)));
        let state = NodeState::start(
            informers.clone(),
            authority,
            tunnels,
            node_config,
            inner.child_token(),
        )
        .await;
        let served = serve_nodes(config, pki, &state, stop).await;
        inner.cancel();
        state.stopped().await;
        tasks.close();
        tasks.wait().await;
        informers.stopped().await;
        served
    }
}

fn controllers_config(
    config: &Config,
    pki: &Pki,
    api_port: u16,
) -> anyhow::Result<control_plane_controllers::Config> {
    let ranges = |texts: &[String]| {
        texts
            .iter()
            .map(|text| range(text))
            .collect::<Result<Vec<_>, _>>()
    };
    let service_ranges = ranges(&config.service_cidrs)?;
    let cluster_cidrs = ranges(&config.pod_cidrs)?
        .into_iter()
        .map(|(address, prefix)| {
            let node_prefix = if address.is_ipv4() {
                NODE_PREFIX_V4
            } else {
                NODE_PREFIX_V6
            };
            PodRange {
                address,
                prefix,
                node_prefix: node_prefix.max(prefix),
            }
        })
        .collect();
    Ok(control_plane_controllers::Config {
        cluster_ca_pem: pki.ca_pem().to_owned(),
        api_port,
        kubernetes_service_ips: service_ranges
            .iter()
            .map(|(first, _)| after(*first))
            .collect(),
        dns_service_ips: vec![config.cluster_dns],
        cluster_cidrs,
        node_grace: control_plane_controllers::Config::NODE_GRACE,
        terminated_pods_max: control_plane_controllers::Config::TERMINATED_PODS_MAX,
        clock: Clock::system(),
        health: Health::default(),
    })
}

/// Reads `address/length`.
fn range(text: &str) -> anyhow::Result<(IpAddr, u8)> {
    let parsed = text.split_once('/').and_then(|(address, length)| {
        Some((address.parse::<IpAddr>().ok()?, length.parse::<u8>().ok()?))
    });
    match parsed {
        Some((address, length)) if length <= if address.is_ipv4() { 32 } else { 128 } => {
            Ok((address, length))
        }
        Some(_) | None => bail!("{text:?} is no address range such as 10.244.0.0/16"),
    }
}

fn after(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4(v4.to_bits().wrapping_add(1).into()),
        IpAddr::V6(v6) => IpAddr::V6(v6.to_bits().wrapping_add(1).into()),
    }
}

/// Serves nodes until `stop`.
async fn serve_nodes(
    config: &Config,
    pki: &Pki,
    state: &NodeState,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let mut names = config.tls_sans.clone();
    names.push(config.advertise().to_string());
    names.extend(["127.0.0.1".to_owned(), "localhost".to_owned()]);
    let identity = pki.server_identity("skep-control-plane", &names)?;
    // A certificate is asked for, not demanded: `Join` is called without one.
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(
            identity.certificate_pem,
            identity.key_pem,
        ))
        .client_ca_root(Certificate::from_pem(pki.ca_pem()))
        .client_auth_optional(true);
    let listener = TcpListener::bind(config.node_bind)
        .await
        .with_context(|| format!("listen for nodes on {}", config.node_bind))?;
    info!(address = %config.node_bind, "serving nodes");
    let served = Server::builder()
        .tls_config(tls)
        .context("configure TLS for nodes")?
        .http2_keepalive_interval(Some(NODE_KEEPALIVE))
        .http2_keepalive_timeout(Some(NODE_KEEPALIVE))
        .max_concurrent_streams(Some(NODE_STREAMS_MAX))
        .tcp_nodelay(true)
        .add_service(state.clone().into_service())
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async {
            stop.cancelled().await;
            state.stop_streams();
        })
        .await;
    if let Err(error) = &served {
        error!(%error, "the nodes' listener failed");
    }
    served.context("serve nodes")
}

/// Writes `text` where only the owner can read it, in one step.
fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory)?;
        let mut file = NamedTempFile::new_in(directory)?;
        writeln!(file, "{text}")?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_the_first_service_address_are_read() {
        assert_eq!(
            range("10.96.0.0/16").unwrap(),
            ("10.96.0.0".parse().unwrap(), 16)
        );
        assert_eq!(after("10.96.0.0".parse().unwrap()).to_string(), "10.96.0.1");
        assert_eq!(after("fd00::".parse().unwrap()).to_string(), "fd00::1");
        assert!(range("10.96.0.0").is_err() && range("10.96.0.0/33").is_err());
    }
}
