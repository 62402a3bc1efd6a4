//! Printer columns of services.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::tables::{AGE, Column, NAME, Table, age, column, wide};
use crate::tree;

const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Type",
        "string",
        "type determines how the Service is exposed.",
    ),
    column(
        "Cluster-IP",
        "string",
        "clusterIP is the IP address of the service and is usually assigned randomly.",
    ),
    column(
        "External-IP",
        "string",
        "externalIPs is a list of IP addresses for which nodes in the cluster will also accept traffic for this service.",
    ),
    column(
        "Port(s)",
        "string",
        "The list of ports that are exposed by this service.",
    ),
    AGE,
    wide(
        "Selector",
        "string",
        "Route service traffic to pods with label keys and values matching this selector.",
    ),
];

pub(in crate::registry) static TABLE: Table = Table {
    columns: COLUMNS,
    row,
};

fn row(service: &Value, now: Timestamp) -> Vec<Value> {
    let ip = tree::text(service, &["spec", "clusterIP"]);
    vec![
        json!(tree::text(service, &["metadata", "name"])),
        json!(tree::text(service, &["spec", "type"])),
        json!(if ip.is_empty() { "<none>" } else { ip }),
        json!(external(service)),
        json!(ports(service)),
        age(service, now),
        json!(label_set(tree::at(service, &["spec", "selector"]))),
    ]
}

/// `a=1,b=2`, or `<none>`.
pub(in crate::registry) fn label_set(labels: &Value) -> String {
    let mut pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort();
    if pairs.is_empty() {
        "<none>".to_owned()
    } else {
        pairs.join(",")
    }
}

fn external(service: &Value) -> String {
    let texts = |path: &[&str]| -> Vec<String> {
        tree::list(service, path)
            .iter()
            .filter_map(|v| v.as_str().map(str::to_owned))
            .collect()
    };
    let mut all = texts(&["spec", "externalIPs"]);
    match tree::text(service, &["spec", "type"]) {
        "ExternalName" => return tree::text(service, &["spec", "externalName"]).to_owned(),
        "LoadBalancer" => {
            let ingress = tree::list(service, &["status", "loadBalancer", "ingress"]);
            let balancers = ingress.iter().filter_map(|one| {
                let ip = tree::text(one, &["ip"]);
                let name = tree::text(one, &["hostname"]);
                [ip, name]
                    .into_iter()
                    .find(|t| !t.is_empty())
                    .map(str::to_owned)
            });
            all.splice(0..0, balancers);
            if all.is_empty() {
                return "<pending>".to_owned();
            }
        }
        _ => {}
    }
    if all.is_empty() {
        "<none>".to_owned()
    } else {
        all.join(",")
    }
}

fn ports(service: &Value) -> String {
    let ports: Vec<String> = tree::list(service, &["spec", "ports"])
        .iter()
        .map(|port| {
            let number = tree::int(port, &["port"]).unwrap_or_default();
            let protocol = tree::text(port, &["protocol"]);
            match tree::int(port, &["nodePort"]).unwrap_or_default() {
                0 => format!("{number}/{protocol}"),
                node => format!("{number}:{node}/{protocol}"),
            }
        })
        .collect();
    if ports.is_empty() {
        "<none>".to_owned()
    } else {
        ports.join(",")
    }
}
