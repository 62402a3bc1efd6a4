//! Endpoints: the older form of a service's backends.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::strategy::Strategy;
use crate::field::{FieldError, Path};
use crate::tables::{AGE, Column, NAME, Table, age, column};
use crate::{tree, validation};

/// Addresses that the table shows before "+ N more...".
const SHOWN_MAX: usize = 3;

#[derive(Debug)]
pub(super) struct Endpoints;

const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Endpoints",
        "string",
        "The set of all endpoints is the union of all subsets.",
    ),
    AGE,
];

pub(super) static TABLE: Table = Table {
    columns: COLUMNS,
    row,
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let name = tree::text(object, &["metadata", "name"]);
    vec![json!(name), json!(summary(object)), age(object, now)]
}

fn summary(object: &Value) -> String {
    let mut all = Vec::new();
    for subset in tree::list(object, &["subsets"]) {
        let ports = tree::list(subset, &["ports"]);
        for address in tree::list(subset, &["addresses"]) {
            let ip = tree::text(address, &["ip"]);
            if ports.is_empty() {
                all.push(ip.to_owned());
            }
            for port in ports {
                let port = tree::int(port, &["port"]).unwrap_or_default();
                all.push(format!("{ip}:{port}"));
            }
        }
    }
    more_after(&all)
}

/// The first items, and how many are left out.
pub(super) fn more_after(all: &[String]) -> String {
    if all.is_empty() {
        return "<none>".to_owned();
    }
    let shown = all[..all.len().min(SHOWN_MAX)].join(",");
    match all.len().saturating_sub(SHOWN_MAX) {
        0 => shown,
        rest => format!("{shown} + {rest} more..."),
    }
}

impl Strategy for Endpoints {
    fn deprecation(&self) -> Option<&str> {
        Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
    }

    fn default(&self, object: &mut Value) {
        for subset in tree::list_mut(tree::as_object(object), "subsets") {
            for port in tree::list_mut(tree::as_object(subset), "ports") {
                tree::default_text(tree::as_object(port), "protocol", "TCP");
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (i, subset) in tree::list(object, &["subsets"]).iter().enumerate() {
            let path = Path::root("subsets").index(i);
            for field in ["addresses", "notReadyAddresses"] {
                for (j, address) in tree::list(subset, &[field]).iter().enumerate() {
                    let path = path.child(field).index(j).child("ip");
                    validation::ip(tree::text(address, &["ip"]), &path, &mut errors);
                }
            }
            let ports = tree::list(subset, &["ports"]);
            for (j, port) in ports.iter().enumerate() {
                let path = path.child("ports").index(j);
                let name = tree::text(port, &["name"]);
                if ports.len() > 1 && name.is_empty() {
                    errors.push(FieldError::required(&path.child("name"), ""));
                }
                validation::port_number(
                    tree::at(port, &["port"]),
                    &path.child("port"),
                    &mut errors,
                );
                validation::protocol(port, &path, &mut errors);
            }
        }
        errors
    }
}
