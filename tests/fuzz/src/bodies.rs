//! Decoders of request bodies and of what they hold.

use proto_api::apply::{self, FieldSet, Form, OnConflict, Writer};
use proto_api::decode::{self, Decoded, Encoding};
use proto_api::schema::{Gvk, TypeId, builtin};
use proto_api::{patch, transcode};
use serde_json::{Value, json};

const POD: Gvk<'static> = Gvk {
    group: "",
    version: "v1",
    kind: "Pod",
};

fn pod_type() -> TypeId {
    builtin()
        .kind(POD)
        .unwrap_or_else(|| unreachable!("pods are in the schema"))
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "labels": {"a": "b"}, "finalizers": ["x/y", "z/y"]},
        "spec": {
            "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}],
            "tolerations": [{"key": "a", "operator": "Exists"}],
            "volumes": [{"name": "v", "emptyDir": {}}],
        },
    })
}

pub(crate) fn parsed(data: &[u8]) -> Option<Value> {
    decode::parse(data, Encoding::Json)
        .ok()
        .map(|(value, _)| value)
}

/// What a body was read as can be read again, in every encoding that has it.
fn read_again(decoded: &Decoded) {
    let schema = builtin();
    let body = decoded.value.to_string();
    let again = decode::body(schema, None, body.as_bytes(), Encoding::Json);
    assert!(again.is_ok(), "JSON of our own: {again:?}");
    let yaml = proto_api::yaml::to_string(&decoded.value);
    let again = decode::body(schema, None, yaml.as_bytes(), Encoding::Yaml);
    assert!(again.is_ok(), "YAML of our own: {again:?}");
    if let Ok(message) = transcode::to_protobuf(schema, &decoded.value) {
        let _again = decode::body(schema, None, &message, Encoding::Protobuf).is_ok();
    }
}

fn body(data: &[u8], encoding: Encoding) {
    if let Ok(decoded) = decode::body(builtin(), None, data, encoding) {
        read_again(&decoded);
    }
    if let Err(fault) = decode::body(builtin(), Some(POD), data, encoding) {
        assert!(!fault.message(POD, data).is_empty());
    }
}

pub(crate) fn json(data: &[u8]) {
    body(data, Encoding::Json);
}

pub(crate) fn yaml(data: &[u8]) {
    body(data, Encoding::Yaml);
    if let Ok((value, _)) = decode::parse(data, Encoding::Yaml) {
        let written = proto_api::yaml::to_string(&value);
        let again = decode::parse(written.as_bytes(), Encoding::Yaml).map(|(value, _)| value);
        if is_exact(&value) {
            assert_eq!(again, Ok(value), "{written}");
        }
    }
}

/// Numbers of a fraction are not written digit for digit.
fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => !number.is_f64(),
        Value::Array(items) => items.iter().all(is_exact),
        Value::Object(fields) => fields.values().all(is_exact),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

pub(crate) fn protobuf(data: &[u8]) {
    body(data, Encoding::Protobuf);
    // Behind the magic, so that the search need not find that first.
    let message = [b"k8s\0".as_slice(), data].concat();
    body(&message, Encoding::Protobuf);
}

pub(crate) fn strategic_patch(data: &[u8]) {
    if let Some(change) = parsed(data)
        && let Ok(patched) = patch::strategic(builtin(), pod_type(), pod(), change)
    {
        let _checked = decode::check(builtin(), pod_type(), patched).is_ok();
    }
}

pub(crate) fn merge_patch(data: &[u8]) {
    if let Some(change) = parsed(data) {
        let merged = patch::merge(pod(), &change);
        let _checked = decode::check(builtin(), pod_type(), merged).is_ok();
    }
}

pub(crate) fn json_patch(data: &[u8]) {
    if let Some(operations) = parsed(data) {
        let _unknown = patch::unknown_members(&operations);
        if let Ok(patched) = patch::json(&pod(), &operations) {
            let _checked = decode::check(builtin(), pod_type(), patched).is_ok();
        }
    }
}

pub(crate) fn apply(data: &[u8]) {
    let Ok((config, _)) = decode::parse(data, Encoding::Yaml) else {
        return;
    };
    let ignored = FieldSet::default().with(&["status"]);
    let writer = Writer {
        schema: builtin(),
        type_id: pod_type(),
        form: Form::Canonical,
        manager: "m",
        api_version: "v1",
        subresource: "",
        ignored: &ignored,
        now: "2026-01-01T00:00:00Z",
    };
    for live in [None, Some(&pod())] {
        let _applied = apply::apply(&writer, live, &config, OnConflict::Take).is_ok();
    }
}

pub(crate) fn fields_v1(data: &[u8]) {
    let Some(fields) = parsed(data) else { return };
    if let Ok(set) = FieldSet::from_fields(&fields) {
        let written = set.to_fields();
        let again = FieldSet::from_fields(&written).map(|set| set.to_fields());
        assert_eq!(again, Ok(written), "what is written is read again");
    }
    let mut object = pod();
    object["metadata"]["managedFields"] = json!([
        {"manager": "a", "operation": "Apply", "apiVersion": "v1", "fieldsV1": fields},
    ]);
    let _entries = apply::read(&object).is_ok();
}
