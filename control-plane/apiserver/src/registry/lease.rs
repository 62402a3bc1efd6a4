//! Lease: who leads, since when, for how long.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::strategy::Strategy;
use crate::field::{FieldError, Path};
use crate::tables::{AGE, Column, NAME, Table, age, column};
use crate::tree;

#[derive(Debug)]
pub(super) struct Lease;

const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Holder",
        "string",
        "holderIdentity contains the identity of the holder of a current lease.",
    ),
    AGE,
];

pub(super) static TABLE: Table = Table {
    columns: COLUMNS,
    row,
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        json!(tree::text(object, &["metadata", "name"])),
        json!(tree::text(object, &["spec", "holderIdentity"])),
        age(object, now),
    ]
}

impl Strategy for Lease {
    fn creates_on_update(&self) -> bool {
        true
    }

    fn updates_unconditionally(&self) -> bool {
        false
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let spec = Path::root("spec");
        let mut errors = Vec::new();
        if let Some(seconds) = tree::int(object, &["spec", "leaseDurationSeconds"])
            && seconds <= 0
        {
            let path = spec.child("leaseDurationSeconds");
            errors.push(FieldError::invalid(
                &path,
                seconds,
                "must be greater than 0",
            ));
        }
        if let Some(count) = tree::int(object, &["spec", "leaseTransitions"])
            && count < 0
        {
            let path = spec.child("leaseTransitions");
            errors.push(FieldError::invalid(
                &path,
                count,
                "must be greater than or equal to 0",
            ));
        }
        errors
    }
}
