//! Whether a schema is structural: every field is typed, and value rules only narrow.

use serde_json::Value;

use super::{list, texts};
use crate::rules::validate_rules;
use crate::structural::{DEPTH_MAX, Schema, default, prune, validate as validate_value};
use crate::violation::Violation;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const UNSUPPORTED: [&str; 5] = [
    "$ref",
    "definitions",
    "dependencies",
    "id",
    "patternProperties",
];
/// What value rules inside `allOf`, `anyOf`, `oneOf` and `not` may not say.
const STRUCTURAL_ONLY: [&str; 13] = [
    "additionalProperties",
    "default",
    "description",
    "nullable",
    "title",
    "type",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];

/// Where in a schema another one stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Property,
    Items,
}

impl Place {
    const fn untyped(self) -> &'static str {
        match self {
            Self::Root => "must not be empty at the root",
            Self::Property => "must not be empty for specified object fields",
            Self::Items => "must not be empty for specified array items",
        }
    }
}

/// Checks a version's whole schema.
pub(super) fn validate(schema: &Value, path: &str, found: &mut Vec<Violation>) {
    if schema["type"].as_str().is_some_and(|kind| kind != "object") {
        let detail = "must be object at the root";
        found.push(Violation::invalid(
            &format!("{path}.type"),
            schema["type"].clone(),
            detail,
        ));
    }
    let before = found.len();
    structure(schema, path, Place::Root, 0, found);
    metadata(
        &schema["properties"]["metadata"],
        &format!("{path}.properties[metadata]"),
        found,
    );
    if found.len() > before {
        return;
    }
    // Patterns and defaults need the parsed form.
    match Schema::parse(schema) {
        Ok(parsed) => {
            defaults(&parsed, path, found);
            found.extend(validate_rules(&parsed, path));
        }
        Err(fault) => found.push(Violation::invalid(path, "", fault.to_string())),
    }
}

fn structure(schema: &Value, path: &str, place: Place, depth: usize, found: &mut Vec<Violation>) {
    let at = |name: &str| format!("{path}.{name}");
    if depth > DEPTH_MAX {
        let detail = format!("must not be nested deeper than {DEPTH_MAX} levels");
        found.push(Violation::forbidden(path, detail));
        return;
    }
    validate_type(schema, path, place, found);
    for name in UNSUPPORTED {
        if schema.get(name).is_some_and(|value| !value.is_null()) {
            found.push(Violation::forbidden(
                &at(name),
                format!("{name} is not supported"),
            ));
        }
    }
    if schema["uniqueItems"] == true {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes \
                      quadratic";
        found.push(Violation::forbidden(&at("uniqueItems"), detail));
    }
    if schema["items"].is_array() {
        let detail = "items must be a schema object and not an array";
        found.push(Violation::forbidden(&at("items"), detail));
    }
    let properties = schema["properties"].as_object();
    let additional = &schema["additionalProperties"];
    if properties.is_some_and(|p| !p.is_empty()) && (additional.is_object() || additional == false)
    {
        let detail = "additionalProperties and properties are mutual exclusive";
        found.push(Violation::forbidden(&at("additionalProperties"), detail));
    }
    extensions(schema, path, found);
    lists(schema, path, found);
    nested(schema, schema, path, found);
    for (name, property) in properties.into_iter().flatten() {
        let path = format!("{path}.properties[{name}]");
        structure(property, &path, Place::Property, depth + 1, found);
    }
    if additional.is_object() {
        structure(
            additional,
            &at("additionalProperties"),
            Place::Property,
            depth + 1,
            found,
        );
    }
    if schema["items"].is_object() {
        structure(
            &schema["items"],
            &at("items"),
            Place::Items,
            depth + 1,
            found,
        );
    }
}

