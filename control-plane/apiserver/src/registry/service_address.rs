//! ServiceCIDR and IPAddress: the ranges that service addresses come from, and who has one.

use std::net::IpAddr;

use jiff::Timestamp;
use proto_api::names;
use serde_json::{Value, json};

use super::strategy::{NameRule, Prepare, Strategy};
use crate::alloc::Family;
use crate::field::FieldError;
use crate::tables::{self, AGE, NAME, Table, age, column};
use crate::tree;
use crate::validation::{self, Cidr, Place};

/// Who makes the addresses of services.
pub(crate) const ALLOCATOR: &str = "ipallocator.k8s.io";
const FAMILY_LABEL: &str = "ipaddress.kubernetes.io/ip-family";
const ALLOCATOR_LABEL: &str = "ipaddress.kubernetes.io/managed-by";

/// The object that says that a service has `address`, without what every object has.
pub(crate) fn of_service(address: IpAddr, namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": address.to_string(),
            "labels": {FAMILY_LABEL: Family::of(address).name(), ALLOCATOR_LABEL: ALLOCATOR},
        },
        "spec": {"parentRef": {"resource": "services",
            "namespace": namespace, "name": name}},
    })
}

/// Whether the address is a service's, made by an API server.
pub(crate) fn is_of_service(address: &Value) -> bool {
    let parent = tree::at(address, &["spec", "parentRef"]);
    tree::text(address, &["metadata", "labels", ALLOCATOR_LABEL]) == ALLOCATOR
        && tree::text(parent, &["resource"]) == "services"
        && tree::text(parent, &["group"]).is_empty()
}

#[derive(Debug)]
pub(super) struct IpAddress;

#[derive(Debug)]
pub(super) struct ServiceRange;

pub(super) static ADDRESS_TABLE: Table = Table {
    columns: &[
        NAME,
        column("ParentRef", "string", "Who has the address."),
        AGE,
    ],
    row: address_row,
};

pub(super) static RANGE_TABLE: Table = Table {
    columns: &[
        NAME,
        column("CIDRs", "string", "The ranges, one a family."),
        AGE,
    ],
    row: range_row,
};

fn address_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let parent = tree::at(object, &["spec", "parentRef"]);
    let mut resource = tree::text(parent, &["resource"]).to_owned();
    let group = tree::text(parent, &["group"]);
    if !group.is_empty() {
        resource = format!("{resource}.{group}");
    }
    let parts = [
        resource.as_str(),
        tree::text(parent, &["namespace"]),
        tree::text(parent, &["name"]),
    ];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let text = if parent.is_null() {
        "<none>".to_owned()
    } else {
        parts.join("/")
    };
    vec![tables::name(object), json!(text), age(object, now)]
}

fn range_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let ranges: Vec<&str> = tree::list(object, &["spec", "cidrs"])
        .iter()
        .filter_map(Value::as_str)
        .collect();
    vec![
        tables::name(object),
        json!(ranges.join(",")),
        age(object, now),
    ]
}

impl Strategy for IpAddress {
    fn name_rule(&self) -> NameRule {
        NameRule::Ip
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let parent = Place::root(object, "spec").get("parentRef");
        if !parent.is_present() {
            parent.required("", &mut errors);
            return errors;
        }
        let group = parent.get("group");
        if !group.text().is_empty() {
            group.named(names::dns_subdomain, &mut errors);
        }
        parent
            .get("resource")
            .required_named(names::path_segment, &mut errors);
        parent
            .get("name")
            .required_named(names::path_segment, &mut errors);
        parent
            .get("namespace")
            .named(names::path_segment, &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _write: Prepare) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validation::immutable(new, old, &["spec", "parentRef"], &mut errors);
        errors
    }
}

/// Whether two ranges are of different families.
fn is_dual(ranges: &[Value]) -> bool {
    let family = |range: &Value| {
        let range = Cidr::parse(range.as_str().unwrap_or_default());
        range.map(|range| range.address.is_ipv4())
    };
    match ranges {
        [first, second] => match (family(first), family(second)) {
            (Some(first), Some(second)) => first != second,
            _ => false,
        },
        _ => false,
    }
}

impl Strategy for ServiceRange {
    fn has_status(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = Place::root(object, "spec");
        let ranges = spec.get("cidrs");
        let whole = |detail| FieldError::invalid(&ranges.path, spec.value.clone(), detail);
        match ranges.len() {
            0 => ranges.required("at least one CIDR required", &mut errors),
            2 if !is_dual(tree::list(ranges.value, &[])) => errors.push(whole(
                "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
            )),
            1 | 2 => ranges.items().for_each(|range| range.canonical_cidr(&mut errors)),
            _ => errors.push(whole("may only hold up to 2 values")),
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _write: Prepare) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validation::immutable(new, old, &["spec", "cidrs"], &mut errors);
        errors
    }
}
