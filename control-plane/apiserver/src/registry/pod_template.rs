//! PodTemplate: what a pod would be, kept on its own.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::pod::{SpecOwner, default_spec, validate_spec};
use super::service::label_set;
use super::strategy::Strategy;
use super::workload::{CONTAINERS, IMAGES, template_cells};
use crate::field::FieldError;
use crate::tables::{Column, NAME, Table, column};
use crate::tree;
use crate::validation::{self, Place};

#[derive(Debug)]
pub(super) struct PodTemplate;

const COLUMNS: &[Column] = &[
    NAME,
    Column {
        priority: 0,
        ..CONTAINERS
    },
    Column {
        priority: 0,
        ..IMAGES
    },
    column(
        "Pod Labels",
        "string",
        "The labels for the pods stamped out by this template.",
    ),
];

pub(super) static TABLE: Table = Table {
    columns: COLUMNS,
    row,
};

fn row(object: &Value, _now: Timestamp) -> Vec<Value> {
    let [containers, images, _] = template_cells(object, &["template"]);
    let labels = tree::at(object, &["template", "metadata", "labels"]);
    vec![
        json!(tree::text(object, &["metadata", "name"])),
        containers,
        images,
        json!(label_set(labels)),
    ]
}

impl Strategy for PodTemplate {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let slot = tree::as_object(object)
            .entry("template".to_owned())
            .or_insert(Value::Null);
        default_spec(tree::object_mut(slot, "spec"), SpecOwner::Template);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let template = Place::root(object, "template");
        let labels = template.get("metadata").get("labels");
        validation::labels(labels.value, &template.path.child("labels"), &mut errors);
        let pod = template.get("spec");
        validate_spec(pod.value, &pod.path, SpecOwner::Template, &mut errors);
        errors
    }
}
