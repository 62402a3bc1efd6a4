//! ReplicationController: n pods of a template, selected by equal labels.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::pod::{SpecOwner, validate_spec};
use super::service::label_set;
use super::strategy::{Prepare, Strategy};
use super::workload;
use super::workload::{CONTAINERS, IMAGES, SELECTOR, count, default_template, template_cells};
use crate::field::FieldError;
use crate::tables::{AGE, Column, NAME, Table, age, column};
use crate::tree;
use crate::validation::{self, Errors, Place};

#[derive(Debug)]
pub(super) struct ReplicationController;

const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Desired",
        "integer",
        "Replicas is the number of desired replicas.",
    ),
    column(
        "Current",
        "integer",
        "Replicas is the most recently observed number of replicas.",
    ),
    column(
        "Ready",
        "integer",
        "The number of ready replicas for this replication controller.",
    ),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) static TABLE: Table = Table {
    columns: COLUMNS,
    row,
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let [containers, images, _] = template_cells(object, &["spec", "template"]);
    vec![
        json!(tree::text(object, &["metadata", "name"])),
        json!(count(object, &["spec", "replicas"])),
        json!(count(object, &["status", "replicas"])),
        json!(count(object, &["status", "readyReplicas"])),
        age(object, now),
        containers,
        images,
        json!(label_set(tree::at(object, &["spec", "selector"]))),
    ]
}

impl Strategy for ReplicationController {
    fn orphans_by_default(&self) -> bool {
        true
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn has_status(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        default_template(object);
        let labels = tree::at(object, &["spec", "template", "metadata", "labels"]).clone();
        if labels.is_object() {
            for owner in ["spec", "metadata"] {
                let field = if owner == "spec" {
                    "selector"
                } else {
                    "labels"
                };
                let map = tree::object_mut(object, owner);
                if map.get(field).is_none_or(tree::is_unset) {
                    map.insert(field.to_owned(), labels.clone());
                }
            }
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        tree::as_object(object).insert("status".to_owned(), json!({"replicas": 0}));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = Place::root(object, "spec");
        spec.get("minReadySeconds").non_negative(&mut errors);
        let selector = spec.get("selector");
        if selector.is_unset() {
            selector.required("", &mut errors);
        }
        spec.get("replicas").non_negative(&mut errors);
        let template = spec.get("template");
        if !template.is_present() {
            template.required("", &mut errors);
            return errors;
        }
        let labels = template.get("metadata").get("labels");
        let selected = selector
            .entries()
            .all(|(key, value)| tree::at(labels.value, &[key]) == value.value);
        if !selected {
            let detail = "`selector` does not match template `labels`";
            workload::invalid_labels(&labels, detail, &mut errors);
        }
        validation::labels(labels.value, &template.path.child("labels"), &mut errors);
        let pod = template.get("spec");
        validate_spec(pod.value, &pod.path, SpecOwner::Template, &mut errors);
        workload::validate_restart(&template, "ReplicationController", &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, _old: &Value, write: Prepare) -> Vec<FieldError> {
        match write {
            Prepare::Status => validate_status(&Place::root(new, "status")),
            Prepare::Main | Prepare::Approval => Vec::new(),
        }
    }
}

fn validate_status(status: &Place<'_>) -> Errors {
    let mut errors = Vec::new();
    let number = |field| status.get(field).int().unwrap_or_default();
    for field in [
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "observedGeneration",
    ] {
        status.get(field).non_negative(&mut errors);
    }
    for field in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
        if number(field) > number("replicas") {
            let detail = "cannot be greater than status.replicas";
            status.get(field).invalid(detail, &mut errors);
        }
    }
    if number("availableReplicas") > number("readyReplicas") {
        let detail = "cannot be greater than readyReplicas";
        status.get("availableReplicas").invalid(detail, &mut errors);
    }
    errors
}
