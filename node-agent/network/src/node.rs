//! The node's own side: sysctls, the DNS address, the underlay, masquerade, routes to other nodes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use node_agent_datapath::pods::{PodDatapath, RouteDatapath};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Mutex;
use tracing::{info, warn};

use crate::device::{Netlink, tunnel_mac};
use crate::ipam::Ipam;
use crate::namespace;
use crate::pod::{PodDefaults, PodNetwork};
use crate::range::Range;
use crate::routes::{Path, RemoteNode, RouteError, Routes, chain};

/// Name of the tunnel device.
const TUNNEL_DEVICE: &str = "skep-vxlan";
/// VXLAN network identifier.
const TUNNEL_VNI: u32 = 1;
/// UDP port of the tunnel (Linux' own default, as other pod networks use it).
const TUNNEL_PORT: u16 = 8472;
/// What VXLAN over IPv4 adds to a packet: outer IP, UDP, VXLAN and inner Ethernet headers.
const TUNNEL_OVERHEAD: u32 = 50;
/// Our nftables table.
const NFT_TABLE: &str = "skep";

/// How pods of other nodes are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Routes by the underlay: the nodes are neighbours.
    Direct,
    /// A VXLAN tunnel: anything IPv4 between the nodes.
    Vxlan,
}

/// What the node's network is made of.
#[derive(Debug, Clone)]
pub struct NodeNetworkConfig {
    /// Device that carries traffic between nodes.
    pub underlay_device: String,
    /// Addresses of this node, the first of each family counts.
    pub node_addresses: Vec<IpAddr>,
    /// How pods of other nodes are reached.
    pub mode: Mode,
    /// Address of the node's own DNS listener, put on `lo`.
    pub dns_address: IpAddr,
    /// File of the address log.
    pub address_log: PathBuf,
}

