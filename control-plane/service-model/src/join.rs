//! Service + EndpointSlices -> model, Node -> route. Pure.
//!
//! What cannot be read (an address that is none, a port out of range) is left out: the API server
//! checks objects when they are written, so this is a second line, and one bad endpoint must not
//! take the others with it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proto_api::types::core::v1 as core;
use proto_api::types::discovery::v1 as discovery;

use crate::model::{Endpoint, EndpointPort, NodeRoute, Protocol, Service, ServicePort};

/// Session affinity when the service does not name a timeout, seconds (`clientIP.timeoutSeconds`).
const AFFINITY_SECONDS_DEFAULT: u32 = 10_800;
/// The cluster DNS service; without a selector every node answers it by its own listener.
const CLUSTER_DNS: (&str, &str) = ("kube-system", "kube-dns");
/// Label of a slice that names its service (`discovery.k8s.io/v1`).
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// The model of a Service.
#[must_use]
pub fn service(object: &core::Service) -> Service {
    let empty = core::ServiceSpec::default();
    let spec = object.spec.as_ref().unwrap_or(&empty);
    let (namespace, name) = (
        object.metadata.namespace.clone().unwrap_or_default(),
        object.metadata.name.clone().unwrap_or_default(),
    );
    let external = spec.type_.as_deref() == Some("ExternalName");
    let node_local = (namespace.as_str(), name.as_str()) == CLUSTER_DNS && spec.selector.is_empty();
    Service {
        headless: !external && spec.cluster_ip.as_deref() == Some("None"),
        cluster_ips: cluster_ips(spec),
        external_ips: addresses(&spec.external_ips),
        load_balancer_ips: load_balancer_ips(object),
        ports: spec.ports.iter().filter_map(service_port).collect(),
        external_name: if external {
            spec.external_name.clone()
        } else {
            None
        },
        affinity_seconds: affinity(spec),
        internal_traffic_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        external_traffic_local: spec.external_traffic_policy.as_deref() == Some("Local"),
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
        node_local,
        namespace,
        name,
    }
}

fn cluster_ips(spec: &core::ServiceSpec) -> Vec<IpAddr> {
    let listed = addresses(&spec.cluster_ips);
    if listed.is_empty() {
        addresses(spec.cluster_ip.as_slice())
    } else {
        listed
    }
}

fn load_balancer_ips(object: &core::Service) -> Vec<IpAddr> {
    let status = object
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    let ingress = status
        .map(|balancer| balancer.ingress.as_slice())
        .unwrap_or_default();
    ingress
        .iter()
        .filter_map(|point| point.ip.as_ref()?.parse().ok())
        .collect()
}

fn affinity(spec: &core::ServiceSpec) -> Option<u32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let client = spec
        .session_affinity_config
        .as_ref()
        .and_then(|config| config.client_ip.as_ref());
    let seconds = client.and_then(|client| client.timeout_seconds);
    Some(
        seconds
            .and_then(|s| u32::try_from(s).ok())
            .unwrap_or(AFFINITY_SECONDS_DEFAULT),
    )
}

fn addresses(texts: &[String]) -> Vec<IpAddr> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}

fn service_port(port: &core::ServicePort) -> Option<ServicePort> {
    Some(ServicePort {
        name: port.name.clone().unwrap_or_default(),
        protocol: Protocol::from_api(port.protocol.as_deref())?,
        port: number(port.port)?,
        node_port: port.node_port.and_then(number),
    })
}

/// Whether nodes need this slice: it belongs to a service and lists addresses.
#[must_use]
pub fn service_of(slice: &discovery::EndpointSlice) -> Option<&str> {
    if slice.address_type == "FQDN" {
        return None;
    }
    slice
        .metadata
        .labels
        .get(SERVICE_NAME_LABEL)
        .map(String::as_str)
}

