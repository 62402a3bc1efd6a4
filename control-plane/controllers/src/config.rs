//! What the controllers are told at start.

use std::net::IpAddr;
use std::time::Duration;

use control_plane_client::{Clock, Health};

/// Configuration of all controllers. Addresses come from the control plane's flags.
#[derive(Debug, Clone)]
pub struct Config {
    /// PEM of the cluster CA, published as `kube-root-ca.crt` in every namespace.
    pub cluster_ca_pem: String,
    /// Port of the API server behind the `kubernetes` Service.
    pub api_port: u16,
    /// ClusterIPs of the `kubernetes` Service: the first address of each service range.
    pub kubernetes_service_ips: Vec<IpAddr>,
    /// ClusterIPs of `kube-system/kube-dns`: the tenth address of each service range.
    pub dns_service_ips: Vec<IpAddr>,
    /// Pod ranges, at most one a family; each node gets a part of each.
    pub cluster_cidrs: Vec<PodRange>,
    /// How long a node may be silent before it is unknown.
    pub node_grace: Duration,
    /// Ended pods that are kept before the oldest are removed.
    pub terminated_pods_max: usize,
    /// Wall time.
    pub clock: Clock,
    /// Where the controllers report how they are.
    pub health: Health,
}

/// A range of pod addresses and how it is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodRange {
    /// First address.
    pub address: IpAddr,
    /// Prefix length of the range.
    pub prefix: u8,
    /// Prefix length of a node's part: 24 for IPv4, 64 for IPv6 as a rule.
    pub node_prefix: u8,
}

impl Config {
    /// Node grace when the flag is absent.
    pub const NODE_GRACE: Duration = Duration::from_secs(50);
    /// Kept ended pods when the flag is absent.
    pub const TERMINATED_PODS_MAX: usize = 12_500;
}
