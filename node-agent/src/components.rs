//! What the agent is made of, in start order; stopped in the reverse.
//!
//! Kernel first (datapath adopts what is pinned), then network and CNI, proxy and DNS, then the
//! kubelet, and last the stream that feeds them: everything that must see the first snapshot is
//! registered before it arrives. Stopping leaves pods, programs and maps in force.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use dns::{DnsConfig, DnsHandle, DnsServer};
use node_agent_datapath::config::{CgroupRoot, MapProfile as Sizes};
use node_agent_datapath::{Datapath, DatapathConfig, ProgramLog};
use node_agent_kubelet::clock::{SeededChance, SystemClock};
use node_agent_kubelet::{Kubelet, KubeletConfig, KubeletHandle};
use node_agent_network::cni::install;
use node_agent_network::cni::server::CniServer;
use node_agent_network::{Mode, NodeNetwork, NodeNetworkConfig};
use node_agent_proxy::task::ProxyTask;
use node_agent_proxy::{ExternalIps, LocalListener, Proxy, ProxyConfig};
use node_agent_state::link::{Link, LinkConfig};
use node_agent_state::model::Protocol;
use node_agent_state::{ObjectName, StateHub, Upstream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::checkpoint::CheckpointFile;
use crate::config::{Config, DataplaneMode, MapProfile};
use crate::sessions::Sessions;
use crate::{inspect, names, pod_network};

/// Port of DNS.
const DNS_PORT: u16 = 53;
/// How often the programs are told that an agent is alive.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How often programs that were built to log are asked what they have to say.
const PROGRAM_LOGS: Duration = Duration::from_millis(50);
/// How often ended flows are collected.
const COLLECT: Duration = Duration::from_secs(5);

/// Runs the agent until `stop`.
pub(crate) async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let node_name = node_name(&config)?;
    let run_dir = config
        .socket
        .parent()
        .unwrap_or(Path::new("/run/skep"))
        .to_owned();
    let (writer, hub) = StateHub::new();
    let tasks = TaskTracker::new();

    let mut datapath = start_datapath(&config, &run_dir).await?;
    let logs = datapath.take_logs();
    if !logs.is_empty() {
        tasks.spawn(follow_program_logs(logs, stop.child_token()));
    }
    let network = start_network(&config, &datapath).await?;
    let cni = start_cni(&config, &run_dir, &network)?;
    let proxy = start_proxy(
        &config, &node_name, &datapath, &hub, &run_dir, &tasks, &stop,
    )?;
    let dns = start_dns(&config, &hub, &tasks, &stop).await?;
    let routes = hub.consumer("network");
    let following = pod_network::run(
        node_name.clone(),
        network,
        hub.clone(),
        routes,
        stop.child_token(),
    );
    tasks.spawn(following);
    tasks.spawn(cni.run(stop.child_token()));
    tasks.spawn(keep_datapath(datapath, stop.child_token()));

    let Some(link) = join(&config, &node_name, &stop).await? else {
        tasks.close();
        tasks.wait().await;
        return Ok(());
    };
    let sources = inspect::Sources {
        node: node_name.clone(),
        link: link.clone(),
        hub: hub.clone(),
        proxy,
        bpffs: config.bpffs.clone(),
    };
    tasks.spawn(serve_operator(
        config.socket.clone(),
        sources,
        stop.child_token(),
    ));
    let kubelet = start_kubelet(&config, &node_name, &run_dir, &hub, &link).await?;
    let sessions = Arc::new(Sessions(kubelet.streams()));
    // Feeds everything above until the agent is told to stop.
    link.run(writer, hub, sessions, stop.clone()).await;

    kubelet.shutdown().await;
    dns.shutdown().await;
    tasks.close();
    tasks.wait().await;
    info!("stopped");
    Ok(())
}

