//! Pruning: fields that the schema does not name are dropped and told.

use proto_api::decode::{self, DecodeError, Finding};
use proto_api::schema;
use serde_json::{Map, Value};

use super::{Additional, Schema};
use crate::violation::child;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Drops what `schema` does not name from `object`, a whole custom object whose `apiVersion`,
/// `kind` and `metadata` are not the schema's. Returns the paths that were dropped.
pub fn prune(schema: &Schema, object: &mut Value) -> Vec<Finding> {
    let mut dropped = Vec::new();
    walk(schema, object, "", true, &mut dropped);
    dropped.truncate(decode::FINDINGS_MAX);
    dropped.into_iter().map(Finding::UnknownField).collect()
}

fn walk(schema: &Schema, value: &mut Value, path: &str, whole: bool, dropped: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let whole = whole || schema.embedded;
            let open =
                schema.preserve_unknown || matches!(schema.additional, Some(Additional::Any(true)));
            let own = |name: &str| whole && matches!(name, "apiVersion" | "kind" | "metadata");
            let names: Vec<String> = fields
                .keys()
                .filter(|name| !open && !own(name) && schema.field(name).is_none())
                .cloned()
                .collect();
            for name in names {
                dropped.push(child(path, &name));
                fields.shift_remove(&name);
            }
            if schema.embedded {
                embedded_metadata(fields, path, dropped);
            }
            for (name, value) in fields.iter_mut() {
                if let Some(schema) = schema.field(name).filter(|_| !own(name)) {
                    walk(schema, value, &child(path, name), false, dropped);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = &schema.items {
                for (index, item) in items.iter_mut().enumerate() {
                    walk(schema, item, &format!("{path}[{index}]"), false, dropped);
                }
            }
        }
        _ => {}
    }
}

/// The metadata of an object inside another one is metadata too. What has a wrong type stays, and is
/// refused by validation.
fn embedded_metadata(fields: &mut Map<String, Value>, path: &str, dropped: &mut Vec<String>) {
    let mut own = Map::new();
    if let Some(meta) = fields.get("metadata").filter(|meta| meta.is_object()) {
        own.insert("metadata".to_owned(), meta.clone());
    }
    let Ok(findings) = metadata_of(&mut own) else {
        return;
    };
    if let Some(meta) = own.shift_remove("metadata") {
        fields.insert("metadata".to_owned(), meta);
    }
    dropped.extend(findings.into_iter().filter_map(|finding| match finding {
        Finding::UnknownField(field) => Some(child(path, &field)),
        Finding::DuplicateField(_) | Finding::DuplicateKey { .. } | Finding::InPatch(_) => None,
    }));
}

/// Brings `metadata` into its canonical form: known fields of the right types.
///
/// # Errors
/// A field has the wrong type.
pub fn metadata_of(object: &mut Map<String, Value>) -> Result<Vec<Finding>, DecodeError> {
    let Some(meta) = object.get_mut("metadata") else {
        return Ok(Vec::new());
    };
    let schema = schema::builtin();
    let Some(type_id) = schema.named(OBJECT_META) else {
        return Ok(Vec::new());
    };
    let (checked, findings) = decode::check(schema, type_id, std::mem::take(meta))?;
    *meta = checked;
    let below = |finding: Finding| match finding {
        Finding::UnknownField(path) => Finding::UnknownField(child("metadata", &path)),
        Finding::DuplicateField(path) => Finding::DuplicateField(child("metadata", &path)),
        other @ (Finding::DuplicateKey { .. } | Finding::InPatch(_)) => other,
    };
    Ok(findings.into_iter().map(below).collect())
}
