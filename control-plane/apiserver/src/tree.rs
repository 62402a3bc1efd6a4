//! Reading and filling JSON trees: the few moves that strategies share.

use serde_json::{Map, Value};

/// A JSON object.
pub(crate) type Object = Map<String, Value>;

/// The value at `path`, `Null` when it is not there.
#[must_use]
pub(crate) fn at<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    path.iter()
        .fold(value, |value, name| value.get(name).unwrap_or(&Value::Null))
}

/// The text at `path`, empty when there is none.
#[must_use]
pub(crate) fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).as_str().unwrap_or_default()
}

/// The number at `path`.
#[must_use]
pub(crate) fn int(value: &Value, path: &[&str]) -> Option<i64> {
    at(value, path).as_i64()
}

/// The flag at `path`, false when there is none.
#[must_use]
pub(crate) fn flag(value: &Value, path: &[&str]) -> bool {
    at(value, path).as_bool().unwrap_or_default()
}

/// The list at `path`, empty when there is none.
#[must_use]
pub(crate) fn list<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path).as_array().map_or(&[], Vec::as_slice)
}

/// The entries of the map at `path`, none when there is none.
pub(crate) fn entries<'a>(
    value: &'a Value,
    path: &[&str],
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    at(value, path).as_object().into_iter().flatten()
}

/// Whether a field is unset: absent, null, empty text, empty list or empty map.
#[must_use]
pub(crate) fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The map `name` inside `value`, made when it is absent or null. `value` becomes a map if it is
/// none.
pub(crate) fn object_mut<'a>(value: &'a mut Value, name: &str) -> &'a mut Object {
    let slot = as_object(value)
        .entry(name.to_owned())
        .or_insert(Value::Null);
    as_object(slot)
}

/// `value` as a map; anything else is replaced by an empty one.
pub(crate) fn as_object(value: &mut Value) -> &mut Object {
    if !value.is_object() {
        *value = Value::Object(Object::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

/// The list `name` of `map`, to be changed; empty when there is none.
pub(crate) fn list_mut<'a>(map: &'a mut Object, name: &str) -> &'a mut [Value] {
    map.get_mut(name)
        .and_then(Value::as_array_mut)
        .map_or(&mut [], Vec::as_mut_slice)
}

/// Sets `name` when it is absent or null.
pub(crate) fn default(map: &mut Object, name: &str, value: impl Into<Value>) {
    if map.get(name).is_none_or(Value::is_null) {
        map.insert(name.to_owned(), value.into());
    }
}

/// Sets `name` when it is unset, an empty text included (fields whose zero value is "not set").
pub(crate) fn default_text(map: &mut Object, name: &str, value: &str) {
    if map.get(name).is_none_or(is_unset) {
        map.insert(name.to_owned(), Value::from(value));
    }
}

/// Copies field `name` of `from` over that of `to`; removes it when `from` has none.
pub(crate) fn carry(to: &mut Value, from: &Value, name: &str) {
    let map = as_object(to);
    match from.get(name) {
        Some(value) => {
            map.insert(name.to_owned(), value.clone());
        }
        None => {
            map.shift_remove(name);
        }
    }
}

/// Whether two fields mean the same: unset fields of any form are equal.
#[must_use]
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    a == b || (is_unset(a) && is_unset(b))
}
