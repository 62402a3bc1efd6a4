//! Checks that several kinds share: metadata, names, ports, addresses, selectors.

mod address;
mod meta;
mod place;
mod resources;
mod selector;
mod shapes;

use std::net::IpAddr;

use proto_api::names;
use serde_json::Value;

pub(crate) use self::address::{Cidr, canonical_ip};
pub(crate) use self::meta::{annotations, object_meta, object_meta_update};
pub(crate) use self::place::{Errors, Place};
pub(crate) use self::resources::{
    amount, container_resource_name, is_hugepages, is_overcommittable, quantity_value,
    resource_name,
};
pub(crate) use self::selector::{label_selector, selects};
pub(crate) use self::shapes::int_or_percent;
use crate::field::{FieldError, Path};
use crate::tree;

/// Message of a field that must not change.
pub(crate) const IMMUTABLE: &str = "field is immutable";

/// Reports a change of the field at `path`.
pub(crate) fn immutable(new: &Value, old: &Value, path: &[&str], errors: &mut Vec<FieldError>) {
    let (now, before) = (tree::at(new, path), tree::at(old, path));
    if !tree::same(now, before) {
        let mut place = Path::root(path.first().copied().unwrap_or_default());
        for name in path.iter().skip(1) {
            place = place.child(name);
        }
        errors.push(FieldError::invalid(&place, now.clone(), IMMUTABLE));
    }
}

/// Adds one "Invalid value" for each of the name checks' sentences.
pub(crate) fn sentences(
    value: &str,
    path: &Path,
    sentences: Vec<String>,
    errors: &mut Vec<FieldError>,
) {
    errors.extend(
        sentences
            .into_iter()
            .map(|detail| FieldError::invalid(path, value, detail)),
    );
}

/// A key of a config map's or secret's data.
pub(crate) fn data_key(key: &str, path: &Path, errors: &mut Vec<FieldError>) {
    sentences(key, path, names::config_key(key), errors);
}

/// An address in its text form.
pub(crate) fn ip(text: &str, path: &Path, errors: &mut Vec<FieldError>) {
    if text.parse::<IpAddr>().is_err() {
        let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(FieldError::invalid(path, text, detail));
    }
}

/// A port number.
pub(crate) fn port_number(value: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let port = value.as_i64().unwrap_or_default();
    if !(1..=65_535).contains(&port) {
        let detail = "must be between 1 and 65535, inclusive";
        errors.push(FieldError::invalid(path, port, detail));
    }
}

/// The `protocol` of a port.
pub(crate) fn protocol(port: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    const KNOWN: &[&str] = &["SCTP", "TCP", "UDP"];
    let path = path.child("protocol");
    match tree::text(port, &["protocol"]) {
        "" => errors.push(FieldError::required(&path, "")),
        protocol if KNOWN.contains(&protocol) => {}
        protocol => errors.push(FieldError::not_supported(&path, protocol, KNOWN)),
    }
}

/// A number that must not be negative.
pub(crate) fn non_negative(value: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    if let Some(number) = value.as_i64()
        && number < 0
    {
        let detail = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(path, number, detail));
    }
}

/// Labels: every key a qualified name, every value a label value.
pub(crate) fn labels(value: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        sentences(key, path, names::qualified_name(key), errors);
        let text = value.as_str().unwrap_or_default();
        sentences(text, path, names::label_value(text), errors);
    }
}
