//! Table output: columns and rows as `kubectl get` prints them.
//!
//! Owns: the `meta.k8s.io/v1` Table and human durations. The columns of a kind are in
//! `registry/<kind>.rs`.

mod duration;

use std::fmt::Debug;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::tree;

pub(crate) use self::duration::since;
pub(crate) use self::duration::{age, human_duration, seconds_since};

/// One column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    /// Heading.
    pub(crate) name: &'static str,
    /// OpenAPI type of the cells.
    pub(crate) kind: &'static str,
    /// OpenAPI format, or empty.
    pub(crate) format: &'static str,
    /// One sentence.
    pub(crate) description: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    pub(crate) priority: u8,
}

/// The columns of a kind and how a row is made of an object.
pub trait Printer: Debug + Send + Sync {
    /// Column definitions, as a Table carries them; the first is the name.
    fn columns(&self) -> Vec<Value>;

    /// Cells of one object, one a column.
    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value>;
}

/// A [`Printer`] of constants: that of a built-in kind.
#[derive(Debug)]
pub(crate) struct Table {
    /// Columns; the first is the name.
    pub(crate) columns: &'static [Column],
    /// Cells of one object, one a column.
    pub(crate) row: fn(&Value, Timestamp) -> Vec<Value>,
}

impl Printer for Table {
    fn columns(&self) -> Vec<Value> {
        self.columns
            .iter()
            .map(|c| {
                json!({"name": c.name, "type": c.kind, "format": c.format,
                    "description": c.description, "priority": c.priority})
            })
            .collect()
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        (self.row)(object, now)
    }
}

/// A column that is always shown.
pub(crate) const fn column(
    name: &'static str,
    kind: &'static str,
    description: &'static str,
) -> Column {
    Column {
        name,
        kind,
        format: "",
        description,
        priority: 0,
    }
}

/// A column of `-o wide`.
pub(crate) const fn wide(
    name: &'static str,
    kind: &'static str,
    description: &'static str,
) -> Column {
    Column {
        name,
        kind,
        format: "",
        description,
        priority: 1,
    }
}

/// The `Name` column.
pub(crate) const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    description: "Name must be unique within a namespace.",
    priority: 0,
};

/// The `Age` column.
pub(crate) const AGE: Column = column(
    "Age",
    "string",
    "CreationTimestamp is a timestamp representing the server time when this object was created.",
);

/// The cell of [`NAME`].
pub(crate) fn name(object: &Value) -> Value {
    json!(tree::text(object, &["metadata", "name"]))
}

/// The text at `path`, or `default` where there is none.
pub(crate) fn text_or(object: &Value, path: &[&str], default: &str) -> Value {
    match tree::text(object, path) {
        "" => json!(default),
        text => json!(text),
    }
}

/// The number or text at `path`, as text, or `default` where there is none.
pub(crate) fn scalar_or(object: &Value, path: &[&str], default: &str) -> Value {
    match tree::at(object, path) {
        Value::Number(number) => json!(number.to_string()),
        Value::String(text) if !text.is_empty() => json!(text),
        _ => json!(default),
    }
}

/// `includeObject` of a table request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IncludeObject {
    /// Cells only.
    None,
    /// The object's metadata.
    Metadata,
    /// The whole object.
    Object,
}

/// Whether a table carries its column definitions; a watch sends them once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    /// With columns.
    Shown,
    /// Without.
    Omitted,
}

/// A Table of `objects`. `list_meta` is the list's `metadata`.
pub(crate) fn render<'a>(
    table: &dyn Printer,
    objects: impl Iterator<Item = &'a Value>,
    list_meta: &Value,
    include: IncludeObject,
    header: Header,
    version: &str,
    now: Timestamp,
) -> Value {
    let columns: Vec<Value> = match header {
        Header::Omitted => Vec::new(),
        Header::Shown => table.columns(),
    };
    let rows: Vec<Value> = objects
        .map(|object| render_row(table, object, include, version, now))
        .collect();
    json!({
        "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": list_meta,
        "columnDefinitions": columns, "rows": rows,
    })
}

/// One row of a Table.
pub(crate) fn render_row(
    table: &dyn Printer,
    object: &Value,
    include: IncludeObject,
    version: &str,
    now: Timestamp,
) -> Value {
    let mut row = json!({"cells": table.row(object, now)});
    match include {
        IncludeObject::None => {}
        IncludeObject::Metadata => row["object"] = partial_metadata(object, version),
        IncludeObject::Object => row["object"] = object.clone(),
    }
    row
}

/// `PartialObjectMetadata` of an object.
pub(crate) fn partial_metadata(object: &Value, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object.get("metadata").cloned().unwrap_or(Value::Null),
    })
}
