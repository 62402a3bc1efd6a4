//! `metadata`: names, labels, annotations, owners, and what never changes.

use proto_api::names;
use serde_json::Value;

use super::{IMMUTABLE, labels, sentences};
use crate::field::{FieldError, Path};
use crate::registry::{Kind, NameRule};
use crate::tree;

/// Total size of annotations.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

/// Checks the metadata of a new or changed object.
pub(crate) fn object_meta(kind: &Kind, object: &Value) -> Vec<FieldError> {
    let path = Path::root("metadata");
    let meta = tree::at(object, &["metadata"]);
    let mut errors = Vec::new();
    check_names(kind, meta, &path, &mut errors);
    labels(
        tree::at(meta, &["labels"]),
        &path.child("labels"),
        &mut errors,
    );
    check_annotations(meta, &path.child("annotations"), &mut errors);
    check_owners(meta, &path.child("ownerReferences"), &mut errors);
    check_finalizers(meta, &path.child("finalizers"), &mut errors);
    errors
}

fn check_names(kind: &Kind, meta: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let check: fn(&str) -> Vec<String> = match kind.strategy.name_rule() {
        NameRule::Subdomain => names::dns_subdomain,
        NameRule::Label => names::dns_label,
        NameRule::Label1035 => names::dns_1035_label,
        NameRule::PathSegment => names::path_segment,
        NameRule::Ip => super::canonical_ip,
    };
    let name = tree::text(meta, &["name"]);
    if name.is_empty() {
        let detail = "name or generateName is required";
        errors.push(FieldError::required(&path.child("name"), detail));
    } else {
        sentences(name, &path.child("name"), check(name), errors);
    }
    let namespace = tree::text(meta, &["namespace"]);
    match (kind.namespaced(), namespace.is_empty()) {
        (true, true) => errors.push(FieldError::required(&path.child("namespace"), "")),
        (true, false) => {
            sentences(
                namespace,
                &path.child("namespace"),
                names::dns_label(namespace),
                errors,
            );
        }
        (false, false) => {
            let detail = "not allowed on this type";
            errors.push(FieldError::forbidden(&path.child("namespace"), detail));
        }
        (false, true) => {}
    }
}

fn check_annotations(meta: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let mut size = 0;
    for (key, value) in tree::entries(meta, &["annotations"]) {
        sentences(
            key,
            path,
            names::qualified_name(&key.to_lowercase()),
            errors,
        );
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_BYTES_MAX {
        errors.push(FieldError::too_long(path, ANNOTATIONS_BYTES_MAX));
    }
}

fn check_owners(meta: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let mut controllers = 0;
    for (i, owner) in tree::list(meta, &["ownerReferences"]).iter().enumerate() {
        let place = path.index(i);
        for field in ["apiVersion", "kind", "name", "uid"] {
            if tree::text(owner, &[field]).is_empty() {
                let detail = format!("{field} must not be empty");
                errors.push(FieldError::invalid(&place.child(field), "", detail));
            }
        }
        controllers += usize::from(tree::flag(owner, &["controller"]));
    }
    if controllers > 1 {
        let detail = "Only one reference can have Controller set to true.";
        errors.push(FieldError::invalid(
            path,
            meta["ownerReferences"].clone(),
            detail,
        ));
    }
}

fn check_finalizers(meta: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for (i, finalizer) in tree::list(meta, &["finalizers"]).iter().enumerate() {
        let text = finalizer.as_str().unwrap_or_default();
        sentences(text, &path.index(i), names::qualified_name(text), errors);
    }
}

/// Checks what a write may not change of the metadata.
pub(crate) fn object_meta_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let path = Path::root("metadata");
    let mut errors = Vec::new();
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
    ] {
        let (now, before) = (
            tree::at(new, &["metadata", field]),
            tree::at(old, &["metadata", field]),
        );
        if !tree::same(now, before) {
            errors.push(FieldError::invalid(
                &path.child(field),
                now.clone(),
                IMMUTABLE,
            ));
        }
    }
    if !tree::is_unset(tree::at(old, &["metadata", "deletionTimestamp"])) {
        let before = tree::list(old, &["metadata", "finalizers"]);
        let added: Vec<&Value> = tree::list(new, &["metadata", "finalizers"])
            .iter()
            .filter(|finalizer| !before.contains(finalizer))
            .collect();
        if !added.is_empty() {
            let names: Vec<&str> = added.iter().filter_map(|f| f.as_str()).collect();
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new \
                 finalizers []string{{{}}}",
                names
                    .iter()
                    .map(|n| format!("\"{n}\""))
                    .collect::<Vec<_>>()
                    .join(", ")
            );
            errors.push(FieldError::forbidden(&path.child("finalizers"), detail));
        }
    }
    errors
}
