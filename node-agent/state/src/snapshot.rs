//! The tables: everything this node should be, at one point of the stream.
//!
//! Persistent maps: a snapshot is taken by cloning a pointer, and two snapshots share what did not
//! change, so a reader finds the difference without walking everything (`OrdMap::diff`).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use control_plane_service_model::model::{Endpoint, NodeRoute, Service};
use imbl::OrdMap;
use proto_api::types::core::v1::{ConfigMap, Pod, Secret};

/// Namespace and name of a namespaced object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl ObjectName {
    /// `name` in `namespace`.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Splits `namespace/name`.
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        let (namespace, name) = key.split_once('/')?;
        (!namespace.is_empty() && !name.is_empty() && !name.contains('/'))
            .then(|| Self::new(namespace, name))
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What every node knows about its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterConfig {
    /// Zone of cluster names, for example `cluster.local`.
    pub cluster_domain: String,
    /// Addresses of the cluster DNS service.
    pub cluster_dns: Vec<IpAddr>,
    /// Ranges of service addresses, `address/length`.
    pub service_cidrs: Vec<String>,
    /// Ranges of pod addresses, `address/length`.
    pub pod_cidrs: Vec<String>,
    /// API servers, `https://host:port`.
    pub api_servers: Vec<String>,
    /// The cluster's CA, PEM.
    pub ca: String,
    /// Lowest and highest node port.
    pub node_ports: (u16, u16),
}

/// A Service with its endpoints. Either half may arrive first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceEntry {
    /// The service; `None` while only its endpoints are known.
    pub service: Option<Arc<Service>>,
    /// Its endpoints, in address order.
    pub endpoints: Arc<Vec<Endpoint>>,
}

/// Everything this node should be.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Identity of the server's sequence; empty before the first Welcome.
    pub epoch: Arc<str>,
    /// Last batch that is part of this snapshot.
    pub sequence: u64,
    /// Highest store revision that is part of this snapshot.
    pub revision: u64,
    /// The tables are complete: what they do not list is gone. While false, nothing may be removed.
    pub in_sync: bool,
    /// When the oldest change of the last batch was committed, for measuring lag.
    pub triggered: Option<SystemTime>,
    /// The cluster.
    pub cluster: Arc<ClusterConfig>,
    /// Pods bound to this node, by uid.
    pub pods: OrdMap<Arc<str>, Arc<Pod>>,
    /// Config maps that those pods use.
    pub config_maps: OrdMap<ObjectName, Arc<ConfigMap>>,
    /// Secrets that those pods use.
    pub secrets: OrdMap<ObjectName, Arc<Secret>>,
    /// All services.
    pub services: OrdMap<ObjectName, Arc<ServiceEntry>>,
    /// All nodes, this one included, by name.
    pub nodes: OrdMap<Arc<str>, Arc<NodeRoute>>,
}
