use std::net::SocketAddr;
use std::sync::Arc;

use node_agent_datapath::abi::frontend::{FE_EXTERNAL, FE_LOCAL, FE_NODE_PORT};
use node_agent_state::model::{Endpoint, EndpointPort, Protocol, Service, ServicePort};
use node_agent_state::{ObjectName, ServiceEntry};

use super::{ExternalIps, Lifecycle, LocalListener, NodeFacts, owned_addresses, plan};

fn name() -> ObjectName {
    ObjectName::new("default", "web")
}

fn node() -> NodeFacts {
    NodeFacts {
        name: "node-1".into(),
        addresses: ["10.88.0.11".parse().unwrap()].into(),
        ..NodeFacts::default()
    }
}

fn service() -> Service {
    Service {
        namespace: "default".into(),
        name: "web".into(),
        cluster_ips: vec!["10.96.0.7".parse().unwrap()],
        ports: vec![ServicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
        }],
        ..Service::default()
    }
}

fn endpoint(address: &str, node: &str, states: (bool, bool, bool)) -> Endpoint {
    let (ready, serving, terminating) = states;
    Endpoint {
        address: address.parse().unwrap(),
        hostname: None,
        node: Some(node.into()),
        zone: None,
        pod: None,
        ready,
        serving,
        terminating,
        ports: vec![EndpointPort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 8080,
        }],
    }
}

const READY: (bool, bool, bool) = (true, true, false);

fn entry(service: Service, endpoints: Vec<Endpoint>) -> ServiceEntry {
    ServiceEntry {
        service: Some(Arc::new(service)),
        endpoints: Arc::new(endpoints),
    }
}

/// Each planned element as `frontend[flags] ...; backend state ...`.
fn check(entry: &ServiceEntry, node: &NodeFacts, expected: &[&str]) {
    let planned: Vec<String> = plan(&name(), entry, node)
        .values()
        .map(|desired| {
            let frontends: Vec<String> = desired
                .frontends
                .iter()
                .map(|(key, flags)| format!("{key}[{flags}]"))
                .collect();
            let backends: Vec<String> = desired
                .backends
                .iter()
                .map(|(address, backend)| {
                    let here = if backend.local { " here" } else { "" };
                    match backend.lifecycle {
                        Lifecycle::Ready => format!("{address}{here}"),
                        Lifecycle::Terminating => format!("{address}{here} terminating"),
                    }
                })
                .collect();
            format!("{}; {}", frontends.join(" "), backends.join(", "))
        })
        .collect();
    assert_eq!(planned, expected);
}

#[test]
fn a_port_gets_its_ready_and_its_terminating_backends_and_no_other() {
    let endpoints = vec![
        endpoint("10.244.1.2", "node-1", READY),
        endpoint("10.244.2.3", "node-2", (false, true, true)),
        endpoint("10.244.2.4", "node-2", (false, false, true)),
        endpoint("10.244.2.5", "node-2", (false, false, false)),
    ];
    check(
        &entry(service(), endpoints),
        &node(),
        &["10.96.0.7:80/TCP[0]; 10.244.1.2:8080 here, 10.244.2.3:8080 terminating"],
    );
}

#[test]
fn a_node_port_is_served_at_every_address_of_the_node_and_outside_addresses_by_permission() {
    let mut service = service();
    service.ports[0].node_port = Some(30080);
    service.load_balancer_ips = vec!["192.0.2.1".parse().unwrap()];
    service.external_ips = vec!["192.0.2.2".parse().unwrap()];
    service.internal_traffic_local = true;
    let mut node = node();
    let base = format!(
        "10.88.0.11:30080/TCP[{FE_NODE_PORT}] 10.96.0.7:80/TCP[{FE_LOCAL}] 192.0.2.1:80/TCP[{FE_EXTERNAL}]"
    );
    check(
        &entry(service.clone(), vec![]),
        &node,
        &[&format!("{base}; ")],
    );
    node.external_ips = ExternalIps::Program;
    let more = format!("{base} 192.0.2.2:80/TCP[{FE_EXTERNAL}]; ");
    check(&entry(service, vec![]), &node, &[&more]);
}

#[test]
fn a_dual_stack_service_has_an_element_a_family_with_backends_of_that_family() {
    let mut service = service();
    service.cluster_ips.push("fd00:10:96::7".parse().unwrap());
    let endpoints = vec![
        endpoint("10.244.1.2", "node-1", READY),
        endpoint("fd00:10:244:1::2", "node-1", READY),
    ];
    check(
        &entry(service, endpoints),
        &node(),
        &[
            "10.96.0.7:80/TCP[0]; 10.244.1.2:8080 here",
            "[fd00:10:96::7]:80/TCP[0]; [fd00:10:244:1::2]:8080 here",
        ],
    );
}

#[test]
fn headless_and_external_name_services_and_lone_endpoints_program_nothing() {
    let headless = Service {
        headless: true,
        ..service()
    };
    let external = Service {
        external_name: Some("example.org".into()),
        ..service()
    };
    for service in [headless, external] {
        let entry = entry(service, vec![endpoint("10.244.1.2", "node-1", READY)]);
        check(&entry, &node(), &[]);
        assert!(owned_addresses(&entry).is_empty());
    }
    check(&ServiceEntry::default(), &node(), &[]);
}

#[test]
fn an_endpoint_listed_twice_counts_once_and_ready_wins() {
    let twice = vec![
        endpoint("10.244.1.2", "node-1", (false, true, true)),
        endpoint("10.244.1.2", "node-1", READY),
        endpoint("10.244.1.2", "node-1", (false, true, true)),
    ];
    check(
        &entry(service(), twice),
        &node(),
        &["10.96.0.7:80/TCP[0]; 10.244.1.2:8080 here"],
    );
}

#[test]
fn a_node_local_service_goes_to_this_nodes_listener_whatever_its_endpoints() {
    let service = Service {
        node_local: true,
        ..service()
    };
    let mut node = node();
    let address: SocketAddr = "10.88.0.11:10053".parse().unwrap();
    node.listeners = vec![LocalListener {
        service: name(),
        port: 80,
        protocol: Protocol::Tcp,
        address,
    }];
    let endpoints = vec![endpoint("10.244.2.3", "node-2", READY)];
    check(
        &entry(service, endpoints),
        &node,
        &["10.96.0.7:80/TCP[0]; 10.88.0.11:10053 here"],
    );
}
