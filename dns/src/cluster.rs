//! What the server is told about the cluster: plain data, no Kubernetes types, that can be kept.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Everything that has a name in the cluster, of one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterNames {
    /// The revision that this state has; names and services of one revision belong together.
    pub revision: u64,
    /// All namespaces that exist, also those without a service. Namespaces of `services` need not
    /// be repeated.
    pub namespaces: Vec<String>,
    /// All services.
    pub services: Vec<ServiceNames>,
}

/// A service as DNS sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceNames {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its cluster addresses of either family; empty when it has none.
    pub cluster_ips: Vec<IpAddr>,
    /// It has no cluster address by intent, and is answered with its endpoints.
    pub headless: bool,
    /// It is an alias of this name outside.
    pub external_name: Option<String>,
    /// Its ports.
    pub ports: Vec<PortName>,
    /// Its endpoints, ready or not.
    pub endpoints: Vec<EndpointNames>,
}

/// One endpoint of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointNames {
    /// Its address.
    pub ip: IpAddr,
    /// The host name it asked for (a pod's `hostname` together with its `subdomain`).
    pub hostname: Option<String>,
    /// It may be published. An absent condition counts as ready.
    pub ready: bool,
    /// Its ports. Empty: those of the service.
    pub ports: Vec<PortName>,
}

/// A port with its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortName {
    /// Empty when the port has none.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
}

/// Transport protocols a port may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Tcp => "_tcp",
            Self::Udp => "_udp",
            Self::Sctp => "_sctp",
        }
    }
}
