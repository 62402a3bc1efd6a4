//! From a service and its endpoints to what the maps should say about each of its ports.
//!
//! Pure: equal input gives equal output on every node of the same name and addresses. One map entry
//! is one (service, port, protocol, address family): a client of one family gets backends of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use node_agent_datapath::abi::frontend::{FE_EXTERNAL, FE_LOCAL, FE_NODE_PORT};
use node_agent_datapath::maps::{FrontendKey, IpProtocol};
use node_agent_state::model::{Endpoint, Protocol, Service, ServicePort};
use node_agent_state::{ObjectName, ServiceEntry};

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    const ALL: [Self; 2] = [Self::V4, Self::V6];

    fn has(self, address: &IpAddr) -> bool {
        match self {
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

/// Identity of one element of `svc`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    pub service: ObjectName,
    /// Name of the port; empty for an unnamed one.
    pub port: Arc<str>,
    pub protocol: Protocol,
    pub family: Family,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        let Self {
            service,
            port,
            protocol,
            ..
        } = self;
        write!(formatter, "{service}:{port}/{} {family}", protocol.as_str())
    }
}

/// What one backend should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DesiredBackend {
    pub(crate) lifecycle: Lifecycle,
    pub(crate) local: bool,
    pub(crate) pod: Option<String>,
    pub(crate) node: Option<String>,
}

/// Which connections a backend takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifecycle {
    /// New and old ones.
    Ready,
    /// Old ones; new ones when no other is left.
    Terminating,
}

/// What one element of `svc` should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DesiredService {
    /// With their flags. The first is the main one.
    pub(crate) frontends: BTreeMap<FrontendKey, u16>,
    pub(crate) main: FrontendKey,
    pub(crate) backends: BTreeMap<SocketAddr, DesiredBackend>,
    pub(crate) affinity_s: Option<u32>,
}

/// An answer that this node gives by itself, in place of a service's endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalListener {
    pub service: ObjectName,
    /// Port of the service.
    pub port: u16,
    pub protocol: Protocol,
    /// Where this node listens for it; one entry a family.
    pub address: SocketAddr,
}

/// What a plan must know of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeFacts {
    pub(crate) name: String,
    /// Where node ports are served.
    pub(crate) addresses: BTreeSet<IpAddr>,
    pub(crate) external_ips: ExternalIps,
    pub(crate) listeners: Vec<LocalListener>,
}

/// What to do with `spec.externalIPs`, by which a user may claim any address (CVE-2020-8554).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExternalIps {
    #[default]
    Ignore,
    Program,
}

fn ip_protocol(protocol: Protocol) -> IpProtocol {
    match protocol {
        Protocol::Tcp => IpProtocol::TCP,
        Protocol::Udp => IpProtocol::UDP,
        Protocol::Sctp => IpProtocol::SCTP,
    }
}

/// The frontends of one port in one family, and the main one: the cluster address if there is one.
fn frontends(
    service: &Service,
    port: &ServicePort,
    family: Family,
    node: &NodeFacts,
) -> (BTreeMap<FrontendKey, u16>, Option<FrontendKey>) {
    let mut all = BTreeMap::new();
    let mut main = None;
    let mut add = |address: &IpAddr, number: u16, flags: u16| {
        if family.has(address) && !address.is_unspecified() {
            let key = FrontendKey {
                address: *address,
                port: number,
                protocol: ip_protocol(port.protocol),
            };
            main.get_or_insert(key);
            all.entry(key).or_insert(flags);
        }
    };
    let internal = if service.internal_traffic_local {
        FE_LOCAL
    } else {
        0
    };
    for address in &service.cluster_ips {
        add(address, port.port, internal);
    }
    // Clients of this cluster take any backend at an outside address too, whatever the external
    // traffic policy: it is about packets from outside.
    for address in &service.load_balancer_ips {
        add(address, port.port, FE_EXTERNAL);
    }
    if node.external_ips == ExternalIps::Program {
        for address in &service.external_ips {
            add(address, port.port, FE_EXTERNAL);
        }
    }
    if let Some(number) = port.node_port {
        for address in &node.addresses {
            add(address, number, FE_NODE_PORT);
        }
    }
    (all, main)
}

