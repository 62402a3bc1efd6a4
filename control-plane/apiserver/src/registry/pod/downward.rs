//! Fields and resources of a pod that its containers may be told, as environment or as files.

use proto_api::names;

use crate::field::{FieldError, Path};
use crate::validation::{Errors, Place, amount};

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const FILE_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];
/// Every field that a reference may name, before asking where it is used.
const KNOWN_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const DIVISORS: &[&str] = &[
    "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
];

/// Checks `fieldRef` of an environment variable.
pub(super) fn env_field(reference: &Place<'_>, errors: &mut Errors) {
    field(reference, ENV_FIELDS, errors);
}

/// Checks `resourceFieldRef` of an environment variable.
pub(super) fn env_resource(reference: &Place<'_>, errors: &mut Errors) {
    resource(reference, errors);
}

/// Checks one file of a downward API volume. Upstream reports its fields at the volume itself.
pub(super) fn file(item: &Place<'_>, at: &Path, errors: &mut Errors) {
    let item = Place::new(item.value, at.clone());
    let path = item.get("path");
    path.required_text(errors);
    path.non_reserved_path(errors);
    let (field_ref, resource_ref) = (item.get("fieldRef"), item.get("resourceFieldRef"));
    match (field_ref.is_present(), resource_ref.is_present()) {
        (true, both) => {
            field(&field_ref, FILE_FIELDS, errors);
            if both {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(FieldError::invalid(at, "resource", detail));
            }
        }
        (false, true) => {
            if resource_ref.get("containerName").required_text(errors) {
                resource(&resource_ref, errors);
            }
        }
        (false, false) => {
            item.required("one of fieldRef and resourceFieldRef is required", errors);
        }
    }
    let mode = item.get("mode");
    if mode.int().is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        mode.invalid(detail, errors);
    }
}

fn field(reference: &Place<'_>, allowed: &[&str], errors: &mut Errors) {
    if !reference.get("apiVersion").required_text(errors) {
        return;
    }
    let path = reference.get("fieldPath");
    if !path.required_text(errors) {
        return;
    }
    let text = path.text();
    let subscript = text
        .strip_suffix("']")
        .and_then(|text| text.split_once("['"));
    if let Some((map, key)) = subscript {
        let sentences = match map {
            "metadata.annotations" => names::qualified_name(&key.to_lowercase()),
            "metadata.labels" => names::qualified_name(key),
            _ => {
                let detail = "does not support subscript";
                errors.push(FieldError::invalid(&reference.path, map, detail));
                return;
            }
        };
        crate::validation::sentences(key, &reference.path, sentences, errors);
    } else if !KNOWN_FIELDS.contains(&text) {
        let detail = format!("error converting fieldPath: field label not supported: {text}");
        path.invalid(detail, errors);
    } else {
        path.one_of(allowed, errors);
    }
}

fn resource(reference: &Place<'_>, errors: &mut Errors) {
    let name = reference.get("resource");
    if !name.required_text(errors) {
        return;
    }
    let text = name.text();
    let pages = ["requests.hugepages-", "limits.hugepages-"]
        .iter()
        .any(|prefix| text.starts_with(prefix));
    if !pages {
        name.one_of(RESOURCES, errors);
    }
    let divisor = reference.get("divisor");
    let Some(amount) = amount(divisor.value).filter(|amount| amount.nano() != 0) else {
        return;
    };
    let printed = amount.to_string();
    let (cpu, what) = match text.split_once('.') {
        Some((_, "cpu")) => (true, ""),
        Some((_, "memory")) => (false, "memory"),
        Some((_, "ephemeral-storage")) => (false, "local ephemeral storage"),
        _ if pages => (false, "hugepages"),
        _ => return,
    };
    let detail = if cpu {
        if matches!(printed.as_str(), "1" | "1m") {
            return;
        }
        "only divisor's values 1m and 1 are supported with the cpu resource".to_owned()
    } else {
        if DIVISORS.contains(&printed.as_str()) {
            return;
        }
        format!(
            "only divisor's values {} are supported with the {what} resource",
            DIVISORS.join(", ")
        )
    };
    errors.push(FieldError::invalid(&divisor.path, text, detail));
}