fn validate_type(schema: &Value, path: &str, place: Place, found: &mut Vec<Violation>) {
    let path = format!("{path}.type");
    let int_or_string = schema["x-kubernetes-int-or-string"] == true;
    let free = schema["x-kubernetes-preserve-unknown-fields"] == true;
    match schema["type"].as_str().unwrap_or_default() {
        "" if place == Place::Root || !(int_or_string || free) => {
            found.push(Violation::required(&path, place.untyped()));
        }
        "" => {}
        kind if int_or_string => {
            let detail = "must be empty if x-kubernetes-int-or-string is true";
            found.push(Violation::invalid(&path, kind, detail));
        }
        kind if !TYPES.contains(&kind) => {
            found.push(Violation::not_supported(&path, kind, &TYPES));
        }
        _ => {}
    }
}

fn extensions(schema: &Value, path: &str, found: &mut Vec<Violation>) {
    let kind = schema["type"].as_str().unwrap_or_default();
    let free = "x-kubernetes-preserve-unknown-fields";
    if schema[free] == false {
        let detail = "must be true or undefined";
        found.push(Violation::invalid(&format!("{path}.{free}"), false, detail));
    }
    if schema["x-kubernetes-embedded-resource"] == true {
        if kind != "object" {
            let detail = "must be object if x-kubernetes-embedded-resource is true";
            found.push(Violation::invalid(&format!("{path}.type"), kind, detail));
        }
        let empty = schema["properties"]
            .as_object()
            .is_none_or(serde_json::Map::is_empty);
        if empty && schema[free] != true {
            let detail = "must not be empty if x-kubernetes-embedded-resource is true without \
                          x-kubernetes-preserve-unknown-fields";
            found.push(Violation::required(&format!("{path}.properties"), detail));
        }
    }
    match schema["x-kubernetes-map-type"].as_str() {
        None | Some("atomic" | "granular") => {}
        Some(other) => found.push(Violation::not_supported(
            &format!("{path}.x-kubernetes-map-type"),
            other,
            &["atomic", "granular"],
        )),
    }
}

fn lists(schema: &Value, path: &str, found: &mut Vec<Violation>) {
    let list_type = schema["x-kubernetes-list-type"].as_str();
    let keys = texts(&schema["x-kubernetes-list-map-keys"]);
    let at = |name: &str| format!("{path}.{name}");
    if list_type.is_some() && schema["type"] != "array" {
        let kind = schema["type"].as_str().unwrap_or_default();
        let detail = "must be array if x-kubernetes-list-type is specified";
        found.push(Violation::invalid(&at("type"), kind, detail));
    }
    match list_type {
        None | Some("atomic" | "set") if !keys.is_empty() => {
            let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
            let value = list_type.unwrap_or_default();
            found.push(Violation::invalid(
                &at("x-kubernetes-list-type"),
                value,
                detail,
            ));
        }
        None | Some("atomic" | "set") => {}
        Some("map") => map_keys(schema, &keys, path, found),
        Some(other) => {
            let supported = ["atomic", "map", "set"];
            let path = at("x-kubernetes-list-type");
            found.push(Violation::not_supported(&path, other, &supported));
        }
    }
}

fn map_keys(schema: &Value, keys: &[String], path: &str, found: &mut Vec<Violation>) {
    if keys.is_empty() {
        let path = format!("{path}.x-kubernetes-list-map-keys");
        let detail = "must not be empty if x-kubernetes-list-type is map";
        found.push(Violation::required(&path, detail));
    }
    let items = &schema["items"];
    if items["type"] != "object" {
        let kind = items["type"].as_str().unwrap_or_default();
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        found.push(Violation::invalid(
            &format!("{path}.items.type"),
            kind,
            detail,
        ));
        return;
    }
    let required = texts(&items["required"]);
    for (index, key) in keys.iter().enumerate() {
        let place = format!("{path}.x-kubernetes-list-map-keys[{index}]");
        let property = &items["properties"][key];
        if !property.is_object() {
            let detail = "entries must all be names of item properties";
            found.push(Violation::invalid(&place, key.clone(), detail));
        } else if matches!(property["type"].as_str(), Some("array" | "object")) {
            let place = format!("{path}.items.properties[{key}].type");
            let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            found.push(Violation::invalid(&place, property["type"].clone(), detail));
        } else if property.get("default").is_none_or(Value::is_null) && !required.contains(key) {
            let place = format!("{path}.items.properties[{key}].default");
            let detail = "this property is in x-kubernetes-list-map-keys, so it must have a \
                          default or be a required property";
            found.push(Violation::required(&place, detail));
        }
    }
}

