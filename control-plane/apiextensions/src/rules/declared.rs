//! A schema as the checker sees it: types, and how large values may be.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::escaped;
use crate::cel::{Declared, ObjectType, Type as Cel};
use crate::structural::{Additional, Schema, Type};

/// Largest request: no value is larger.
const REQUEST_BYTES_MAX: u64 = 3 * 1024 * 1024;
/// Least bytes of a text, a list, an object as JSON.
const EMPTY_BYTES: u64 = 2;
/// Most bytes of a time or a span as text, and least.
const TIMESTAMP_BYTES: (u64, u64) = (21, 29);
const DURATION_BYTES: (u64, u64) = (4, 32);
const DATE_BYTES: u64 = 12;

/// The declaration of values of `schema`; nothing when expressions cannot speak of them. `whole`:
/// they have apiVersion, kind and metadata.
pub fn declared(schema: &Schema, whole: bool) -> Option<Arc<Declared>> {
    of(schema, whole, "selfType").map(Arc::new)
}

/// How often a value of this least size fits into a request.
pub(super) const fn cardinality_max(declared: &Declared) -> u64 {
    REQUEST_BYTES_MAX / (declared.bytes_min + 1)
}

fn of(schema: &Schema, whole: bool, name: &str) -> Option<Declared> {
    if schema.int_or_string {
        let mut declared = Declared::scalar(Cel::Dyn, 1);
        declared.elements_max = REQUEST_BYTES_MAX - 2;
        return Some(declared);
    }
    match schema.kind? {
        Type::Array => list(schema, name),
        Type::Object => match &schema.additional {
            Some(Additional::Of(values)) => map(schema, values, name),
            Some(Additional::Any(_)) | None => Some(object(schema, whole, name)),
        },
        Type::String => Some(text(schema)),
        Type::Boolean => Some(Declared::scalar(Cel::Bool, 4)),
        Type::Number => Some(Declared::scalar(Cel::Double, 1)),
        Type::Integer => Some(Declared::scalar(Cel::Int, 1)),
    }
}

fn list(schema: &Schema, name: &str) -> Option<Declared> {
    let items = schema.items.as_deref()?;
    let item = of(items, items.embedded, &format!("{name}.@idx"))?;
    let most = (REQUEST_BYTES_MAX - EMPTY_BYTES) / (item.bytes_min + 1);
    let mut declared = Declared::scalar(Cel::list(item.kind.clone()), EMPTY_BYTES);
    declared.elements_max = schema.checks.items.1.map_or(most, wide);
    declared.items = Some(Arc::new(item));
    Some(declared)
}

fn map(schema: &Schema, values: &Schema, name: &str) -> Option<Declared> {
    let value = of(values, values.embedded, &format!("{name}.@elem"))?;
    // A key is two quotes and a colon at least.
    let most = (REQUEST_BYTES_MAX - EMPTY_BYTES) / (value.bytes_min + 6);
    let mut declared = Declared::scalar(Cel::map(value.kind.clone()), EMPTY_BYTES);
    declared.elements_max = schema.checks.properties.1.map_or(most, wide);
    declared.items = Some(Arc::new(value));
    Some(declared)
}

fn object(schema: &Schema, whole: bool, name: &str) -> Declared {
    let mut fields = BTreeMap::new();
    let mut bytes_min = EMPTY_BYTES;
    let whole = whole || schema.embedded;
    for (field, property) in &schema.properties {
        if whole && field == "metadata" {
            continue;
        }
        let below = format!("{name}.{field}");
        let Some(declared) = of(property, property.embedded, &below) else {
            continue;
        };
        if schema.checks.required.contains(field) && property.default.is_none() {
            bytes_min += wide(field.len()) + declared.bytes_min + 4;
        }
        if let Some(escaped) = escaped(field) {
            fields.insert(escaped, Arc::new(declared));
        }
    }
    if whole {
        let plain = || Arc::new(plain_text());
        for field in ["apiVersion", "kind"] {
            fields.entry(field.to_owned()).or_insert_with(plain);
        }
        let meta = ["name", "generateName"].map(|field| (field.to_owned(), plain()));
        let meta = named(format!("{name}.metadata"), BTreeMap::from(meta));
        fields.insert("metadata".to_owned(), Arc::new(meta));
    }
    let mut declared = named(name.to_owned(), fields);
    declared.bytes_min = bytes_min;
    declared
}

fn named(name: String, fields: BTreeMap<String, Arc<Declared>>) -> Declared {
    let types = fields.iter();
    let types = types.map(|(field, declared)| (field.clone(), declared.kind.clone()));
    let kind = Cel::Object(Arc::new(ObjectType {
        name,
        fields: types.collect(),
        open: false,
    }));
    let mut declared = Declared::scalar(kind, EMPTY_BYTES);
    declared.fields = fields;
    declared
}

fn plain_text() -> Declared {
    let mut declared = Declared::scalar(Cel::Text, EMPTY_BYTES);
    declared.elements_max = REQUEST_BYTES_MAX - EMPTY_BYTES;
    declared
}

fn text(schema: &Schema) -> Declared {
    let length = schema.checks.length.1;
    let (kind, bytes_min, most) = match schema.checks.format.as_str() {
        "byte" => {
            let most = length.map_or(REQUEST_BYTES_MAX - EMPTY_BYTES, wide);
            (Cel::Bytes, EMPTY_BYTES, most)
        }
        "duration" => (Cel::Duration, DURATION_BYTES.0, DURATION_BYTES.1),
        "date" => (Cel::Timestamp, DATE_BYTES, DATE_BYTES),
        "date-time" => (Cel::Timestamp, TIMESTAMP_BYTES.0, TIMESTAMP_BYTES.1),
        _ => {
            // A character may take four bytes.
            let bounded = length.map(|length| wide(length).saturating_mul(4));
            let most = bounded.unwrap_or_else(|| longest(schema));
            (Cel::Text, EMPTY_BYTES, most)
        }
    };
    let mut declared = Declared::scalar(kind, bytes_min);
    declared.elements_max = most;
    declared
}

/// The longest of the allowed texts, if they are listed.
fn longest(schema: &Schema) -> u64 {
    let allowed = schema
        .checks
        .allowed
        .iter()
        .filter_map(|value| value.as_str());
    allowed
        .map(|text| wide(text.len()))
        .max()
        .unwrap_or(REQUEST_BYTES_MAX - EMPTY_BYTES)
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
