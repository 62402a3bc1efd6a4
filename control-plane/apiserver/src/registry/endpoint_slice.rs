//! EndpointSlice: up to a thousand backends of one service and one address family.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::endpoints::more_after;
use super::strategy::{Prepare, Strategy};
use crate::field::{FieldError, Path};
use crate::tables::{AGE, Column, NAME, Table, age, column};
use crate::{tree, validation};

const ENDPOINTS_MAX: usize = 1000;
const PORTS_MAX: usize = 20_000;
const ADDRESSES_MAX: usize = 100;
const ADDRESS_TYPES: &[&str] = &["FQDN", "IPv4", "IPv6"];

#[derive(Debug)]
pub(super) struct EndpointSlice;

const COLUMNS: &[Column] = &[
    NAME,
    column(
        "AddressType",
        "string",
        "addressType specifies the type of address carried by this EndpointSlice.",
    ),
    column(
        "Ports",
        "string",
        "ports specifies the list of network ports exposed by each endpoint in this slice.",
    ),
    column(
        "Endpoints",
        "string",
        "endpoints is a list of unique endpoints in this slice.",
    ),
    AGE,
];

pub(super) static TABLE: Table = Table {
    columns: COLUMNS,
    row,
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = tree::list(object, &["ports"])
        .iter()
        .map(|port| tree::int(port, &["port"]).map_or_else(|| "*".to_owned(), |p| p.to_string()))
        .collect();
    let ports = if ports.is_empty() {
        "<unset>".to_owned()
    } else {
        more_after(&ports)
    };
    let addresses: Vec<String> = tree::list(object, &["endpoints"])
        .iter()
        .flat_map(|endpoint| tree::list(endpoint, &["addresses"]))
        .filter_map(|address| address.as_str().map(str::to_owned))
        .collect();
    let addresses = if addresses.is_empty() {
        "<unset>".to_owned()
    } else {
        more_after(&addresses)
    };
    vec![
        json!(tree::text(object, &["metadata", "name"])),
        json!(tree::text(object, &["addressType"])),
        json!(ports),
        json!(addresses),
        age(object, now),
    ]
}

impl Strategy for EndpointSlice {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        for port in tree::list_mut(tree::as_object(object), "ports") {
            let port = tree::as_object(port);
            tree::default(port, "name", "");
            tree::default_text(port, "protocol", "TCP");
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let kind = tree::text(object, &["addressType"]);
        let path = Path::root("addressType");
        if kind.is_empty() {
            errors.push(FieldError::required(&path, ""));
        } else if !ADDRESS_TYPES.contains(&kind) {
            errors.push(FieldError::not_supported(&path, kind, ADDRESS_TYPES));
        }
        validate_endpoints(object, kind, &mut errors);
        validate_ports(object, &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _write: Prepare) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validation::immutable(new, old, &["addressType"], &mut errors);
        errors
    }
}

fn validate_endpoints(object: &Value, kind: &str, errors: &mut Vec<FieldError>) {
    let path = Path::root("endpoints");
    let endpoints = tree::list(object, &["endpoints"]);
    if endpoints.len() > ENDPOINTS_MAX {
        errors.push(FieldError::too_many(&path, endpoints.len(), ENDPOINTS_MAX));
        return;
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        let path = path.index(i).child("addresses");
        let addresses = tree::list(endpoint, &["addresses"]);
        if addresses.is_empty() {
            errors.push(FieldError::required(
                &path,
                "must contain at least 1 address",
            ));
        } else if addresses.len() > ADDRESSES_MAX {
            errors.push(FieldError::too_many(&path, addresses.len(), ADDRESSES_MAX));
        }
        for (j, address) in addresses.iter().enumerate() {
            let path = path.index(j);
            let text = address.as_str().unwrap_or_default();
            match kind {
                "IPv4" if text.parse::<std::net::Ipv4Addr>().is_err() => {
                    errors.push(FieldError::invalid(
                        &path,
                        text,
                        "must be a valid IPv4 address",
                    ));
                }
                "IPv6" if text.parse::<std::net::Ipv6Addr>().is_err() => {
                    errors.push(FieldError::invalid(
                        &path,
                        text,
                        "must be a valid IPv6 address",
                    ));
                }
                _ => {}
            }
        }
    }
}

fn validate_ports(object: &Value, errors: &mut Vec<FieldError>) {
    let path = Path::root("ports");
    let ports = tree::list(object, &["ports"]);
    if ports.len() > PORTS_MAX {
        errors.push(FieldError::too_many(&path, ports.len(), PORTS_MAX));
        return;
    }
    let mut names = std::collections::HashSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = tree::text(port, &["name"]);
        if !names.insert(name) {
            errors.push(FieldError::duplicate(&path.child("name"), name));
        }
        validation::protocol(port, &path, errors);
    }
}