/// Value rules say nothing structural, and nothing about fields that are not declared.
fn nested(schema: &Value, declared: &Value, path: &str, found: &mut Vec<Violation>) {
    for name in ["allOf", "anyOf", "oneOf"] {
        for (index, rules) in list(&schema[name]).iter().enumerate() {
            let numbers_or_texts = declared["x-kubernetes-int-or-string"] == true
                && matches!(rules["type"].as_str(), Some("integer" | "string"));
            if !numbers_or_texts {
                value_rules(rules, declared, &format!("{path}.{name}[{index}]"), found);
            }
        }
    }
    if schema["not"].is_object() {
        value_rules(&schema["not"], declared, &format!("{path}.not"), found);
    }
}

fn value_rules(rules: &Value, declared: &Value, path: &str, found: &mut Vec<Violation>) {
    for name in STRUCTURAL_ONLY {
        if rules
            .get(name)
            .is_some_and(|value| !value.is_null() && value != false)
        {
            let detail = "must be empty to be structural";
            found.push(Violation::forbidden(&format!("{path}.{name}"), detail));
        }
    }
    for (name, below) in rules["properties"].as_object().into_iter().flatten() {
        let known = match &declared["properties"][name] {
            Value::Null => &declared["additionalProperties"],
            known => known,
        };
        let own = format!("{path}.properties[{name}]");
        if known.is_object() {
            value_rules(below, known, &own, found);
        } else {
            let outer = path.split(['[']).next().unwrap_or(path);
            let outer = outer.rsplit_once('.').map_or(outer, |(outer, _)| outer);
            let detail = format!("because it is defined in {own}");
            found.push(Violation::required(
                &format!("{outer}.properties[{name}]"),
                detail,
            ));
        }
    }
    if rules["items"].is_object() {
        value_rules(
            &rules["items"],
            &declared["items"],
            &format!("{path}.items"),
            found,
        );
    }
    nested(rules, declared, path, found);
}

/// Of the root's metadata only the name may be narrowed.
fn metadata(schema: &Value, path: &str, found: &mut Vec<Violation>) {
    for name in schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name)
    {
        if name != "name" && name != "generateName" {
            let detail = "must not specify anything other than name and generateName, but metadata \
                          is implicitly specified";
            found.push(Violation::forbidden(path, detail));
            return;
        }
    }
}

/// Defaults are values of their own schema.
fn defaults(schema: &Schema, path: &str, found: &mut Vec<Violation>) {
    if let Some(value) = &schema.default {
        let path = format!("{path}.default");
        let mut pruned = value.clone();
        let unknown = match pruned {
            Value::Object(_) if !schema.embedded => {
                let mut wrapped = serde_json::json!({"value": pruned});
                let outer = wrapper(schema);
                let dropped = prune(&outer, &mut wrapped);
                pruned = wrapped["value"].take();
                dropped.len()
            }
            _ => 0,
        };
        if unknown > 0 {
            found.push(Violation::invalid(
                &path,
                value.clone(),
                "must not have unknown fields",
            ));
        }
        default(schema, &mut pruned);
        found.extend(
            validate_value(schema, &pruned)
                .into_iter()
                .map(|mut violation| {
                    violation.path = match violation.path.as_str() {
                        "" | "<nil>" => path.clone(),
                        below if below.starts_with('[') => format!("{path}{below}"),
                        below => format!("{path}.{below}"),
                    };
                    violation
                }),
        );
    }
    for (name, property) in &schema.properties {
        defaults(property, &format!("{path}.properties[{name}]"), found);
    }
    if let Some(items) = &schema.items {
        defaults(items, &format!("{path}.items"), found);
    }
    if let Some(crate::structural::Additional::Of(value)) = &schema.additional {
        defaults(value, &format!("{path}.additionalProperties"), found);
    }
}

fn wrapper(schema: &Schema) -> Schema {
    let properties = std::iter::once(("value".to_owned(), schema.clone())).collect();
    Schema {
        properties,
        ..Schema::default()
    }
}
