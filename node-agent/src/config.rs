//! The agent's flags, parsed into values that cannot be wrong.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Address of the node's own DNS listener: link-local, the same on every node, on `lo` only.
const DNS_ADDRESS_DEFAULT: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10));

/// How pods of other nodes are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DataplaneMode {
    /// Routes by the underlay: the nodes are neighbours.
    Direct,
    /// A VXLAN tunnel: anything IPv4 between the nodes.
    Vxlan,
}

/// Sizes of the eBPF maps at their first creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MapProfile {
    /// For servers: about 115 MiB.
    Normal,
    /// For laptops and the edge: about 16 MiB.
    Small,
}

/// The node agent: runs this node's pods, programs its dataplane and answers cluster DNS.
#[derive(Debug, Parser)]
#[command(name = "skep-node-agent", version)]
pub(crate) struct Config {
    /// Name of this node; the host's name when absent.
    #[arg(long, env = "SKEP_NODE_NAME")]
    pub(crate) node_name: Option<String>,
    /// Address of this node, the primary one first; may be given twice for dual stack.
    #[arg(long = "node-ip", required = true)]
    pub(crate) node_ips: Vec<IpAddr>,
    /// The control planes' node listeners, `host:port`, comma-separated: the agent keeps to one and
    /// goes to the next when that one fails.
    #[arg(long = "control-plane", value_delimiter = ',', required = true)]
    pub(crate) control_planes: Vec<String>,
    /// File with the token of the first join.
    #[arg(long)]
    pub(crate) join_token_file: PathBuf,
    /// The cluster's CA, PEM.
    #[arg(long)]
    pub(crate) ca_file: PathBuf,
    /// Directory that survives restarts: keys, volumes, logs, allocations.
    #[arg(long, default_value = "/var/lib/skep")]
    pub(crate) data_dir: PathBuf,
    /// containerd's socket.
    #[arg(long, default_value = "/run/containerd/containerd.sock")]
    pub(crate) containerd_socket: PathBuf,
    /// Where the runtime looks for CNI plugins.
    #[arg(long, default_value = "/opt/cni/bin")]
    pub(crate) cni_bin_dir: PathBuf,
    /// Where the runtime looks for CNI configurations.
    #[arg(long, default_value = "/etc/cni/net.d")]
    pub(crate) cni_conf_dir: PathBuf,
    /// The BPF file system.
    #[arg(long, default_value = "/sys/fs/bpf")]
    pub(crate) bpffs: PathBuf,
    /// Where the cgroup2 hierarchy is mounted; found when absent.
    #[arg(long)]
    pub(crate) cgroup_root: Option<PathBuf>,
    /// Socket for the operator's command.
    #[arg(long, default_value = "/run/skep/agent.sock")]
    pub(crate) socket: PathBuf,
    /// How pods of other nodes are reached.
    #[arg(long, value_enum, default_value_t = DataplaneMode::Direct)]
    pub(crate) dataplane_mode: DataplaneMode,
    /// Device that carries traffic between nodes.
    #[arg(long, default_value = "eth0")]
    pub(crate) underlay_dev: String,
    /// Sizes of the eBPF maps at their first creation.
    #[arg(long, value_enum, default_value_t = MapProfile::Normal)]
    pub(crate) map_profile: MapProfile,
    /// Where names outside the cluster are asked for, `address[:port]`; may be repeated. The node's
    /// resolv.conf when absent.
    #[arg(long = "upstream-dns", value_parser = parse_upstream)]
    pub(crate) upstream_dns: Vec<SocketAddr>,
    /// Zone of cluster names, as the control plane has it.
    #[arg(long, default_value = "cluster.local")]
    pub(crate) cluster_domain: String,
    /// Address of the node's own DNS listener.
    #[arg(long, default_value_t = DNS_ADDRESS_DEFAULT)]
    pub(crate) dns_address: IpAddr,
    /// Pods that this node takes at most.
    #[arg(long, default_value_t = 110)]
    pub(crate) max_pods: u32,
    /// Log as JSON lines.
    #[arg(long)]
    pub(crate) log_json: bool,
}

fn parse_upstream(text: &str) -> Result<SocketAddr, String> {
    if let Ok(full) = text.parse::<SocketAddr>() {
        return Ok(full);
    }
    let address: IpAddr = text
        .parse()
        .map_err(|_bad| format!("{text:?} is no address, nor address:port"))?;
    Ok(SocketAddr::new(address, 53))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_an_address_with_or_without_port() {
        assert_eq!(
            parse_upstream("192.0.2.1"),
            Ok("192.0.2.1:53".parse().unwrap())
        );
        assert_eq!(
            parse_upstream("192.0.2.1:5353"),
            Ok("192.0.2.1:5353".parse().unwrap())
        );
        assert_eq!(
            parse_upstream("fd00::1"),
            Ok("[fd00::1]:53".parse().unwrap())
        );
        parse_upstream("dns.example").unwrap_err();
    }

    #[test]
    fn the_flags_are_consistent() {
        use clap::CommandFactory as _;
        Config::command().debug_assert();
    }
}
