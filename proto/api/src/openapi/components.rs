//! `components.schemas`: the served kinds, their lists and all they refer to. Changes with the
//! extensions clients read.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{Resource, reference};
use crate::schema::{Descriptions, Field, Gvk, ListType, Scalar, Schema, Shape, Text, TypeId};

/// Bodies of requests and answers that every group-version has.
const COMMON: [&str; 3] = [
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
    "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent",
];

/// What components of custom kinds refer to.
const META: [&str; 2] = [
    "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta",
    "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
];

pub(super) fn schemas(
    schema: &Schema,
    resources: &[Resource<'_>],
    custom: &[(Gvk<'_>, String, Value)],
) -> Value {
    let mut pending: Vec<TypeId> = COMMON
        .iter()
        .filter_map(|name| schema.named(name))
        .collect();
    for resource in resources {
        pending.extend(schema.kind(resource.gvk));
        let list = format!("{}List", resource.gvk.kind);
        pending.extend(schema.kind(Gvk {
            kind: &list,
            ..resource.gvk
        }));
    }
    if !custom.is_empty() {
        pending.extend(META.iter().filter_map(|name| schema.named(name)));
    }
    let descriptions = Descriptions::load();
    let mut seen = BTreeSet::new();
    let mut schemas = Map::new();
    while let Some(id) = pending.pop() {
        if !seen.insert(id) {
            continue;
        }
        let ty = schema.get(id);
        let mut properties = Map::new();
        for field in &ty.fields {
            refer(&field.shape, &mut pending, &mut schemas);
            let description = descriptions.get(field.description);
            properties.insert(field.name.to_string(), property(schema, field, description));
        }
        let mut object = json!({"type": "object"});
        let mut set = |key: &str, value: Value| object[key] = value;
        let description = descriptions.get(ty.description);
        if !description.is_empty() {
            set("description", Value::String(description));
        }
        if !properties.is_empty() {
            set("properties", Value::Object(properties));
        }
        let required: Vec<&str> = ty
            .fields
            .iter()
            .filter(|field| field.required)
            .map(|field| &*field.name)
            .collect();
        if !required.is_empty() {
            set("required", json!(required));
        }
        if ty.atomic {
            set("x-kubernetes-map-type", json!("atomic"));
        }
        if !ty.kinds.is_empty() {
            let kind =
                |(group, version, kind): &(Text, Text, Text)| gvk_object(group, version, kind);
            set(
                "x-kubernetes-group-version-kind",
                ty.kinds.iter().map(kind).collect(),
            );
        }
        schemas.insert(ty.name.to_string(), object);
    }
    for (_, name, component) in custom {
        schemas.insert(name.clone(), component.clone());
    }
    schemas.sort_keys();
    Value::Object(schemas)
}

/// A group, version and kind as the extension has it.
pub(super) fn gvk_object(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "kind": kind, "version": version})
}

/// Queues the types a shape refers to, and adds the special ones at once.
fn refer(shape: &Shape, pending: &mut Vec<TypeId>, schemas: &mut Map<String, Value>) {
    match shape {
        Shape::Ref(id) => pending.push(*id),
        Shape::List(inner) | Shape::Map(inner) | Shape::MapOfLists(inner) => {
            refer(inner, pending, schemas);
        }
        Shape::Scalar(scalar) => {
            if let Some((name, schema)) = special(*scalar) {
                schemas.entry(name).or_insert(schema);
            }
        }
    }
}

fn property(schema: &Schema, field: &Field, description: String) -> Value {
    let mut property = match shape(schema, &field.shape) {
        // A description beside `$ref` would be lost, beside `allOf` it is not.
        reference if reference.get("$ref").is_some() => json!({"allOf": [reference]}),
        plain => plain,
    };
    let mut set = |key: &str, value: Value| property[key] = value;
    if !description.is_empty() {
        set("description", Value::String(description));
    }
    let list_type = field.list_type.map(|list_type| match list_type {
        ListType::Atomic => "atomic",
        ListType::Set => "set",
        ListType::Map => "map",
    });
    if let Some(list_type) = list_type {
        set("x-kubernetes-list-type", json!(list_type));
    }
    if !field.list_map_keys.is_empty() {
        set("x-kubernetes-list-map-keys", json!(field.list_map_keys));
    }
    if field.map_atomic {
        set("x-kubernetes-map-type", json!("atomic"));
    }
    let strategies = [
        ("merge", field.patch.merge),
        ("replace", field.patch.replace),
        ("retainKeys", field.patch.retain_keys),
    ];
    let strategies: Vec<&str> = strategies
        .into_iter()
        .filter(|(_, set)| *set)
        .map(|(name, _)| name)
        .collect();
    if !strategies.is_empty() {
        set("x-kubernetes-patch-strategy", json!(strategies.join(",")));
    }
    if let Some(key) = &field.patch_merge_key {
        set("x-kubernetes-patch-merge-key", json!(key));
    }
    property
}

fn shape(schema: &Schema, of: &Shape) -> Value {
    match of {
        Shape::Ref(id) => reference(&schema.get(*id).name),
        Shape::List(item) => json!({"type": "array", "items": shape(schema, item)}),
        Shape::Map(value) => {
            json!({"type": "object", "additionalProperties": shape(schema, value)})
        }
        Shape::MapOfLists(item) => json!({
            "type": "object",
            "additionalProperties": {"type": "array", "items": shape(schema, item)},
        }),
        Shape::Scalar(scalar) => match (scalar, special(*scalar)) {
            (_, Some((name, _))) => reference(name),
            (Scalar::String, None) => json!({"type": "string"}),
            (Scalar::Bool, None) => json!({"type": "boolean"}),
            (Scalar::Int32, None) => json!({"type": "integer", "format": "int32"}),
            (Scalar::Int64, None) => json!({"type": "integer", "format": "int64"}),
            (Scalar::Double, None) => json!({"type": "number", "format": "double"}),
            (Scalar::Bytes, None) => json!({"type": "string", "format": "byte"}),
            (_, None) => json!({}),
        },
    }
}

/// Scalars with a component of their own.
fn special(scalar: Scalar) -> Option<(&'static str, Value)> {
    match scalar {
        Scalar::Time => Some((
            "io.k8s.apimachinery.pkg.apis.meta.v1.Time",
            json!({"type": "string", "format": "date-time",
                "description": "An instant as RFC 3339 text with whole seconds."}),
        )),
        Scalar::MicroTime => Some((
            "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
            json!({"type": "string", "format": "date-time",
                "description": "An instant as RFC 3339 text with microseconds."}),
        )),
        Scalar::Quantity => Some((
            "io.k8s.apimachinery.pkg.api.resource.Quantity",
            json!({"oneOf": [{"type": "string"}, {"type": "number"}],
                "description": "A number with an optional suffix: n u m k M G T P E for powers of \
                    ten, Ki Mi Gi Ti Pi Ei for powers of two, e3 for an exponent."}),
        )),
        Scalar::IntOrString => Some((
            "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
            json!({"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string",
                "description": "A number, or a name or percentage as text."}),
        )),
        Scalar::FieldsV1 => Some((
            "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
            json!({"type": "object", "description": "A set of fields as a tree: f: fields, k: list \
                items by key, v: list items by value, i: by index, . the node itself."}),
        )),
        Scalar::RawExtension => Some((
            "io.k8s.apimachinery.pkg.runtime.RawExtension",
            json!({"type": "object", "description": "An object of any kind."}),
        )),
        Scalar::String
        | Scalar::Bool
        | Scalar::Int32
        | Scalar::Int64
        | Scalar::Double
        | Scalar::Bytes
        | Scalar::Json
        | Scalar::Any => None,
    }
}
