//! Printer columns of a custom kind.

use control_plane_apiextensions::Column;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::tables::{self, Printer};
use crate::tree;

/// The name, then the definition's columns; the age when it has none.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) columns: Vec<Column>,
}

impl Printer for Columns {
    fn columns(&self) -> Vec<Value> {
        let mut all = vec![json!({
            "name": "Name", "type": "string", "format": "name", "priority": 0,
            "description": "Name must be unique within a namespace.",
        })];
        if self.columns.is_empty() {
            all.push(json!({
                "name": "Age", "type": "date", "format": "", "priority": 0,
                "description": "CreationTimestamp is a timestamp representing the server time when \
                    this object was created.",
            }));
        }
        all.extend(self.columns.iter().map(|column| {
            let mut description = column.description.clone();
            if description.is_empty() {
                description = format!(
                    "Custom resource definition column (in JSONPath format): {}",
                    column.name
                );
            }
            json!({"name": column.name, "type": column.kind, "format": column.format,
                "description": description, "priority": column.priority})
        }));
        all
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let mut cells = vec![json!(tree::text(object, &["metadata", "name"]))];
        if self.columns.is_empty() {
            cells.push(tables::age(object, now));
        }
        cells.extend(self.columns.iter().map(|column| cell(column, object, now)));
        cells
    }
}

fn cell(column: &Column, object: &Value, now: Timestamp) -> Value {
    let found = column.path.find(object);
    let Some(first) = found.first() else {
        return Value::Null;
    };
    match column.kind.as_str() {
        "integer" => whole(first),
        "number" => first.as_f64().into(),
        "boolean" => first.as_bool().into(),
        "date" => match first.as_str() {
            Some(text) => tables::since(text, now),
            None => Value::Null,
        },
        _ if found.len() > 1 => json!(found.iter().map(|v| text(v)).collect::<Vec<_>>().join(",")),
        _ => json!(text(first)),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A number without its fraction.
#[expect(clippy::cast_possible_truncation, reason = "a cell shows what fits")]
fn whole(value: &Value) -> Value {
    let number = value
        .as_i64()
        .or_else(|| value.as_f64().map(|n| n.trunc() as i64));
    number.into()
}
