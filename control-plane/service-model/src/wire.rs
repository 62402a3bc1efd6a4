//! The model's wire form and back.
//!
//! Encoding cannot fail. Decoding checks everything that came over the wire once, so that the values
//! inside the agent are right by type.

use std::net::IpAddr;

use proto::agent::v1 as pb;

use crate::model::{Endpoint, EndpointPort, NodeRoute, Protocol, Service, ServicePort};

/// A message that does not describe a valid value.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// An address of neither 4 nor 16 bytes.
    #[error("field {field}: an address has 4 or 16 bytes, this one has {len}")]
    Address {
        /// Field of the message.
        field: &'static str,
        /// Bytes found.
        len: usize,
    },
    /// A port outside 1..=65535.
    #[error("field {field}: port {port} is outside 1..=65535")]
    Port {
        /// Field of the message.
        field: &'static str,
        /// Number found.
        port: u32,
    },
    /// A protocol number that this version does not know.
    #[error("protocol {number} is not known to this version")]
    Protocol {
        /// Number found.
        number: i32,
    },
}

fn address_out(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn address_in(field: &'static str, bytes: &[u8]) -> Result<IpAddr, DecodeError> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes)
        .map(IpAddr::from)
        .map_err(|_size| DecodeError::Address {
            field,
            len: bytes.len(),
        })
}

fn addresses_out(addresses: &[IpAddr]) -> Vec<Vec<u8>> {
    addresses.iter().map(address_out).collect()
}

fn addresses_in(field: &'static str, list: &[Vec<u8>]) -> Result<Vec<IpAddr>, DecodeError> {
    list.iter().map(|bytes| address_in(field, bytes)).collect()
}

fn protocol_out(protocol: Protocol) -> i32 {
    let wire = match protocol {
        Protocol::Tcp => pb::Protocol::Tcp,
        Protocol::Udp => pb::Protocol::Udp,
        Protocol::Sctp => pb::Protocol::Sctp,
    };
    wire.into()
}

fn protocol_in(number: i32) -> Result<Protocol, DecodeError> {
    match pb::Protocol::try_from(number) {
        Ok(pb::Protocol::Tcp) => Ok(Protocol::Tcp),
        Ok(pb::Protocol::Udp) => Ok(Protocol::Udp),
        Ok(pb::Protocol::Sctp) => Ok(Protocol::Sctp),
        Ok(pb::Protocol::Unspecified) | Err(_) => Err(DecodeError::Protocol { number }),
    }
}

fn port_in(field: &'static str, port: u32) -> Result<u16, DecodeError> {
    match u16::try_from(port) {
        Ok(port) if port != 0 => Ok(port),
        Ok(_) | Err(_) => Err(DecodeError::Port { field, port }),
    }
}

fn text_in(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

impl From<&Service> for pb::Service {
    fn from(service: &Service) -> Self {
        let port = |p: &ServicePort| pb::ServicePort {
            name: p.name.clone(),
            protocol: protocol_out(p.protocol),
            port: p.port.into(),
            node_port: p.node_port.map_or(0, u32::from),
        };
        Self {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
            cluster_ips: addresses_out(&service.cluster_ips),
            external_ips: addresses_out(&service.external_ips),
            load_balancer_ips: addresses_out(&service.load_balancer_ips),
            ports: service.ports.iter().map(port).collect(),
            headless: service.headless,
            external_name: service.external_name.clone().unwrap_or_default(),
            affinity_seconds: service.affinity_seconds.unwrap_or(0),
            internal_traffic_local: service.internal_traffic_local,
            external_traffic_local: service.external_traffic_local,
            publish_not_ready: service.publish_not_ready,
            node_local: service.node_local,
        }
    }
}

impl TryFrom<pb::Service> for Service {
    type Error = DecodeError;

    fn try_from(wire: pb::Service) -> Result<Self, DecodeError> {
        let port = |p: pb::ServicePort| {
            Ok(ServicePort {
                protocol: protocol_in(p.protocol)?,
                port: port_in("ports.port", p.port)?,
                node_port: match p.node_port {
                    0 => None,
                    number => Some(port_in("ports.node_port", number)?),
                },
                name: p.name,
            })
        };
        Ok(Self {
            cluster_ips: addresses_in("cluster_ips", &wire.cluster_ips)?,
            external_ips: addresses_in("external_ips", &wire.external_ips)?,
            load_balancer_ips: addresses_in("load_balancer_ips", &wire.load_balancer_ips)?,
            ports: wire.ports.into_iter().map(port).collect::<Result<_, _>>()?,
            namespace: wire.namespace,
            name: wire.name,
            headless: wire.headless,
            external_name: text_in(wire.external_name),
            affinity_seconds: (wire.affinity_seconds != 0).then_some(wire.affinity_seconds),
            internal_traffic_local: wire.internal_traffic_local,
            external_traffic_local: wire.external_traffic_local,
            publish_not_ready: wire.publish_not_ready,
            node_local: wire.node_local,
        })
    }
}

/// Endpoints of one service as their message.
#[must_use]
pub fn encode_endpoints(endpoints: &[Endpoint]) -> pb::ServiceEndpoints {
    let port = |p: &EndpointPort| pb::EndpointPort {
        name: p.name.clone(),
        protocol: protocol_out(p.protocol),
        port: p.port.into(),
    };
    let endpoint = |e: &Endpoint| pb::Endpoint {
        address: address_out(&e.address),
        hostname: e.hostname.clone().unwrap_or_default(),
        node: e.node.clone().unwrap_or_default(),
        zone: e.zone.clone().unwrap_or_default(),
        pod: e.pod.clone().unwrap_or_default(),
        ready: e.ready,
        serving: e.serving,
        terminating: e.terminating,
        ports: e.ports.iter().map(port).collect(),
    };
    pb::ServiceEndpoints {
        endpoints: endpoints.iter().map(endpoint).collect(),
    }
}

/// Endpoints of one service from their message.
///
/// # Errors
/// An address, port or protocol that is none.
pub fn decode_endpoints(wire: pb::ServiceEndpoints) -> Result<Vec<Endpoint>, DecodeError> {
    let port = |p: pb::EndpointPort| {
        Ok(EndpointPort {
            protocol: protocol_in(p.protocol)?,
            port: port_in("endpoints.ports.port", p.port)?,
            name: p.name,
        })
    };
    let endpoint = |e: pb::Endpoint| {
        Ok(Endpoint {
            address: address_in("endpoints.address", &e.address)?,
            ports: e.ports.into_iter().map(port).collect::<Result<_, _>>()?,
            hostname: text_in(e.hostname),
            node: text_in(e.node),
            zone: text_in(e.zone),
            pod: text_in(e.pod),
            ready: e.ready,
            serving: e.serving,
            terminating: e.terminating,
        })
    };
    wire.endpoints.into_iter().map(endpoint).collect()
}

impl From<&NodeRoute> for pb::NodeRoute {
    fn from(route: &NodeRoute) -> Self {
        Self {
            name: route.name.clone(),
            addresses: addresses_out(&route.addresses),
            pod_cidrs: route.pod_cidrs.clone(),
            ready: route.ready,
        }
    }
}

impl TryFrom<pb::NodeRoute> for NodeRoute {
    type Error = DecodeError;

    fn try_from(wire: pb::NodeRoute) -> Result<Self, DecodeError> {
        Ok(Self {
            addresses: addresses_in("addresses", &wire.addresses)?,
            name: wire.name,
            pod_cidrs: wire.pod_cidrs,
            ready: wire.ready,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        Service {
            namespace: "default".into(),
            name: "hello".into(),
            cluster_ips: vec![
                "10.96.0.7".parse().unwrap(),
                "fd00:10:96::7".parse().unwrap(),
            ],
            external_ips: vec!["192.0.2.1".parse().unwrap()],
            load_balancer_ips: vec![],
            ports: vec![
                ServicePort {
                    name: "http".into(),
                    protocol: Protocol::Tcp,
                    port: 80,
                    node_port: Some(30080),
                },
                ServicePort {
                    name: "dns".into(),
                    protocol: Protocol::Udp,
                    port: 53,
                    node_port: None,
                },
            ],
            affinity_seconds: Some(10800),
            internal_traffic_local: true,
            ..Service::default()
        }
    }

    #[test]
    fn a_service_survives_the_wire() {
        let there = pb::Service::from(&service());
        assert_eq!(Service::try_from(there), Ok(service()));
    }

    #[test]
    fn endpoints_survive_the_wire() {
        let endpoints = vec![Endpoint {
            address: "10.244.1.4".parse().unwrap(),
            hostname: None,
            node: Some("node-1".into()),
            zone: None,
            pod: Some("hello-1".into()),
            ready: false,
            serving: true,
            terminating: true,
            ports: vec![EndpointPort {
                name: "http".into(),
                protocol: Protocol::Tcp,
                port: 8080,
            }],
        }];
        assert_eq!(
            decode_endpoints(encode_endpoints(&endpoints)),
            Ok(endpoints)
        );
    }

    #[test]
    fn a_port_of_zero_an_odd_address_and_an_unknown_protocol_are_refused() {
        let mut wire = pb::Service::from(&service());
        wire.ports[0].port = 0;
        assert_eq!(
            Service::try_from(wire),
            Err(DecodeError::Port {
                field: "ports.port",
                port: 0
            })
        );
        let mut wire = pb::Service::from(&service());
        wire.cluster_ips[0] = vec![1, 2, 3];
        assert_eq!(
            Service::try_from(wire),
            Err(DecodeError::Address {
                field: "cluster_ips",
                len: 3
            })
        );
        let mut wire = pb::Service::from(&service());
        wire.ports[1].protocol = 9;
        assert_eq!(
            Service::try_from(wire),
            Err(DecodeError::Protocol { number: 9 })
        );
    }
}
