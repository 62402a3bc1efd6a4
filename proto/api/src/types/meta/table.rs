//! Kinds of `meta.k8s.io/v1` that upstream leaves out of its OpenAPI definitions: Table, partial
//! objects and the generic list. Changes when the answers of the API server do.

use serde::{Deserialize, Serialize};

use super::v1::{ListMeta, ObjectMeta};
use crate::types::null_as_default;

/// A list of any kind; `api_version` and `kind` are the list's (`v1`, `PodList`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "T: Deserialize<'de>"))]
pub struct List<T> {
    #[serde(default)]
    pub api_version: String,
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    pub metadata: ListMeta,
    #[serde(default = "Vec::new", deserialize_with = "items")]
    pub items: Vec<T>,
}

fn items<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}

/// An object cut down to its metadata.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PartialObjectMetadata {
    pub api_version: String,
    pub kind: String,
    pub metadata: ObjectMeta,
}

/// What kubectl prints: columns and one row an object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Table {
    pub api_version: String,
    pub kind: String,
    pub metadata: ListMeta,
    #[serde(deserialize_with = "null_as_default")]
    pub column_definitions: Vec<TableColumnDefinition>,
    #[serde(deserialize_with = "null_as_default")]
    pub rows: Vec<TableRow>,
}

/// One column of a [`Table`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TableColumnDefinition {
    pub name: String,
    /// OpenAPI type: `string`, `integer`, `number`, `boolean`, `date`.
    #[serde(rename = "type")]
    pub type_: String,
    pub format: String,
    pub description: String,
    /// 0 is always shown, above it only in wide output.
    pub priority: i32,
}

/// One row of a [`Table`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TableRow {
    /// As many as there are columns; numbers, strings, booleans or null.
    #[serde(deserialize_with = "null_as_default")]
    pub cells: Vec<serde_json::Value>,
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub conditions: Vec<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<serde_json::Value>,
}
