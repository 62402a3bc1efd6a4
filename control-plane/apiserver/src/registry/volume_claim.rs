//! PersistentVolumeClaim: storage that a pod asks for.

use jiff::Timestamp;
use proto_api::names;
use serde_json::{Value, json};

use super::strategy::{Prepare, Strategy, keep_all_but_status};
use super::volume::{ACCESS_MODES, access_modes, access_modes_text, class_text, state};
use crate::field::{FieldError, Path};
use crate::tables::{AGE, Column, NAME, Table, age, column, wide};
use crate::tree::{self, Object};
use crate::validation::{Errors, Place, amount, label_selector, quantity_value};

#[derive(Debug)]
pub(super) struct VolumeClaim;

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const IMMUTABLE: &str = "spec is immutable after creation except resources.requests and \
    volumeAttributesClassName for bound claims";

const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Status",
        "string",
        "phase represents the current phase of PersistentVolumeClaim.",
    ),
    column(
        "Volume",
        "string",
        "volumeName is the binding reference to the PersistentVolume backing this claim.",
    ),
    column(
        "Capacity",
        "string",
        "capacity represents the actual resources of the underlying volume.",
    ),
    column("Access Modes", "string", ACCESS_MODES),
    column(
        "StorageClass",
        "string",
        "storageClassName is the name of the StorageClass required by the claim. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#class-1",
    ),
    column(
        "VolumeAttributesClass",
        "string",
        "volumeAttributesClassName may be used to set the VolumeAttributesClass used by this claim.",
    ),
    AGE,
    wide(
        "VolumeMode",
        "string",
        "volumeMode defines what type of volume is required by the claim. Value of Filesystem is implied when not included in claim spec.",
    ),
];

pub(super) static TABLE: Table = Table {
    columns: COLUMNS,
    row,
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let bound = tree::text(object, &["spec", "volumeName"]);
    let (capacity, modes) = if bound.is_empty() {
        (String::new(), String::new())
    } else {
        let size = tree::text(object, &["status", "capacity", "storage"]);
        let modes = tree::at(object, &["status", "accessModes"]);
        (size.to_owned(), access_modes_text(modes))
    };
    vec![
        json!(tree::text(object, &["metadata", "name"])),
        json!(state(object)),
        json!(bound),
        json!(capacity),
        json!(modes),
        json!(storage_class(object)),
        json!(class_text(object)),
        age(object, now),
        json!(tree::text(object, &["spec", "volumeMode"])),
    ]
}

/// The class that a claim or a volume names, in its old or its new form.
pub(super) fn storage_class(object: &Value) -> &str {
    let old = tree::text(object, &["metadata", "annotations", CLASS_ANNOTATION]);
    if old.is_empty() {
        tree::text(object, &["spec", "storageClassName"])
    } else {
        old
    }
}

/// Fills what the client left out of a claim's spec.
pub(super) fn default_spec(spec: &mut Object) {
    tree::default_text(spec, "volumeMode", "Filesystem");
    // Both forms of the source are one field, as far as the old one can tell.
    let (old, new) = (spec.get("dataSource"), spec.get("dataSourceRef"));
    match (old.cloned(), new.cloned()) {
        (Some(source), None) => {
            spec.insert("dataSourceRef".to_owned(), source);
        }
        (None, Some(source)) if tree::text(&source, &["namespace"]).is_empty() => {
            spec.insert("dataSource".to_owned(), source);
        }
        _ => {}
    }
}

impl Strategy for VolumeClaim {
    fn has_status(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        default_spec(tree::object_mut(object, "spec"));
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
        match write {
            Prepare::Status => Vec::new(),
            Prepare::Main | Prepare::Approval => validate_change(new, old),
        }
    }
}