/// Where an endpoint stands; `None` when it takes no connections.
fn lifecycle(endpoint: &Endpoint) -> Option<Lifecycle> {
    if endpoint.ready {
        Some(Lifecycle::Ready)
    } else if endpoint.serving && endpoint.terminating {
        Some(Lifecycle::Terminating)
    } else {
        None
    }
}

fn backends(
    name: &ObjectName,
    entry: &ServiceEntry,
    service: &Service,
    port: &ServicePort,
    family: Family,
    node: &NodeFacts,
) -> BTreeMap<SocketAddr, DesiredBackend> {
    if service.node_local {
        let mine = |listener: &&LocalListener| {
            listener.service == *name
                && listener.port == port.port
                && listener.protocol == port.protocol
                && family.has(&listener.address.ip())
        };
        let backend = DesiredBackend {
            lifecycle: Lifecycle::Ready,
            local: true,
            pod: None,
            node: Some(node.name.clone()),
        };
        let listeners = node.listeners.iter().filter(mine);
        return listeners
            .map(|listener| (listener.address, backend.clone()))
            .collect();
    }
    let mut all = BTreeMap::new();
    for endpoint in entry
        .endpoints
        .iter()
        .filter(|endpoint| family.has(&endpoint.address))
    {
        let Some(lifecycle) = lifecycle(endpoint) else {
            continue;
        };
        let serves = |candidate: &&node_agent_state::model::EndpointPort| {
            candidate.name == port.name && candidate.protocol == port.protocol
        };
        for target in endpoint.ports.iter().filter(serves) {
            let backend = DesiredBackend {
                lifecycle,
                local: endpoint.node.as_deref() == Some(node.name.as_str()),
                pod: endpoint.pod.clone(),
                node: endpoint.node.clone(),
            };
            // Listed twice (a pod that two slices name for a moment): ready wins.
            let address = SocketAddr::new(endpoint.address, target.port);
            let known: &mut DesiredBackend = all.entry(address).or_insert_with(|| backend.clone());
            if known.lifecycle == Lifecycle::Terminating {
                *known = backend;
            }
        }
    }
    all
}

/// What the maps should say about a service. Empty for headless and ExternalName services, and
/// while only the endpoints are known.
pub(crate) fn plan(
    name: &ObjectName,
    entry: &ServiceEntry,
    node: &NodeFacts,
) -> BTreeMap<ServiceKey, DesiredService> {
    let mut planned = BTreeMap::new();
    let Some(service) = entry.service.as_deref() else {
        return planned;
    };
    if service.headless || service.external_name.is_some() {
        return planned;
    }
    for port in &service.ports {
        for family in Family::ALL {
            let (frontends, main) = frontends(service, port, family, node);
            let Some(main) = main else {
                continue;
            };
            let key = ServiceKey {
                service: name.clone(),
                port: port.name.as_str().into(),
                protocol: port.protocol,
                family,
            };
            let desired = DesiredService {
                frontends,
                main,
                backends: backends(name, entry, service, port, family, node),
                affinity_s: service.affinity_seconds,
            };
            planned.insert(key, desired);
        }
    }
    planned
}

/// Addresses that belong to services only, so that their unknown ports can be refused at once: the
/// cluster addresses. (An outside address may also be the machine's own.)
pub(crate) fn owned_addresses(entry: &ServiceEntry) -> Vec<IpAddr> {
    match entry.service.as_deref() {
        Some(service) if !service.headless && service.external_name.is_none() => service
            .cluster_ips
            .iter()
            .filter(|address| !address.is_unspecified())
            .copied()
            .collect(),
        Some(_) | None => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
