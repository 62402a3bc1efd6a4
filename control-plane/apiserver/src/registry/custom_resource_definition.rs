//! CustomResourceDefinition: a kind that makes kinds.

use control_plane_apiextensions::{defaults, validate_definition, validate_definition_update};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::strategy::{Prepare, Strategy, keep_all_but_status};
use crate::custom::{CLEANUP, field_error};
use crate::field::FieldError;
use crate::tables::{Column, NAME, Table, column};
use crate::tree;

#[derive(Debug)]
pub(super) struct CustomResourceDefinition;

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

/// The version that objects are stored in is among those they may be stored in.
fn note_stored(object: &mut Value) {
    let storage = tree::list(object, &["spec", "versions"])
        .iter()
        .find(|version| version["storage"] == true)
        .map(|version| version["name"].clone());
    let Some(storage) = storage else {
        return;
    };
    let status = tree::object_mut(object, "status");
    let stored = status.entry("storedVersions").or_insert_with(|| json!([]));
    match stored.as_array_mut() {
        Some(known) if known.contains(&storage) => {}
        Some(known) => known.push(storage),
        None => *stored = json!([storage]),
    }
}

impl Strategy for CustomResourceDefinition {
    fn has_generation(&self) -> bool {
        true
    }

    fn has_status(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        defaults(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        let empty = json!({"conditions": [], "acceptedNames": {"kind": "", "plural": ""},
            "storedVersions": []});
        tree::as_object(object).insert("status".to_owned(), empty);
        note_stored(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, write: Prepare) {
        match write {
            Prepare::Main => {
                tree::carry(new, old, "status");
                note_stored(new);
            }
            Prepare::Status | Prepare::Approval => keep_all_but_status(new, old),
        }
    }

    fn prepare_delete(&self, object: &mut Value) {
        let meta = tree::object_mut(object, "metadata");
        let finalizers = meta.entry("finalizers").or_insert_with(|| json!([]));
        if let Some(finalizers) = finalizers.as_array_mut()
            && !finalizers.iter().any(|finalizer| finalizer == CLEANUP)
        {
            finalizers.push(json!(CLEANUP));
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        validate_definition(object)
            .into_iter()
            .map(field_error)
            .collect()
    }

    fn validate_update(&self, new: &Value, old: &Value, _write: Prepare) -> Vec<FieldError> {
        validate_definition_update(new, old)
            .into_iter()
            .map(field_error)
            .collect()
    }
}
