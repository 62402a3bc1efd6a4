//! PersistentVolume: storage that the cluster has.

use jiff::Timestamp;
use proto_api::names;
use serde_json::{Value, json};

use super::pod::{VolumeOwner, default_legacy, node_selector, validate_source};
use super::strategy::{Prepare, Strategy, keep_all_but_status};
use super::volume_claim::storage_class;
use crate::field::{FieldError, Path};
use crate::tables::{AGE, Column, NAME, Table, age, column, wide};
use crate::tree;
use crate::validation::{Errors, IMMUTABLE, Place, amount, quantity_value};

#[derive(Debug)]
pub(super) struct Volume;

pub(super) const ACCESS_MODES: &str =
    "accessModes contains the desired access modes the volume should have.";
const KNOWN_MODES: &[&str] = &[
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];
/// Fields of the spec that are no source.
const NO_SOURCE: &[&str] = &[
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Capacity",
        "string",
        "capacity is the description of the persistent volume's resources and capacity.",
    ),
    column("Access Modes", "string", ACCESS_MODES),
    column(
        "Reclaim Policy",
        "string",
        "persistentVolumeReclaimPolicy defines what happens to a persistent volume when released from its claim.",
    ),
    column(
        "Status",
        "string",
        "phase indicates if a volume is available, bound to a claim, or released by a claim.",
    ),
    column(
        "Claim",
        "string",
        "claimRef is part of a bi-directional binding between PersistentVolume and PersistentVolumeClaim.",
    ),
    column(
        "StorageClass",
        "string",
        "Name of StorageClass to which this persistent volume belongs.",
    ),
    column(
        "VolumeAttributesClass",
        "string",
        "Name of VolumeAttributesClass to which this persistent volume belongs.",
    ),
    column(
        "Reason",
        "string",
        "reason is a brief CamelCase string that describes any failure.",
    ),
    AGE,
    wide(
        "VolumeMode",
        "string",
        "volumeMode defines if a volume is intended to be used with a formatted filesystem or to remain in raw block state.",
    ),
];

pub(super) static TABLE: Table = Table {
    columns: COLUMNS,
    row,
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let claim = tree::at(object, &["spec", "claimRef"]);
    let claim = if claim.is_object() {
        let place = tree::text(claim, &["namespace"]);
        format!("{place}/{}", tree::text(claim, &["name"]))
    } else {
        String::new()
    };
    let spec = |field| tree::text(object, &["spec", field]);
    vec![
        json!(tree::text(object, &["metadata", "name"])),
        json!(tree::text(object, &["spec", "capacity", "storage"])),
        json!(access_modes_text(tree::at(
            object,
            &["spec", "accessModes"]
        ))),
        json!(spec("persistentVolumeReclaimPolicy")),
        json!(state(object)),
        json!(claim),
        json!(storage_class(object)),
        json!(class_text(object)),
        json!(tree::text(object, &["status", "reason"])),
        age(object, now),
        json!(spec("volumeMode")),
    ]
}

/// The phase of a volume or claim as tables show it.
pub(super) fn state(object: &Value) -> &str {
    if tree::at(object, &["metadata", "deletionTimestamp"]).is_string() {
        "Terminating"
    } else {
        tree::text(object, &["status", "phase"])
    }
}

/// The class of attributes as tables show it.
pub(super) fn class_text(object: &Value) -> &str {
    match tree::text(object, &["spec", "volumeAttributesClassName"]) {
        "" => "<unset>",
        class => class,
    }
}

/// Access modes in short, in upstream's order.
pub(super) fn access_modes_text(modes: &Value) -> String {
    const SHORT: [(&str, &str); 4] = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let has = |mode: &str| tree::list(modes, &[]).iter().any(|one| one == mode);
    let texts: Vec<&str> = SHORT
        .iter()
        .filter(|(mode, _)| has(mode))
        .map(|(_, text)| *text)
        .collect();
    texts.join(",")
}

/// Checks access modes.
pub(super) fn access_modes(modes: &Place<'_>, errors: &mut Errors) {
    let (mut single, mut other) = (false, false);
    for mode in modes.items() {
        let known = KNOWN_MODES.contains(&mode.text());
        if !known {
            let error = FieldError::not_supported(&modes.path, mode.text(), KNOWN_MODES);
            errors.push(error);
        }
        single |= mode.text() == "ReadWriteOncePod";
        other |= known && mode.text() != "ReadWriteOncePod";
    }
    if single && other {
        let detail = "may not use ReadWriteOncePod with other access modes";
        modes.forbidden(detail, errors);
    }
}

impl Strategy for Volume {
    fn has_status(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let spec = tree::object_mut(object, "spec");
        tree::default_text(spec, "persistentVolumeReclaimPolicy", "Retain");
        tree::default_text(spec, "volumeMode", "Filesystem");
        if let Some(Value::Object(path)) = spec.get_mut("hostPath") {
            tree::default(path, "type", "");
        }
        default_legacy(spec);
        let status = tree::object_mut(object, "status");
        tree::default_text(status, "phase", "Pending");
    }

