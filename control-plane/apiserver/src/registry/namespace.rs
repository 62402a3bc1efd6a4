//! Namespace: a scope for names that disappears with all it holds.

use jiff::Timestamp;
use proto_api::names;
use serde_json::{Value, json};

use super::strategy::{NameRule, Prepare, Strategy};
use crate::field::{FieldError, Path};
use crate::tables::{AGE, Column, NAME, Table, age, column};
use crate::tree;
use crate::validation::sentences;

/// The finalizer that the namespace controller removes when the namespace is empty.
pub(crate) const FINALIZER: &str = "kubernetes";
const STANDARD_FINALIZERS: [&str; 3] = ["foregroundDeletion", "kubernetes", "orphan"];
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

#[derive(Debug)]
pub(super) struct Namespace;

const COLUMNS: &[Column] = &[
    NAME,
    column("Status", "string", "The status of the namespace"),
    AGE,
];

pub(super) static TABLE: Table = Table {
    columns: COLUMNS,
    row,
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        json!(tree::text(object, &["metadata", "name"])),
        json!(tree::text(object, &["status", "phase"])),
        age(object, now),
    ]
}

impl Strategy for Namespace {
    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }

    fn has_status(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let name = tree::at(object, &["metadata", "name"]).clone();
        if name.is_string() {
            let labels = tree::as_object(
                tree::object_mut(object, "metadata")
                    .entry("labels".to_owned())
                    .or_insert(Value::Null),
            );
            labels.insert(NAME_LABEL.to_owned(), name);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        let finalizers = tree::object_mut(object, "spec")
            .entry("finalizers".to_owned())
            .or_insert_with(|| json!([]));
        if let Some(list) = finalizers.as_array_mut()
            && !list.iter().any(|f| f == FINALIZER)
        {
            list.push(json!(FINALIZER));
        }
        tree::as_object(object).insert("status".to_owned(), json!({"phase": "Active"}));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = Path::root("spec").child("finalizers");
        for finalizer in tree::list(object, &["spec", "finalizers"]) {
            let name = finalizer.as_str().unwrap_or_default();
            sentences(name, &path, names::qualified_name(name), &mut errors);
            if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
                let detail = "name is neither a standard finalizer name nor is it fully qualified";
                errors.push(FieldError::invalid(&path, name, detail));
            }
        }
        errors
    }

    fn validate_update(&self, new: &Value, _old: &Value, write: Prepare) -> Vec<FieldError> {
        let going = tree::at(new, &["metadata", "deletionTimestamp"]).is_string();
        let (phase, state) = if going {
            ("Terminating", "not empty")
        } else {
            ("Active", "empty")
        };
        let now = tree::text(new, &["status", "phase"]);
        if write != Prepare::Status || now == phase {
            return Vec::new();
        }
        let path = Path::root("status").child("Phase");
        let detail = format!("may only be '{phase}' if `deletionTimestamp` is {state}");
        vec![FieldError::invalid(&path, now, detail)]
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, write: Prepare) {
        match write {
            // `spec` holds only the finalizers, and they go through `/finalize`.
            Prepare::Main => {
                tree::carry(new, old, "spec");
                tree::carry(new, old, "status");
            }
            Prepare::Status | Prepare::Approval => super::strategy::keep_all_but_status(new, old),
        }
    }
}
