//! ServiceAccount: an identity for pods.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::strategy::Strategy;
use crate::tables::{AGE, Column, NAME, Table, age, column};
use crate::tree;

#[derive(Debug)]
pub(super) struct ServiceAccount;

const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Secrets",
        "string",
        "Secrets is a list of the secrets in the same namespace that pods running using this ServiceAccount are allowed to use.",
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
        json!(tree::list(object, &["secrets"]).len()),
        age(object, now),
    ]
}

impl Strategy for ServiceAccount {}
