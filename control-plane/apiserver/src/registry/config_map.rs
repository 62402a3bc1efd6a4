//! ConfigMap: data under valid keys, optionally frozen.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::strategy::{Prepare, Strategy};
use crate::field::{FieldError, Path};
use crate::tables::{AGE, Column, NAME, Table, age, column};
use crate::{tree, validation};

/// Largest total of keys and values.
pub(super) const DATA_BYTES_MAX: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct ConfigMap;

const COLUMNS: &[Column] = &[
    NAME,
    column("Data", "string", "Data contains the configuration data."),
    AGE,
];

pub(super) static TABLE: Table = Table {
    columns: COLUMNS,
    row,
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let count =
        tree::entries(object, &["data"]).count() + tree::entries(object, &["binaryData"]).count();
    vec![
        json!(tree::text(object, &["metadata", "name"])),
        json!(count),
        age(object, now),
    ]
}

impl Strategy for ConfigMap {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut size = 0;
        for name in ["data", "binaryData"] {
            for (key, value) in tree::entries(object, &[name]) {
                validation::data_key(key, &Path::root(name).key(key), &mut errors);
                let length = value.as_str().map_or(0, str::len);
                // Base64 holds three bytes in four characters.
                size += if name == "data" {
                    length
                } else {
                    length / 4 * 3
                };
                if name == "data" && !tree::at(object, &["binaryData", key]).is_null() {
                    let detail = "duplicate of key present in binaryData";
                    errors.push(FieldError::invalid(
                        &Path::root(name).key(key),
                        key.as_str(),
                        detail,
                    ));
                }
            }
        }
        if size > DATA_BYTES_MAX {
            // The object as a whole, as upstream prints it.
            errors.push(FieldError::too_long(&Path::root("[]"), DATA_BYTES_MAX));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _write: Prepare) -> Vec<FieldError> {
        frozen(new, old, &["data", "binaryData"])
    }
}

/// Errors of a write that changes an immutable object.
pub(super) fn frozen(new: &Value, old: &Value, fields: &[&str]) -> Vec<FieldError> {
    if !tree::flag(old, &["immutable"]) {
        return Vec::new();
    }
    let detail = "field is immutable when `immutable` is set";
    let mut errors = Vec::new();
    if !tree::flag(new, &["immutable"]) {
        errors.push(FieldError::forbidden(&Path::root("immutable"), detail));
    }
    for field in fields {
        if !tree::same(tree::at(new, &[field]), tree::at(old, &[field])) {
            errors.push(FieldError::forbidden(&Path::root(field), detail));
        }
    }
    errors
}