    fn prepare_create(&self, object: &mut Value) {
        tree::as_object(object).insert("status".to_owned(), json!({"phase": "Pending"}));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, write: Prepare) {
        match write {
            Prepare::Main => tree::carry(new, old, "status"),
            Prepare::Status | Prepare::Approval => keep_all_but_status(new, old),
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validate_spec(&Place::root(object, "spec"), &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, write: Prepare) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if write == Prepare::Status {
            return errors;
        }
        let (now, before) = (Place::root(new, "spec"), Place::root(old, "spec"));
        let sources = |spec: &Place<'_>| -> Vec<(String, Value)> {
            let mut all: Vec<(String, Value)> = tree::entries(spec.value, &[])
                .filter(|(name, value)| !NO_SOURCE.contains(&name.as_str()) && !value.is_null())
                .map(|(name, value)| (name.clone(), settled(value, &before.get(name))))
                .collect();
            all.sort_by(|a, b| a.0.cmp(&b.0));
            all
        };
        if sources(&now) != sources(&before) {
            let path = now.path.child("persistentvolumesource");
            let detail = "spec.persistentvolumesource is immutable after creation";
            errors.push(FieldError::forbidden(&path, detail));
        }
        for (field, detail) in [
            ("volumeMode", IMMUTABLE),
            (
                "nodeAffinity",
                "field is immutable, except for updating from beta label to GA",
            ),
        ] {
            let old = before.get(field);
            let free = field == "nodeAffinity" && !old.is_present();
            if !free && !tree::same(now.get(field).value, old.value) {
                let value = now.get(field).value.clone();
                errors.push(FieldError::invalid(&Path::root(field), value, detail));
            }
        }
        errors
    }
}

/// A source as far as it is settled: the secret for expansion may be added later.
fn settled(source: &Value, before: &Place<'_>) -> Value {
    let mut source = source.clone();
    if !before.get("controllerExpandSecretRef").is_present()
        && let Some(map) = source.as_object_mut()
    {
        map.shift_remove("controllerExpandSecretRef");
    }
    source
}

fn validate_spec(spec: &Place<'_>, errors: &mut Errors) {
    let modes = spec.get("accessModes");
    if modes.is_unset() {
        modes.required("", errors);
    }
    access_modes(&modes, errors);
    let capacity = spec.get("capacity");
    if capacity.is_unset() {
        capacity.required("", errors);
    } else if !capacity.get("storage").is_present() || capacity.len() > 1 {
        let text = capacity.value.to_string();
        let error = FieldError::not_supported(&capacity.path, &text, &["storage"]);
        errors.push(error);
    }
    for (name, value) in capacity.entries() {
        quantity_value(name, &value, errors);
        if amount(value.value).is_some_and(|size| size.nano() <= 0) {
            value.invalid("must be greater than zero", errors);
        }
    }
    let policy = spec.get("persistentVolumeReclaimPolicy");
    policy.one_of(&["Delete", "Recycle", "Retain"], errors);
    let affinity = spec.get("nodeAffinity");
    if affinity.is_present() {
        let required = affinity.get("required");
        if required.is_present() {
            node_selector(&required, errors);
        } else {
            required.required("must specify required node constraints", errors);
        }
    }
    validate_sources(spec, errors);
    let root = spec.get("hostPath").get("path").text() == "/";
    if root && policy.text() == "Recycle" {
        policy.forbidden("may not be 'recycle' for a hostPath mount of '/'", errors);
    }
    spec.get("storageClassName")
        .named_if_set(names::dns_subdomain, errors);
    spec.get("volumeMode")
        .one_of(&["Block", "Filesystem"], errors);
    let class = spec.get("volumeAttributesClassName");
    if class.is_present() {
        if class.text().is_empty() {
            class.required("an empty string is disallowed", errors);
        } else {
            class.named(names::dns_subdomain, errors);
        }
        if !spec.get("csi").is_present() {
            let detail = "has to be specified when using volumeAttributesClassName";
            spec.get("csi").required(detail, errors);
        }
    }
}

fn validate_sources(spec: &Place<'_>, errors: &mut Errors) {
    let mut found = false;
    for (name, value) in tree::entries(spec.value, &[]) {
        if NO_SOURCE.contains(&name.as_str()) || value.is_null() {
            continue;
        }
        let source = spec.get(name);
        if found {
            source.forbidden("may not specify more than 1 volume type", errors);
        } else {
            validate_source(name, &source, VolumeOwner::PersistentVolume, errors);
        }
        if name == "local" && !spec.get("nodeAffinity").is_present() {
            let detail = "Local volume requires node affinity";
            spec.get("nodeAffinity").required(detail, errors);
        }
        found = true;
    }
    if !found {
        spec.required("must specify a volume type", errors);
    }
}