/// The endpoints of one service from all its slices, in address order.
///
/// An address that several slices list (it may for a moment, while endpoints move between slices)
/// is one endpoint with the ports of all; it is ready if any of them says so.
pub fn endpoints<'a>(
    slices: impl IntoIterator<Item = &'a discovery::EndpointSlice>,
) -> Vec<Endpoint> {
    let mut joined: BTreeMap<IpAddr, Endpoint> = BTreeMap::new();
    for slice in slices {
        let ports: Vec<EndpointPort> = slice.ports.iter().filter_map(endpoint_port).collect();
        for endpoint in &slice.endpoints {
            for address in addresses(&endpoint.addresses) {
                let one = endpoint_at(address, endpoint, &ports);
                joined
                    .entry(address)
                    .and_modify(|old| merge(old, &one))
                    .or_insert(one);
            }
        }
    }
    joined.into_values().collect()
}

fn endpoint_port(port: &discovery::EndpointPort) -> Option<EndpointPort> {
    Some(EndpointPort {
        name: port.name.clone().unwrap_or_default(),
        protocol: Protocol::from_api(port.protocol.as_deref())?,
        port: port.port.and_then(number)?,
    })
}

fn endpoint_at(
    address: IpAddr,
    endpoint: &discovery::Endpoint,
    ports: &[EndpointPort],
) -> Endpoint {
    let unknown = discovery::EndpointConditions::default();
    let conditions = endpoint.conditions.as_ref().unwrap_or(&unknown);
    // Absent conditions mean ready (discovery.k8s.io/v1, EndpointConditions).
    let ready = conditions.ready.unwrap_or(true);
    let pod = endpoint
        .target_ref
        .as_ref()
        .filter(|target| target.kind.as_deref() == Some("Pod"));
    Endpoint {
        address,
        hostname: endpoint.hostname.clone(),
        node: endpoint.node_name.clone(),
        zone: endpoint.zone.clone(),
        pod: pod.and_then(|target| target.name.clone()),
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        ports: ports.to_vec(),
    }
}

fn merge(old: &mut Endpoint, new: &Endpoint) {
    old.ready |= new.ready;
    old.serving |= new.serving;
    old.terminating &= new.terminating;
    for port in &new.ports {
        if !old.ports.contains(port) {
            old.ports.push(port.clone());
        }
    }
}

