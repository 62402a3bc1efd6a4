//! Services, endpoints and nodes as a node's dataplane and DNS need them.
//!
//! Plain values without Kubernetes types. Numbers of map entries are the node's own affair: here a
//! service is its name, a backend its address.

use std::net::IpAddr;

/// Transport protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// Transmission Control Protocol, IP protocol 6.
    Tcp,
    /// User Datagram Protocol, IP protocol 17.
    Udp,
    /// Stream Control Transmission Protocol, IP protocol 132.
    Sctp,
}

impl Protocol {
    /// The name that the Kubernetes API uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    /// Reads the API's name; an absent or empty one is TCP, as the API defaults it.
    #[must_use]
    pub fn from_api(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("" | "TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }
}

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Service {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Virtual addresses, at most one a family; empty for headless and ExternalName services.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`; programmed only where the node's configuration allows them.
    pub external_ips: Vec<IpAddr>,
    /// Addresses of `status.loadBalancer.ingress`.
    pub load_balancer_ips: Vec<IpAddr>,
    /// Ports in the order of the spec.
    pub ports: Vec<ServicePort>,
    /// `clusterIP: None`: names only, nothing to program.
    pub headless: bool,
    /// Target of an ExternalName service.
    pub external_name: Option<String>,
    /// Session affinity by client address: its timeout in seconds, 1..=86400.
    pub affinity_seconds: Option<u32>,
    /// `internalTrafficPolicy: Local`.
    pub internal_traffic_local: bool,
    /// `externalTrafficPolicy: Local`.
    pub external_traffic_local: bool,
    /// `publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// Each node answers this service by itself: backends are its own listeners (cluster DNS).
    pub node_local: bool,
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServicePort {
    /// Name; empty when the service has one unnamed port.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port at the virtual address, 1..=65535.
    pub port: u16,
    /// Port at each node's addresses.
    pub node_port: Option<u16>,
}

/// One endpoint of a Service: an address with its ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Address of the backend.
    pub address: IpAddr,
    /// Host name for DNS, when the pod has one.
    pub hostname: Option<String>,
    /// Node that runs it, when known.
    pub node: Option<String>,
    /// Zone that it is in, when known.
    pub zone: Option<String>,
    /// Name of the pod behind it, in the service's namespace.
    pub pod: Option<String>,
    /// Takes new connections.
    pub ready: bool,
    /// Would take connections were it not terminating.
    pub serving: bool,
    /// Is being deleted.
    pub terminating: bool,
    /// The ports, by the name of the service port that each serves.
    pub ports: Vec<EndpointPort>,
}

/// One port of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointPort {
    /// Name of the service port that it serves.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port at the endpoint's address, 1..=65535.
    pub port: u16,
}

/// A node as the others reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRoute {
    /// Name.
    pub name: String,
    /// Addresses of the machine; the first of each family is the one that tunnels and routes use.
    pub addresses: Vec<IpAddr>,
    /// Ranges of its pods, `address/length`.
    pub pod_cidrs: Vec<String>,
    /// The Ready condition is True.
    pub ready: bool,
}
