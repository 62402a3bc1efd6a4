//! ControllerRevision: a state that a controller can go back to.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::strategy::{Prepare, Strategy};
use crate::field::FieldError;
use crate::tables::{AGE, Column, NAME, Table, age, column};
use crate::tree;
use crate::validation::{self, Place};

#[derive(Debug)]
pub(super) struct ControllerRevision;

const COLUMNS: &[Column] = &[
    NAME,
    column("Controller", "string", "Controller of the object"),
    column(
        "Revision",
        "string",
        "revision indicates the revision of the state represented by data.",
    ),
    AGE,
];

pub(super) static TABLE: Table = Table {
    columns: COLUMNS,
    row,
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let owner = tree::list(object, &["metadata", "ownerReferences"])
        .iter()
        .find(|owner| tree::flag(owner, &["controller"]));
    let controller = owner.map_or_else(
        || "<none>".to_owned(),
        |owner| {
            let kind = tree::text(owner, &["kind"]).to_lowercase();
            let name = tree::text(owner, &["name"]);
            match tree::text(owner, &["apiVersion"]).split_once('/') {
                Some((group, _)) => format!("{kind}.{group}/{name}"),
                None => format!("{kind}/{name}"),
            }
        },
    );
    vec![
        json!(tree::text(object, &["metadata", "name"])),
        json!(controller),
        json!(tree::int(object, &["revision"]).unwrap_or_default()),
        age(object, now),
    ]
}

impl Strategy for ControllerRevision {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let data = Place::root(object, "data");
        if !data.is_present() {
            data.required("data is mandatory", &mut errors);
        }
        Place::root(object, "revision").non_negative(&mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _write: Prepare) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validation::immutable(new, old, &["data"], &mut errors);
        errors
    }
}
