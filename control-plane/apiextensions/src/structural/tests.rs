//! Pruning, defaulting and validation, data in and out.

use serde_json::{Value, json};

use super::*;

fn schema(value: &Value) -> Schema {
    Schema::parse(value).unwrap()
}

#[test]
fn unknown_fields_are_dropped_and_told() {
    let schema = schema(&json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "a": {"type": "integer"},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"known": {"type": "object", "properties": {}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object",
                "properties": {"x": {"type": "string"}}}},
            "pod": {"type": "object", "x-kubernetes-embedded-resource": true,
                "properties": {"spec": {"type": "object"}}},
        }},
    }}));
    let mut object = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "n"},
        "spec": {"a": 1, "b": 2, "free": {"any": 1, "known": {"no": 1}},
            "map": {"k": {"x": "1", "y": 2}},
            "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "nope": 1},
                "zz": 1}}, "top": 1});
    let told: Vec<String> = prune(&schema, &mut object)
        .iter()
        .map(ToString::to_string)
        .collect();
    let expected = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "n"},
        "spec": {"a": 1, "free": {"any": 1, "known": {}}, "map": {"k": {"x": "1"}},
            "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}}});
    assert_eq!(object, expected);
    assert_eq!(told.len(), 6, "{told:?}");
    assert!(
        told.contains(&"unknown field \"spec.map.k.y\"".to_owned()),
        "{told:?}"
    );
}

#[test]
fn absent_fields_and_nulls_take_defaults() {
    let schema = schema(&json!({"type": "object", "properties": {
        "a": {"type": "integer", "default": 1},
        "b": {"type": "string", "nullable": true, "default": "x"},
        "c": {"type": "object", "default": {}, "properties": {"d": {"type": "integer", "default": 2}}},
        "e": {"type": "string"},
        "l": {"type": "array", "items": {"type": "object", "properties": {
            "p": {"type": "string", "default": "TCP"}}}},
    }}));
    let cases = [
        (json!({}), json!({"a": 1, "b": "x", "c": {"d": 2}})),
        (
            json!({"a": null, "b": null, "e": null}),
            json!({"a": 1, "b": null, "c": {"d": 2}}),
        ),
        (
            json!({"l": [{}, {"p": "UDP"}], "c": {"d": 3}}),
            json!({"a": 1, "b": "x", "c": {"d": 3}, "l": [{"p": "TCP"}, {"p": "UDP"}]}),
        ),
    ];
    for (mut object, expected) in cases {
        default(&schema, &mut object);
        assert_eq!(object, expected);
    }
}

#[test]
fn alternatives_are_told_with_the_nearest_failure() {
    let schema = schema(&json!({"type": "object", "properties": {
        "x": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        "y": {"x-kubernetes-int-or-string": true},
    }}));
    let told = |object: &Value| -> Vec<String> {
        let found = validate(&schema, object);
        found
            .iter()
            .map(|v| format!("{} {}", v.path, v.detail))
            .collect()
    };
    assert!(told(&json!({"x": {"a": "1"}, "y": "80%"})).is_empty());
    assert!(told(&json!({"y": 80})).is_empty());
    let both = told(&json!({"x": {"a": "1", "b": "2"}}));
    assert_eq!(
        both,
        ["<nil> \"x\" must validate one and only one schema (oneOf). Found 2 valid alternatives"]
    );
    let none = told(&json!({"x": {}}));
    assert!(none[0].ends_with("Found none valid"), "{none:?}");
    assert_eq!(none[1], "x.a ");
    assert_eq!(
        told(&json!({"y": true})),
        ["y y in body must be of type integer,string: \"boolean\""]
    );
}
