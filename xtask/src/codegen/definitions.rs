//! The OpenAPI definitions as a typed model; changes when upstream's schema dialect does.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// All definitions by full name (`io.k8s.api.core.v1.Pod`).
pub(super) type Definitions = BTreeMap<String, Schema>;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Schema {
    #[serde(rename = "$ref")]
    pub(super) reference: Option<String>,
    #[serde(rename = "type")]
    pub(super) types: Option<Types>,
    pub(super) format: Option<String>,
    pub(super) description: Option<String>,
    pub(super) properties: BTreeMap<String, Schema>,
    pub(super) required: Vec<String>,
    pub(super) items: Option<Box<Schema>>,
    #[serde(rename = "additionalProperties")]
    pub(super) additional_properties: Option<Box<Schema>>,
    #[serde(rename = "x-kubernetes-list-type")]
    pub(super) list_type: Option<String>,
    #[serde(rename = "x-kubernetes-list-map-keys")]
    pub(super) list_map_keys: Vec<String>,
    #[serde(rename = "x-kubernetes-map-type")]
    pub(super) map_type: Option<String>,
    #[serde(rename = "x-kubernetes-patch-strategy")]
    pub(super) patch_strategy: Option<String>,
    #[serde(rename = "x-kubernetes-patch-merge-key")]
    pub(super) patch_merge_key: Option<String>,
    #[serde(rename = "x-kubernetes-group-version-kind")]
    pub(super) kinds: Vec<Kind>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Types {
    One(String),
    Nullable(Vec<String>),
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Kind {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) kind: String,
}

impl Schema {
    /// The JSON type without the `null` alternative.
    pub(super) fn json_type(&self) -> Option<&str> {
        match self.types.as_ref()? {
            Types::One(name) => Some(name),
            Types::Nullable(names) => names.iter().map(String::as_str).find(|n| *n != "null"),
        }
    }

    /// The full name of the definition this schema refers to.
    pub(super) fn target(&self) -> Option<&str> {
        self.reference.as_deref()?.rsplit('/').next()
    }
}

/// Reads and parses the definitions file.
pub(super) fn read(path: &Path) -> Result<Definitions> {
    #[derive(Deserialize)]
    struct Document {
        #[serde(rename = "$defs")]
        definitions: Definitions,
    }
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let document: Document =
        serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))?;
    Ok(document.definitions)
}
