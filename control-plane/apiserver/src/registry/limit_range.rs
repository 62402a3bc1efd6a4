//! LimitRange: what one pod, container or claim of a namespace may ask for.

use std::collections::BTreeSet;

use jiff::Timestamp;
use proto_api::names;
use proto_api::quantity::Amount;
use serde_json::{Value, json};

use super::strategy::Strategy;
use crate::field::FieldError;
use crate::tables::{Column, NAME, Table, column};
use crate::tree;
use crate::validation::{
    Errors, Place, amount, container_resource_name, is_overcommittable, quantity_value,
    resource_name,
};

#[derive(Debug)]
pub(super) struct LimitRange;

const TYPES: &[&str] = &["Container", "PersistentVolumeClaim", "Pod"];
const FIELDS: &[&str] = &[
    "max",
    "min",
    "default",
    "defaultRequest",
    "maxLimitRequestRatio",
];

const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Created At",
        "date",
        "CreationTimestamp is a timestamp representing the server time when this object was created.",
    ),
];

pub(super) static TABLE: Table = Table {
    columns: COLUMNS,
    row,
};

fn row(object: &Value, _now: Timestamp) -> Vec<Value> {
    vec![
        json!(tree::text(object, &["metadata", "name"])),
        json!(tree::text(object, &["metadata", "creationTimestamp"])),
    ]
}

impl Strategy for LimitRange {
    fn default(&self, object: &mut Value) {
        let spec = tree::object_mut(object, "spec");
        for limit in tree::list_mut(spec, "limits") {
            if limit["type"] == "Container" {
                default_limits(limit);
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut seen = BTreeSet::new();
        for limit in Place::root(object, "spec").get("limits").items() {
            let kind = limit.get("type");
            kind.named(names::qualified_name, &mut errors);
            if !kind.text().contains('/') && !TYPES.contains(&kind.text()) {
                let detail = "must be a standard limit type or fully qualified";
                kind.invalid(detail, &mut errors);
            }
            if !seen.insert(kind.text()) {
                kind.duplicate(&mut errors);
            }
            validate_limit(&limit, kind.text(), &mut errors);
        }
        errors
    }
}

/// Limits that nobody set follow from those that somebody did.
fn default_limits(limit: &mut Value) {
    for (field, sources) in [
        ("default", &["max"][..]),
        ("defaultRequest", &["default", "min"][..]),
    ] {
        for source in sources {
            let from = tree::at(limit, &[source]).clone();
            for (name, value) in tree::entries(&from, &[]) {
                tree::default(tree::object_mut(limit, field), name, value.clone());
            }
        }
    }
}

fn validate_limit(limit: &Place<'_>, kind: &str, errors: &mut Errors) {
    let mut resources = BTreeSet::new();
    for field in FIELDS {
        let amounts = limit.get(field);
        if kind == "Pod" && field.starts_with("default") && !amounts.is_unset() {
            amounts.forbidden("may not be specified when `type` is 'Pod'", errors);
            continue;
        }
        for (name, value) in amounts.entries() {
            if matches!(kind, "Pod" | "Container") {
                container_resource_name(name, &value, errors);
            } else {
                resource_name(name, &value, errors);
            }
            quantity_value(name, &value, errors);
            resources.insert(name);
        }
    }
    let storage = |field: &str| limit.get(field).get("storage").is_present();
    if kind == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
        let detail =
            "either minimum or maximum storage value is required, but neither was provided";
        limit.get("limits").required(detail, errors);
    }
    for resource in resources {
        compare(limit, resource, errors);
    }
}

/// Of one resource: min <= default request <= default <= max, and the ratio fits.
fn compare(limit: &Place<'_>, resource: &str, errors: &mut Errors) {
    let read = |field: &str| amount(tree::at(limit.value, &[field, resource]));
    let rules = [
        ("min", "min", "min value", "max", "max value"),
        (
            "defaultRequest",
            "min",
            "min value",
            "defaultRequest",
            "default request value",
        ),
        (
            "defaultRequest",
            "defaultRequest",
            "default request value",
            "max",
            "max value",
        ),
        (
            "defaultRequest",
            "defaultRequest",
            "default request value",
            "default",
            "default limit value",
        ),
        ("default", "min", "min value", "default", "default value"),
        ("default", "default", "default value", "max", "max value"),
    ];
    for (at, low, low_name, high, high_name) in rules {
        if let (Some(less), Some(more)) = (read(low), read(high))
            && less > more
        {
            let detail = format!("{low_name} {less} is greater than {high_name} {more}");
            let value = match (at, low) {
                ("default", "default") | ("defaultRequest", "min") => more,
                _ => less,
            };
            let path = limit.path.child(at).key(resource);
            errors.push(FieldError::invalid(&path, value.to_string(), detail));
        }
    }
    if let Some(ratio) = read("maxLimitRequestRatio") {
        validate_ratio(limit, resource, ratio, errors);
    }
    if let (Some(most), Some(usual)) = (read("default"), read("defaultRequest"))
        && !is_overcommittable(resource)
        && most != usual
    {
        let path = limit.path.child("defaultRequest").key(resource);
        let detail = format!(
            "default value {most} must equal to defaultRequest value {usual} in {resource}"
        );
        errors.push(FieldError::invalid(&path, usual.to_string(), detail));
    }
}

fn validate_ratio(limit: &Place<'_>, resource: &str, ratio: Amount, errors: &mut Errors) {
    let path = limit.path.child("maxLimitRequestRatio").key(resource);
    let mut refuse = |detail: String| {
        errors.push(FieldError::invalid(&path, ratio.to_string(), detail));
    };
    if ratio.nano() < 1_000_000_000 {
        refuse(format!("ratio {ratio} is less than 1"));
    }
    let read = |field: &str| amount(tree::at(limit.value, &[field, resource]));
    let (Some(least), Some(most)) = (read("min"), read("max")) else {
        return;
    };
    let possible = quotient(most, least);
    if quotient(
        ratio,
        Amount::from_units(1, proto_api::quantity::Format::DecimalSi),
    ) > possible
    {
        refuse(format!(
            "ratio {ratio} is greater than max/min = {possible:.6}"
        ));
    }
}

/// `a / b` for people; amounts are far below what a float cannot tell apart.
#[expect(
    clippy::cast_precision_loss,
    reason = "the quotient is printed with six digits"
)]
fn quotient(a: Amount, b: Amount) -> f64 {
    a.nano() as f64 / b.nano() as f64
}