/// Why the node's network is not ready.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The underlay device is absent.
    #[error("there is no device {device}; name the underlay with --underlay-dev")]
    NoDevice {
        /// As configured.
        device: String,
    },
    /// A setting, address or device could not be made.
    #[error("cannot {what}")]
    Kernel {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The tunnel needs an IPv4 address.
    #[error("VXLAN needs an IPv4 node address and this node has none; name one with --node-ip")]
    NoAddress,
    /// The address log cannot be used.
    #[error("cannot open the address log {path}")]
    AddressLog {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Pods that were there before could not be compared.
    #[error(transparent)]
    Pods(#[from] crate::pod::PodNetworkError),
}

/// The node's network.
#[derive(Debug)]
pub struct NodeNetwork {
    pods: Arc<PodNetwork>,
    routes: Mutex<Routes>,
    masquerade: Mutex<Option<(Vec<Range>, Vec<Range>)>>,
}

fn kernel(what: &'static str) -> impl FnOnce(io::Error) -> SetupError {
    move |source| SetupError::Kernel { what, source }
}

impl NodeNetwork {
    /// Prepares the node and frees what dead pods left. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`SetupError`].
    pub async fn start<D: PodDatapath + RouteDatapath + 'static>(
        config: &NodeNetworkConfig,
        datapath: Arc<D>,
    ) -> Result<Self, SetupError> {
        sysctls(&config.node_addresses).map_err(kernel("set the node's network sysctls"))?;
        let netlink = Netlink::open().map_err(kernel("open a netlink socket"))?;
        let no_device = || SetupError::NoDevice {
            device: config.underlay_device.clone(),
        };
        let underlay = netlink.index(&config.underlay_device).await;
        let underlay = underlay
            .map_err(kernel("look up the underlay device"))?
            .ok_or_else(no_device)?;
        add_dns_address(&netlink, config.dns_address).await?;
        let mtu = netlink
            .mtu(underlay)
            .await
            .map_err(kernel("read the underlay's MTU"))?;
        let (path, mtu) = match config.mode {
            Mode::Direct => (Path::Direct { underlay }, mtu),
            Mode::Vxlan => {
                let mtu = mtu.saturating_sub(TUNNEL_OVERHEAD);
                (tunnel(&netlink, config, underlay, mtu).await?, mtu)
            }
        };
        let ipam = Ipam::open(&config.address_log).map_err(|source| SetupError::AddressLog {
            path: config.address_log.clone(),
            source,
        })?;
        let defaults = PodDefaults {
            node_v4: config.node_addresses.iter().find_map(|a| v4(*a)),
            node_v6: config.node_addresses.iter().find_map(|a| v6(*a)),
            mtu,
        };
        let pod_datapath: Arc<dyn PodDatapath> = Arc::<D>::clone(&datapath);
        let pods = PodNetwork::new(netlink.clone(), ipam, pod_datapath, defaults);
        pods.reconcile().await?;
        info!(underlay = %config.underlay_device, mtu, mode = ?config.mode, "node network ready");
        Ok(Self {
            pods: Arc::new(pods),
            routes: Mutex::new(Routes::new(netlink, datapath, path)),
            masquerade: Mutex::new(None),
        })
    }

    /// The pods' networks.
    #[must_use]
    pub fn pods(&self) -> &Arc<PodNetwork> {
        &self.pods
    }

    /// Makes the routes to the pods of `nodes` (all nodes but this one). Answers what is not in
    /// force; call again to retry.
    pub async fn set_nodes(&self, nodes: &[RemoteNode]) -> Vec<RouteError> {
        self.routes.lock().await.apply(nodes).await
    }

    /// Sets this node's pod ranges, and the cluster's, outside of which pods leave under the node's
    /// own address.
    pub async fn set_ranges(&self, own: Vec<Range>, cluster: Vec<Range>) {
        self.pods.set_ranges(own.clone());
        let mut current = self.masquerade.lock().await;
        let wanted = (own, cluster);
        if current.as_ref() == Some(&wanted) {
            return;
        }
        match nft(&masquerade_rules(&wanted.0, &wanted.1)).await {
            Ok(()) => *current = Some(wanted),
            Err(error) => warn!(
                error = %chain(&error),
                "pods cannot reach addresses outside the cluster: masquerade is not in force"
            ),
        }
    }
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}

fn sysctls(addresses: &[IpAddr]) -> io::Result<()> {
    namespace::sysctl("net/ipv4/ip_forward", "1")?;
    // Replies may leave by another device than requests came in by: the programs redirect.
    namespace::sysctl("net/ipv4/conf/all/rp_filter", "0")?;
    if addresses.iter().any(IpAddr::is_ipv6) {
        namespace::sysctl("net/ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

async fn add_dns_address(netlink: &Netlink, address: IpAddr) -> Result<(), SetupError> {
    let loopback = netlink
        .index("lo")
        .await
        .map_err(kernel("look up the loopback device"))?;
    if let Some(loopback) = loopback {
        netlink
            .set_up(loopback)
            .await
            .map_err(kernel("bring lo up"))?;
        let added = netlink.add_address(loopback, address).await;
        added.map_err(kernel("put the DNS address on lo"))?;
    }
    Ok(())
}

async fn tunnel(
    netlink: &Netlink,
    config: &NodeNetworkConfig,
    underlay: u32,
    mtu: u32,
) -> Result<Path, SetupError> {
    let address = config
        .node_addresses
        .iter()
        .find_map(|a| v4(*a))
        .ok_or(SetupError::NoAddress)?;
    let tunnel = crate::device::Tunnel {
        name: TUNNEL_DEVICE,
        vni: TUNNEL_VNI,
        port: TUNNEL_PORT,
        underlay,
        local: address,
        mac: tunnel_mac(IpAddr::V4(address)),
        mtu,
    };
    let index = netlink
        .ensure_vxlan(&tunnel)
        .await
        .map_err(kernel("create the tunnel device"))?;
    Ok(Path::Vxlan { tunnel: index })
}

/// The rules that let pods reach the world under the node's address.
fn masquerade_rules(own: &[Range], cluster: &[Range]) -> String {
    use std::fmt::Write as _;
    let mut rules = format!("table inet {NFT_TABLE}\ndelete table inet {NFT_TABLE}\n");
    let set = |ranges: &[Range], v4: bool| {
        let family = ranges
            .iter()
            .filter(|range| range.address().is_ipv4() == v4);
        family
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    rules.push_str(&format!(
        "table inet {NFT_TABLE} {{\n  chain postrouting {{\n    \
         type nat hook postrouting priority srcnat; policy accept;\n"
    ));
    for (keyword, v4) in [("ip", true), ("ip6", false)] {
        let (from, inside) = (set(own, v4), set(cluster, v4));
        if from.is_empty() {
            continue;
        }
        let outside = if inside.is_empty() {
            String::new()
        } else {
            format!("{keyword} daddr != {{ {inside} }} ")
        };
        // Writing to a String cannot fail.
        let _infallible = writeln!(
            rules,
            "    {keyword} saddr {{ {from} }} {outside}oifname != \"sk*\" masquerade"
        );
    }
    rules.push_str("  }\n}\n");
    rules
}

async fn nft(rules: &str) -> io::Result<()> {
    let mut child = tokio::process::Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("run nft: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(rules.as_bytes()).await?;
    }
    let output = child.wait_with_output().await?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "nft refused the rules: {}",
        said.trim()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_leave_the_cluster_under_the_nodes_address_and_stay_themselves_inside() {
        let own = vec!["10.244.1.0/24".parse().unwrap()];
        let cluster = vec![
            "10.244.0.0/16".parse().unwrap(),
            "fd00:10:244::/56".parse().unwrap(),
        ];
        assert_eq!(
            masquerade_rules(&own, &cluster),
            "table inet skep\ndelete table inet skep\ntable inet skep {\n  chain postrouting {\n    \
             type nat hook postrouting priority srcnat; policy accept;\n    \
             ip saddr { 10.244.1.0/24 } ip daddr != { 10.244.0.0/16 } oifname != \"sk*\" masquerade\n  \
             }\n}\n"
        );
    }
}
