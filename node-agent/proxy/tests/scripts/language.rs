//! The language of the scripts: one statement a line, `#` starts a comment.
//!
//! ```text
//! node NAME ADDRESS...
//! service NS/NAME ip=A,B port=NAME:PORT/PROTO[:NODEPORT] [lb=A] [external=A] [affinity=S] [local] [headless]
//! endpoints NS/NAME ADDRESS@NODE/STATE/PORTNAME=PORT[+PORTNAME=PORT] ...
//! delete NS/NAME
//! complete | incomplete        the tables are (not) complete
//! restart                      a new writer starts on the maps as they are
//! after SECONDS
//! expect                       followed by the dump, up to an empty line
//! ```

use std::sync::Arc;

use node_agent_state::model::{Endpoint, EndpointPort, NodeRoute, Protocol, Service, ServicePort};
use node_agent_state::{ObjectName, ServiceEntry, Snapshot};

#[derive(Debug)]
pub(crate) enum Statement {
    /// Changes the tables.
    Tables(Change),
    Restart,
    After(u64),
    Expect(String),
}

#[derive(Debug)]
pub(crate) enum Change {
    Node(NodeRoute),
    Service(ObjectName, Service),
    Endpoints(ObjectName, Vec<Endpoint>),
    Delete(ObjectName),
    Complete(bool),
}

impl Change {
    pub(crate) fn apply(&self, tables: &mut Snapshot) {
        match self {
            Self::Node(node) => {
                tables
                    .nodes
                    .insert(node.name.as_str().into(), Arc::new(node.clone()));
            }
            Self::Service(name, service) => {
                let mut entry = entry(tables, name);
                entry.service = Some(Arc::new(service.clone()));
                tables.services.insert(name.clone(), Arc::new(entry));
            }
            Self::Endpoints(name, endpoints) => {
                let mut entry = entry(tables, name);
                entry.endpoints = Arc::new(endpoints.clone());
                tables.services.insert(name.clone(), Arc::new(entry));
            }
            Self::Delete(name) => {
                tables.services.remove(name);
            }
            Self::Complete(complete) => tables.in_sync = *complete,
        }
    }
}

fn entry(tables: &Snapshot, name: &ObjectName) -> ServiceEntry {
    tables
        .services
        .get(name)
        .map(|entry| ServiceEntry::clone(entry))
        .unwrap_or_default()
}

pub(crate) fn parse(script: &str) -> Vec<Statement> {
    let mut statements = Vec::new();
    let mut lines = script.lines();
    while let Some(line) = lines.next() {
        let line = line.split('#').next().unwrap_or("").trim();
        let mut words = line.split_whitespace();
        let statement = match words.next() {
            None => continue,
            Some("expect") => {
                let dump = lines.by_ref().take_while(|line| !line.trim().is_empty());
                Statement::Expect(dump.map(|line| format!("{}\n", line.trim())).collect())
            }
            Some("restart") => Statement::Restart,
            Some("after") => Statement::After(words.next().unwrap().parse().unwrap()),
            Some("complete") => Statement::Tables(Change::Complete(true)),
            Some("incomplete") => Statement::Tables(Change::Complete(false)),
            Some("node") => Statement::Tables(Change::Node(NodeRoute {
                name: words.next().unwrap().into(),
                addresses: words.map(|word| word.parse().unwrap()).collect(),
                pod_cidrs: vec![],
                ready: true,
            })),
            Some("delete") => Statement::Tables(Change::Delete(name(words.next().unwrap()))),
            Some("service") => {
                let name = name(words.next().unwrap());
                let service = service(&name, words);
                Statement::Tables(Change::Service(name, service))
            }
            Some("endpoints") => {
                let name = name(words.next().unwrap());
                Statement::Tables(Change::Endpoints(name, words.map(endpoint).collect()))
            }
            Some(other) => panic!("no such statement: {other}"),
        };
        statements.push(statement);
    }
    statements
}

fn name(text: &str) -> ObjectName {
    ObjectName::parse(text).unwrap()
}

fn addresses(list: &str) -> Vec<std::net::IpAddr> {
    list.split(',')
        .map(|address| address.parse().unwrap())
        .collect()
}

fn service<'a>(name: &ObjectName, words: impl Iterator<Item = &'a str>) -> Service {
    let mut service = Service {
        namespace: name.namespace.to_string(),
        name: name.name.to_string(),
        ..Service::default()
    };
    for word in words {
        match word.split_once('=') {
            Some(("ip", list)) => service.cluster_ips = addresses(list),
            Some(("lb", list)) => service.load_balancer_ips = addresses(list),
            Some(("external", list)) => service.external_ips = addresses(list),
            Some(("affinity", seconds)) => service.affinity_seconds = seconds.parse().ok(),
            Some(("port", port)) => service.ports.push(service_port(port)),
            None if word == "local" => service.internal_traffic_local = true,
            None if word == "headless" => service.headless = true,
            _ => panic!("no such property of a service: {word}"),
        }
    }
    service
}

fn service_port(text: &str) -> ServicePort {
    let (name, rest) = text.split_once(':').unwrap();
    let (port, rest) = rest.split_once('/').unwrap();
    let (protocol, node_port) = match rest.split_once(':') {
        Some((protocol, node_port)) => (protocol, Some(node_port.parse().unwrap())),
        None => (rest, None),
    };
    ServicePort {
        name: name.into(),
        protocol: Protocol::from_api(Some(protocol)).unwrap(),
        port: port.parse().unwrap(),
        node_port,
    }
}

fn endpoint(text: &str) -> Endpoint {
    let (address, rest) = text.split_once('@').unwrap();
    let mut parts = rest.split('/');
    let node = parts.next().unwrap();
    let (ready, serving, terminating) = match parts.next().unwrap() {
        "ready" => (true, true, false),
        "terminating" => (false, true, true),
        "unready" => (false, false, false),
        other => panic!("no such state: {other}"),
    };
    let port = |text: &str| {
        let (name, port) = text.split_once('=').unwrap();
        EndpointPort {
            name: name.into(),
            protocol: if name == "dns" {
                Protocol::Udp
            } else {
                Protocol::Tcp
            },
            port: port.parse().unwrap(),
        }
    };
    Endpoint {
        address: address.parse().unwrap(),
        hostname: None,
        node: Some(node.into()),
        zone: None,
        pod: None,
        ready,
        serving,
        terminating,
        ports: parts.next().unwrap().split('+').map(port).collect(),
    }
}