/// Checks the spec of a claim, or of a template of claims.
pub(super) fn validate_spec(spec: &Place<'_>, errors: &mut Errors) {
    let modes = spec.get("accessModes");
    if modes.is_unset() {
        modes.required("at least 1 access mode is required", errors);
    }
    let selector = spec.get("selector");
    label_selector(selector.value, &selector.path, errors);
    access_modes(&modes, errors);
    let storage = tree::at(spec.value, &["resources", "requests", "storage"]);
    let place = Place::new(storage, spec.path.child("resources").key("storage"));
    if storage.is_null() {
        place.required("", errors);
    } else if amount(storage).is_some_and(|size| size.nano() <= 0) {
        place.invalid("must be greater than zero", errors);
    } else {
        quantity_value("storage", &place, errors);
    }
    for class in ["storageClassName", "volumeAttributesClassName"] {
        spec.get(class).named_if_set(names::dns_subdomain, errors);
    }
    spec.get("volumeMode")
        .one_of(&["Block", "Filesystem"], errors);
    let (old, new) = (spec.get("dataSource"), spec.get("dataSourceRef"));
    for source in [&old, &new] {
        if source.is_present() {
            data_source(source, errors);
        }
    }
    if !old.is_present() || !new.is_present() {
        return;
    }
    let detail = if !new.get("namespace").text().is_empty() {
        "may not be specified when dataSourceRef.namespace is specified"
    } else if ["apiGroup", "kind", "name"]
        .iter()
        .any(|field| old.get(field).value != new.get(field).value)
    {
        "must match dataSourceRef"
    } else {
        return;
    };
    let value = old.path.as_str();
    errors.push(FieldError::invalid(&spec.path, value, detail));
}

fn data_source(source: &Place<'_>, errors: &mut Errors) {
    source.get("name").required_text(errors);
    let kind = source.get("kind");
    kind.required_text(errors);
    let group = source.get("apiGroup");
    if group.text().is_empty() && kind.text() != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.push(FieldError::invalid(&source.path, kind.text(), detail));
    }
    group.named_if_set(names::dns_subdomain, errors);
    source
        .get("namespace")
        .named_if_set(names::dns_label, errors);
}

fn validate_change(new: &Value, old: &Value) -> Errors {
    let mut errors = Vec::new();
    let spec = Path::root("spec");
    let (mut now, mut before) = (new["spec"].clone(), old["spec"].clone());
    if tree::text(old, &["spec", "volumeName"]).is_empty() {
        tree::carry(&mut before, &new["spec"], "volumeName");
    }
    // A class may be given to a claim that has none.
    if before.get("storageClassName").is_none() {
        tree::carry(&mut before, &new["spec"], "storageClassName");
    }
    let size = |object: &Value| {
        amount(tree::at(
            object,
            &["spec", "resources", "requests", "storage"],
        ))
    };
    if tree::text(new, &["status", "phase"]) == "Bound" {
        for one in [&mut now, &mut before] {
            if let Some(Value::Object(requests)) = one.pointer_mut("/resources/requests") {
                requests.shift_remove("storage");
            }
        }
        tree::carry(&mut now, &before, "volumeAttributesClassName");
    }
    if !tree::same(&now, &before) {
        errors.push(FieldError::forbidden(&spec, IMMUTABLE));
    }
    let had = amount(tree::at(old, &["status", "capacity", "storage"]));
    if let (Some(wanted), Some(was)) = (size(new), size(old))
        && wanted < was
        && had.is_none_or(|had| wanted <= had)
    {
        let path = spec.child("resources").child("requests").child("storage");
        let detail = "field can not be less than status.capacity";
        errors.push(FieldError::forbidden(&path, detail));
    }
    let class = |object: &Value| tree::at(object, &["spec", "volumeAttributesClassName"]).clone();
    let path = spec.child("volumeAttributesClassName");
    if !class(old).is_null() && class(new).is_null() {
        let detail = "update from non-nil value to nil is forbidden";
        errors.push(FieldError::forbidden(&path, detail));
    } else if class(old).is_string() && class(new) == "" && class(old) != "" {
        let detail = "update from non-nil value to an empty string is forbidden";
        errors.push(FieldError::forbidden(&path, detail));
    }
    errors
}
