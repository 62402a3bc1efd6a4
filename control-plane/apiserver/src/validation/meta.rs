//! `metadata`: names, labels, annotations, owners, and what never changes.

use proto_api::names;
use proto_api::schema::Gvk;
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
    let place = path.child("annotations");
    annotations(tree::at(meta, &["annotations"]), &place, &mut errors);
    check_owners(meta, &path.child("ownerReferences"), &mut errors);
    check_finalizers(kind, meta, &path.child("finalizers"), &mut errors);
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
    let base = tree::text(meta, &["generateName"]);
    if !base.is_empty() {
        // What is generated follows a dash at the end.
        let masked = base.strip_suffix('-').map(|start| format!("{start}a"));
        let problems = check(masked.as_deref().unwrap_or(base));
        sentences(base, &path.child("generateName"), problems, errors);
    }
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

/// Checks annotations.
pub(crate) fn annotations(annotations: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let mut size = 0;
    for (key, value) in tree::entries(annotations, &[]) {
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
    let mut controller: Option<String> = None;
    for owner in tree::list(meta, &["ownerReferences"]) {
        check_owner(owner, path, errors);
        if !tree::flag(owner, &["controller"]) {
            continue;
        }
        let text = |name: &str| tree::text(owner, &[name]);
        let name = format!("{}/{}", text("kind"), text("name"));
        match &controller {
            None => controller = Some(name),
            Some(first) => {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in \
                     references for {first} and {name}"
                );
                let owners = meta["ownerReferences"].clone();
                errors.push(FieldError::invalid(path, owners, detail));
            }
        }
    }
}

fn check_owner(owner: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let text = |name: &str| tree::text(owner, &[name]);
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let gvk = Gvk::parse(api_version, kind);
    if gvk.version.is_empty() {
        let detail = "version must not be empty";
        errors.push(FieldError::invalid(
            &path.child("apiVersion"),
            api_version,
            detail,
        ));
    }
    for field in ["kind", "name", "uid"] {
        if text(field).is_empty() {
            errors.push(FieldError::invalid(
                &path.child(field),
                "",
                "must not be empty",
            ));
        }
    }
    if (gvk.group, gvk.version, gvk.kind) == ("", "v1", "Event") {
        let detail = "/v1, Kind=Event is disallowed from being an owner";
        errors.push(FieldError::invalid(path, owner.clone(), detail));
    }
}

/// Finalizers that need no domain.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", ORPHAN, FOREGROUND];
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

fn check_finalizers(kind: &Kind, meta: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let finalizers = tree::list(meta, &["finalizers"]);
    let texts = || finalizers.iter().filter_map(Value::as_str);
    for text in texts() {
        sentences(text, path, names::qualified_name(text), errors);
    }
    if texts().any(|text| text == ORPHAN) && texts().any(|text| text == FOREGROUND) {
        let detail = format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set");
        errors.push(FieldError::invalid(path, finalizers.to_vec(), detail));
    }
    if kind.custom.is_some() {
        return;
    }
    for (i, text) in texts().enumerate() {
        if !text.contains('/') && !STANDARD_FINALIZERS.contains(&text) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(&path.index(i), text, detail));
        }
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
