//! RuntimeClass: which configuration of the container runtime runs a pod.

use jiff::Timestamp;
use proto_api::names;
use serde_json::Value;

use super::pod::validate_tolerations;
use super::strategy::{Prepare, Strategy};
use crate::field::FieldError;
use crate::tables::{self, AGE, NAME, Table, age, column};
use crate::validation::{self, Place};

#[derive(Debug)]
pub(super) struct RuntimeClass;

pub(super) static TABLE: Table = Table {
    columns: &[
        NAME,
        column(
            "Handler",
            "string",
            "The runtime's configuration that runs pods of this class.",
        ),
        AGE,
    ],
    row,
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        tables::name(object),
        tables::text_or(object, &["handler"], ""),
        age(object, now),
    ]
}

impl Strategy for RuntimeClass {
    fn updates_unconditionally(&self) -> bool {
        false
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        Place::root(object, "handler").named(names::dns_label, &mut errors);
        let fixed = Place::root(object, "overhead").get("podFixed");
        for (_, amount) in fixed.entries() {
            amount.quantity(&mut errors);
        }
        let scheduling = Place::root(object, "scheduling");
        let selector = scheduling.get("nodeSelector");
        validation::labels(selector.value, &selector.path, &mut errors);
        validate_tolerations(&scheduling.get("tolerations"), &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _write: Prepare) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validation::immutable(new, old, &["handler"], &mut errors);
        errors
    }
}
