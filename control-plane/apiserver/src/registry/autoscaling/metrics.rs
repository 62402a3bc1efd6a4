//! What an autoscaler measures, and the rules for saying so.

use proto_api::names;

use super::check_reference;
use crate::field::FieldError;
use crate::validation::{self, Place};

/// Type of a metric and the field that describes it, in the order in which they are checked.
pub(super) const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];
const TYPES: &[&str] = &[
    "ContainerResource",
    "External",
    "Object",
    "Pods",
    "Resource",
];
const TARGET_TYPES: &[&str] = &["Utilization", "Value", "AverageValue"];

/// Checks one metric of a spec.
pub(super) fn check(metric: &Place<'_>, errors: &mut Vec<FieldError>) {
    let kind = metric.get("type");
    if kind.text().is_empty() {
        kind.required("must specify a metric source type", errors);
    }
    if !TYPES.contains(&kind.text()) {
        errors.push(FieldError::not_supported(&kind.path, kind.text(), TYPES));
    }
    let present: Vec<&str> = SOURCES
        .iter()
        .map(|(_, field)| *field)
        .filter(|field| metric.get(field).is_present())
        .collect();
    if let Some(first) = present.first() {
        check_source(first, &metric.get(first), errors);
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind.text());
    let Some((_, expected)) = expected else {
        return;
    };
    if !present.contains(expected) {
        let detail = "must populate information for the given metric source";
        metric.get(expected).required(detail, errors);
    }
    if present.len() != 1 {
        for other in present.iter().filter(|field| *field != expected) {
            metric
                .get(other)
                .forbidden("must populate the given metric source only", errors);
        }
    }
}

fn check_source(field: &str, source: &Place<'_>, errors: &mut Vec<FieldError>) {
    let target = source.get("target");
    match field {
        "object" => {
            check_reference(&source.get("describedObject"), errors);
            check_identifier(source, errors);
        }
        "external" | "pods" => check_identifier(source, errors),
        _ => need(&source.get("name"), "must specify a resource name", errors),
    }
    if field == "containerResource" {
        let container = source.get("container");
        need(&container, "must specify a container", errors);
        if !container.text().is_empty() {
            container.named(names::dns_label, errors);
        }
    }
    check_target(&target, errors);
    let average = target.get("averageValue");
    let (whole, percent) = (target.get("value"), target.get("averageUtilization"));
    match field {
        "object" if !whole.is_present() && !average.is_present() => {
            average.required("must set either a target value or averageValue", errors);
        }
        "external" if !whole.is_present() && !average.is_present() => average.required(
            "must set either a target value for metric or a per-pod target",
            errors,
        ),
        "external" if whole.is_present() && average.is_present() => whole.forbidden(
            "may not set both a target value for metric and a per-pod target",
            errors,
        ),
        "pods" if !average.is_present() => {
            average.required("must specify a positive target averageValue", errors);
        }
        "resource" | "containerResource" => match (percent.is_present(), average.is_present()) {
            (false, false) => percent.required(
                "must set either a target raw value or a target utilization",
                errors,
            ),
            (true, true) => average.forbidden(
                "may not set both a target raw value and a target utilization",
                errors,
            ),
            _ => {}
        },
        _ => {}
    }
}

fn need(field: &Place<'_>, detail: &str, errors: &mut Vec<FieldError>) {
    if field.text().is_empty() {
        field.required(detail, errors);
    }
}

fn check_identifier(source: &Place<'_>, errors: &mut Vec<FieldError>) {
    let name = source.get("metric").get("name");
    need(&name, "must specify a metric name", errors);
    name.named(names::path_segment, errors);
}

fn check_target(target: &Place<'_>, errors: &mut Vec<FieldError>) {
    let kind = target.get("type");
    need(&kind, "must specify a metric target type", errors);
    if !TARGET_TYPES.contains(&kind.text()) {
        let detail = "must be either Utilization, Value, or AverageValue";
        errors.push(FieldError::invalid(&kind.path, kind.text(), detail));
    }
    for field in ["value", "averageValue"] {
        let amount = target.get(field);
        if amount.is_present()
            && validation::amount(amount.value).is_none_or(|amount| amount.nano() <= 0)
        {
            amount.invalid("must be positive", errors);
        }
    }
    let percent = target.get("averageUtilization");
    if percent.int().is_some_and(|percent| percent < 1) {
        percent.invalid("must be greater than 0", errors);
    }
}
