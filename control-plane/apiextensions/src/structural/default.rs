//! Defaulting: what absent fields hold, and which nulls mean absent.

use serde_json::{Map, Value};

use super::{Additional, Schema};

/// Drops nulls that are no value, then fills absent fields. The root itself has no default.
pub fn default(schema: &Schema, object: &mut Value) {
    drop_nulls(schema, object);
    fill(schema, object);
}

fn drop_nulls(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| {
                !(value.is_null() && schema.field(name).is_some_and(Schema::drops_null))
            });
            for (name, value) in fields.iter_mut() {
                if let Some(schema) = schema.field(name) {
                    drop_nulls(schema, value);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = &schema.items {
                items.iter_mut().for_each(|item| drop_nulls(schema, item));
            }
        }
        _ => {}
    }
}

fn fill(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fill_fields(schema, fields);
            for (name, value) in fields.iter_mut() {
                if let Some(schema) = schema.field(name) {
                    fill(schema, value);
                }
            }
        }
        Value::Array(items) => {
            let Some(schema) = &schema.items else {
                return;
            };
            for item in items {
                replace_null(schema, item);
                fill(schema, item);
            }
        }
        _ => {}
    }
}

fn fill_fields(schema: &Schema, fields: &mut Map<String, Value>) {
    for (name, property) in &schema.properties {
        let Some(default) = &property.default else {
            continue;
        };
        let absent = match fields.get(name) {
            None => true,
            Some(value) => value.is_null() && !property.nullable,
        };
        if absent {
            fields.insert(name.clone(), default.clone());
        }
    }
    if let Some(Additional::Of(schema)) = &schema.additional {
        fields
            .values_mut()
            .for_each(|value| replace_null(schema, value));
    }
}

fn replace_null(schema: &Schema, value: &mut Value) {
    if let Some(default) = &schema.default
        && value.is_null()
        && !schema.nullable
    {
        *value = default.clone();
    }
}