fn node_name(config: &Config) -> anyhow::Result<String> {
    if let Some(name) = &config.node_name {
        return Ok(name.clone());
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .context("read the host's name; name the node with --node-name")?;
    Ok(name.trim().to_lowercase())
}

async fn start_datapath(config: &Config, run_dir: &Path) -> anyhow::Result<Datapath> {
    let settings = DatapathConfig {
        bpffs: config.bpffs.clone(),
        run_directory: run_dir.to_owned(),
        cgroup: config
            .cgroup_root
            .clone()
            .map_or(CgroupRoot::Detect, CgroupRoot::At),
        profile: match config.map_profile {
            MapProfile::Normal => Sizes::Normal,
            MapProfile::Small => Sizes::Small,
        },
        ..DatapathConfig::default()
    };
    let datapath = tokio::task::spawn_blocking(move || Datapath::start(&settings)).await?;
    let datapath = datapath.context("start the eBPF dataplane")?;
    info!(report = ?datapath.report(), "eBPF dataplane in force");
    Ok(datapath)
}

async fn start_network(config: &Config, datapath: &Datapath) -> anyhow::Result<Arc<NodeNetwork>> {
    let settings = NodeNetworkConfig {
        underlay_device: config.underlay_dev.clone(),
        node_addresses: config.node_ips.clone(),
        mode: match config.dataplane_mode {
            DataplaneMode::Direct => Mode::Direct,
            DataplaneMode::Vxlan => Mode::Vxlan,
        },
        dns_address: config.dns_address,
        address_log: config.data_dir.join("network/addresses.log"),
    };
    let network = NodeNetwork::start(&settings, datapath.pods()).await;
    Ok(Arc::new(network.context("set up the node's network")?))
}

fn start_cni(config: &Config, run_dir: &Path, network: &NodeNetwork) -> anyhow::Result<CniServer> {
    let socket = run_dir.join("cni.sock");
    let server = CniServer::bind(&socket, Arc::clone(network.pods()))
        .with_context(|| format!("listen for the CNI plugin at {}", socket.display()))?;
    let program = std::env::current_exe().context("find the agent's own program")?;
    install::install(&program, &config.cni_bin_dir, &config.cni_conf_dir, &socket)?;
    Ok(server)
}

fn start_proxy(
    config: &Config,
    node_name: &str,
    datapath: &Datapath,
    hub: &StateHub,
    run_dir: &Path,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<Proxy> {
    let service = ObjectName::new("kube-system", "kube-dns");
    let listener = |protocol| LocalListener {
        service: service.clone(),
        port: DNS_PORT,
        protocol,
        address: SocketAddr::new(config.dns_address, DNS_PORT),
    };
    let settings = ProxyConfig {
        node_name: node_name.to_owned(),
        external_ips: ExternalIps::Ignore,
        listeners: vec![listener(Protocol::Udp), listener(Protocol::Tcp)],
    };
    let maps = datapath.service_maps().context("open the service maps")?;
    let task = ProxyTask::new(hub, maps, &settings, Some(run_dir.join("names.json")))
        .context("take over the service maps")?;
    let proxy = task.proxy();
    tasks.spawn(task.run(stop.child_token()));
    Ok(proxy)
}

async fn start_dns(
    config: &Config,
    hub: &StateHub,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<DnsHandle> {
    let file = CheckpointFile::new(config.data_dir.join("dns/names.json"));
    let remembered = file.load();
    // The service's address leads here, too: the socket hook turns it into the listener's.
    let cluster_dns = remembered.iter().flat_map(|last| &last.cluster_dns);
    let own: Vec<IpAddr> = [config.dns_address]
        .iter()
        .chain(&config.node_ips)
        .chain(cluster_dns)
        .copied()
        .collect();
    let mut settings = DnsConfig::new(config.cluster_domain.clone());
    settings.listen = vec![SocketAddr::new(config.dns_address, DNS_PORT)];
    settings.upstreams = if config.upstream_dns.is_empty() {
        dns::node_upstreams(Path::new("/etc/resolv.conf"), &own)
            .context("find upstream name servers; name them with --upstream-dns")?
    } else {
        config.upstream_dns.clone()
    };
    settings.own_addresses = own;
    let server = DnsServer::bind(settings)
        .await
        .context("start cluster DNS")?;
    if let Some(last) = remembered {
        info!(
            revision = last.names.revision,
            services = last.names.services.len(),
            "names as last known are served until the control plane says more"
        );
        let publisher = server.publisher();
        tokio::task::spawn_blocking(move || publisher.publish(&last.names)).await?;
    }
    tasks.spawn(names::run(
        hub.clone(),
        server.publisher(),
        hub.consumer("dns"),
        file,
        stop.child_token(),
    ));
    Ok(server)
}

/// Joins the cluster; `None` when the agent is told to stop meanwhile.
async fn join(
    config: &Config,
    node_name: &str,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Link>> {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let settings = LinkConfig {
        node_name: node_name.to_owned(),
        control_planes: config.control_planes.clone(),
        ca_file: config.ca_file.clone(),
        join_token_file: config.join_token_file.clone(),
        pki_dir: config.data_dir.join("pki"),
        boot_id: boot_id.trim().to_owned(),
    };
    tokio::select! {
        () = stop.cancelled() => Ok(None),
        link = Link::connect(settings) => Ok(Some(link.context("join the cluster")?)),
    }
}

async fn start_kubelet(
    config: &Config,
    node_name: &str,
    run_dir: &Path,
    hub: &StateHub,
    link: &Link,
) -> anyhow::Result<KubeletHandle> {
    let settings = KubeletConfig {
        containerd_socket: config.containerd_socket.clone(),
        root_dir: config.data_dir.join("kubelet"),
        log_dir: config.data_dir.join("logs"),
        run_dir: run_dir.join("kubelet"),
        pods_max: config.max_pods,
        ..KubeletConfig::new(node_name, config.node_ips.clone())
    };
    let upstream: Arc<dyn Upstream> = Arc::new(link.clone());
    let chance = Arc::new(SeededChance::from_os());
    let started = Kubelet::start(
        settings,
        hub.clone(),
        upstream,
        Arc::new(SystemClock),
        chance,
    )
    .await;
    started.context("start the kubelet part")
}

async fn serve_operator(socket: PathBuf, sources: inspect::Sources, stop: CancellationToken) {
    if let Err(error) = inspect::serve(&socket, sources, stop).await {
        error!(socket = %socket.display(), %error, "the operator's socket is not served");
    }
}

/// Hands on what programs say of their verdicts.
async fn follow_program_logs(mut logs: Vec<ProgramLog>, stop: CancellationToken) {
    let mut look = tokio::time::interval(PROGRAM_LOGS);
    while stop.run_until_cancelled(look.tick()).await.is_some() {
        logs.iter_mut().for_each(ProgramLog::forward);
    }
}

/// Keeps the datapath alive: heartbeat and collection of ended flows.
async fn keep_datapath(datapath: Datapath, stop: CancellationToken) {
    let datapath = Arc::new(datapath);
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    let mut collect = tokio::time::interval(COLLECT);
    collect.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = heartbeat.tick() => datapath.heartbeat(),
            _ = collect.tick() => {
                let collecting = Arc::clone(&datapath);
                match tokio::task::spawn_blocking(move || collecting.collect_flows()).await {
                    Ok(Ok(_report)) => {}
                    Ok(Err(error)) => warn!(%error, "ended flows could not be collected"),
                    Err(error) => error!(%error, "collecting flows panicked"),
                }
            }
        }
    }
}
