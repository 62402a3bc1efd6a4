//! What a server is started with.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How the server behaves. `DnsConfig::new` gives the defaults of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsConfig {
    /// Addresses to answer on, UDP and TCP each. Port 0 takes a free one, the same for both.
    pub listen: Vec<SocketAddr>,
    /// The cluster's domain, such as `cluster.local`.
    pub cluster_domain: String,
    /// Time to live of the cluster's records, in seconds. Negative answers live as long.
    pub ttl_s: u32,
    /// What names such as `10-1-0-3.default.pod.cluster.local` mean.
    pub pod_names: PodNames,
    /// Where everything else is asked. Empty: it is refused.
    pub upstreams: Vec<SocketAddr>,
    /// Domains that are asked elsewhere.
    pub stub_domains: Vec<StubDomain>,
    /// Addresses that lead back to this server, such as the DNS service's; never asked.
    pub own_addresses: Vec<IpAddr>,
    /// Longest time an answer from outside is kept, in seconds.
    pub cache_ttl_max_s: u32,
    /// Bytes of the cache of answers from outside.
    pub cache_bytes_max: usize,
    /// Questions that may wait for answers from outside; more are refused.
    pub forwards_max: usize,
    /// Open TCP connections; more are closed at once.
    pub connections_max: usize,
    /// How long a TCP connection may be silent.
    pub idle_timeout: Duration,
}

impl DnsConfig {
    /// The defaults for a cluster domain.
    #[must_use]
    pub fn new(cluster_domain: impl Into<String>) -> Self {
        Self {
            listen: Vec::new(),
            cluster_domain: cluster_domain.into(),
            ttl_s: 5,
            pod_names: PodNames::Insecure,
            upstreams: Vec::new(),
            stub_domains: Vec::new(),
            own_addresses: Vec::new(),
            cache_ttl_max_s: 30,
            cache_bytes_max: 16 << 20,
            forwards_max: 1000,
            connections_max: 512,
            idle_timeout: Duration::from_secs(10),
        }
    }
}

/// What pod names mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodNames {
    /// They do not exist.
    Disabled,
    /// The address in the name, if the namespace exists; whether there is such a pod is not asked.
    Insecure,
}

/// A domain with servers of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StubDomain {
    /// Such as `corp.example`.
    pub domain: String,
    /// Its servers.
    pub upstreams: Vec<SocketAddr>,
}