/// How other nodes reach a node.
#[must_use]
pub fn node_route(node: &core::Node) -> NodeRoute {
    let status = node.status.as_ref();
    let internal = status.into_iter().flat_map(|status| &status.addresses);
    let conditions = status.into_iter().flat_map(|status| &status.conditions);
    let spec = node.spec.as_ref();
    let mut pod_cidrs = spec.map(|spec| spec.pod_cidrs.clone()).unwrap_or_default();
    if pod_cidrs.is_empty() {
        pod_cidrs.extend(spec.and_then(|spec| spec.pod_cidr.clone()));
    }
    NodeRoute {
        name: node.metadata.name.clone().unwrap_or_default(),
        addresses: internal
            .filter(|address| address.type_ == "InternalIP")
            .filter_map(|address| address.address.parse().ok())
            .collect(),
        pod_cidrs,
        ready: conditions
            .filter(|condition| condition.type_ == "Ready")
            .any(|condition| condition.status == "True"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<T: serde::de::DeserializeOwned>(json: &str) -> T {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_cluster_ip_service_becomes_addresses_and_ports() {
        let object = parse(
            r#"{"metadata":{"namespace":"default","name":"hello"},"spec":{"type":"NodePort",
            "clusterIP":"10.96.0.7","clusterIPs":["10.96.0.7","fd00::7"],
            "sessionAffinity":"ClientIP","ports":[{"port":80,"nodePort":30080,"targetPort":8080},
            {"name":"dns","port":53,"protocol":"UDP"},{"name":"bad","port":0}]}}"#,
        );
        let model = service(&object);
        assert_eq!(
            model,
            Service {
                namespace: "default".into(),
                name: "hello".into(),
                cluster_ips: vec!["10.96.0.7".parse().unwrap(), "fd00::7".parse().unwrap()],
                ports: vec![
                    ServicePort {
                        name: String::new(),
                        protocol: Protocol::Tcp,
                        port: 80,
                        node_port: Some(30080)
                    },
                    ServicePort {
                        name: "dns".into(),
                        protocol: Protocol::Udp,
                        port: 53,
                        node_port: None
                    },
                ],
                affinity_seconds: Some(10_800),
                ..Service::default()
            }
        );
    }

    #[test]
    fn headless_external_name_and_cluster_dns_are_told_apart() {
        let headless: core::Service =
            parse(r#"{"metadata":{"name":"h"},"spec":{"clusterIP":"None"}}"#);
        assert!(service(&headless).headless && service(&headless).cluster_ips.is_empty());
        let external: core::Service = parse(
            r#"{"metadata":{"name":"e"},"spec":{"type":"ExternalName","externalName":"a.b"}}"#,
        );
        assert_eq!(service(&external).external_name.as_deref(), Some("a.b"));
        let dns: core::Service = parse(
            r#"{"metadata":{"namespace":"kube-system","name":"kube-dns"},
            "spec":{"clusterIP":"10.96.0.10"}}"#,
        );
        assert!(service(&dns).node_local);
        let own: core::Service = parse(
            r#"{"metadata":{"namespace":"kube-system","name":"kube-dns"},
            "spec":{"clusterIP":"10.96.0.10","selector":{"app":"coredns"}}}"#,
        );
        assert!(!service(&own).node_local);
    }

    #[test]
    fn slices_join_by_address_and_absent_conditions_mean_ready() {
        let one: discovery::EndpointSlice = parse(
            r#"{"metadata":{"labels":{"kubernetes.io/service-name":"hello"}},"addressType":"IPv4",
            "ports":[{"name":"http","port":8080,"protocol":"TCP"}],"endpoints":[
            {"addresses":["10.244.1.5"],"nodeName":"node-1",
             "targetRef":{"kind":"Pod","name":"hello-a"}},
            {"addresses":["10.244.0.4"],"conditions":{"ready":false,"serving":true,
             "terminating":true}}]}"#,
        );
        let two: discovery::EndpointSlice = parse(
            r#"{"metadata":{},"addressType":"IPv4","ports":[{"name":"metrics","port":9}],
            "endpoints":[{"addresses":["10.244.1.5"]},{"addresses":["nonsense"]}]}"#,
        );
        assert_eq!(service_of(&one), Some("hello"));
        let joined = endpoints([&one, &two]);
        assert_eq!(joined.len(), 2);
        assert_eq!(joined[0].address.to_string(), "10.244.0.4");
        assert!(!joined[0].ready && joined[0].serving && joined[0].terminating);
        assert_eq!(joined[1].pod.as_deref(), Some("hello-a"));
        assert!(joined[1].ready && !joined[1].terminating);
        let ports: Vec<_> = joined[1]
            .ports
            .iter()
            .map(|port| (&*port.name, port.port))
            .collect();
        assert_eq!(ports, [("http", 8080), ("metrics", 9)]);
    }

    #[test]
    fn a_node_gives_its_internal_addresses_and_pod_ranges() {
        let node: core::Node = parse(
            r#"{"metadata":{"name":"node-1"},"spec":{"podCIDR":"10.244.1.0/24"},
            "status":{"addresses":[{"type":"Hostname","address":"node-1"},
            {"type":"InternalIP","address":"10.88.0.11"}],
            "conditions":[{"type":"Ready","status":"True"}]}}"#,
        );
        assert_eq!(
            node_route(&node),
            NodeRoute {
                name: "node-1".into(),
                addresses: vec!["10.88.0.11".parse().unwrap()],
                pod_cidrs: vec!["10.244.1.0/24".into()],
                ready: true,
            }
        );
    }
}
