//! What is wrong with an object may stay wrong where an update does not touch it.

use serde_json::Value;

use super::{ListType, Schema, validate};
use crate::violation::{Reason, Violation};

/// Checks `new`; what breaks a rule at a place that is as it was in `old` is forgiven, so that an
/// object can be changed after its schema became stricter.
#[must_use]
pub fn validate_changed(schema: &Schema, new: &Value, old: &Value) -> Vec<Violation> {
    let mut found = validate(schema, new);
    found.retain(|violation| {
        let mut steps = steps(&violation.path);
        if matches!(violation.reason, Reason::Required | Reason::Duplicate(_)) {
            // These speak of what the value is in.
            steps.pop();
        }
        !unchanged(schema, new, old, &steps)
    });
    found
}

/// One step of a path.
#[derive(Debug, PartialEq)]
enum Step {
    Field(String),
    Index(usize),
}

/// `spec.ports[1].name` and `spec.map[key]` as steps.
fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let (key, after) = inner.split_once(']').unwrap_or((inner, ""));
            steps.push(match key.parse() {
                Ok(index) => Step::Index(index),
                Err(_) => Step::Field(key.to_owned()),
            });
            rest = after;
            continue;
        }
        let own = rest.strip_prefix('.').unwrap_or(rest);
        let end = own.find(['.', '[']).unwrap_or(own.len());
        steps.push(Step::Field(own[..end].to_owned()));
        rest = &own[end..];
    }
    steps
}

/// Whether the value at `steps`, or one that it is in, is as it was.
fn unchanged(schema: &Schema, new: &Value, old: &Value, steps: &[Step]) -> bool {
    let Some((step, rest)) = steps.split_first() else {
        return new == old;
    };
    match (step, new, old) {
        _ if new == old => true,
        (Step::Field(name), Value::Object(new), Value::Object(old)) => {
            match (schema.field(name), new.get(name), old.get(name)) {
                (Some(schema), Some(new), Some(old)) => unchanged(schema, new, old, rest),
                _ => false,
            }
        }
        (Step::Index(index), Value::Array(items), Value::Array(before)) => {
            let (Some(of), Some(item)) = (&schema.items, items.get(*index)) else {
                return false;
            };
            // Only items with keys can be found again.
            let same = |other: &&Value| {
                let mut keys = schema.list_map_keys.iter();
                keys.all(|key| item.get(key) == other.get(key))
            };
            let old = match schema.list_type {
                Some(ListType::Map) => before.iter().find(same),
                _ => None,
            };
            old.is_some_and(|old| unchanged(of, item, old, rest))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_an_update_does_not_touch_is_forgiven() {
        let schema = Schema::parse(&json!({"type": "object", "properties": {"spec": {
            "type": "object", "required": ["must"], "properties": {
                "must": {"type": "string"}, "other": {"type": "integer"},
                "short": {"type": "string", "maxLength": 2},
                "ports": {"type": "array", "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"], "items": {"type": "object",
                        "properties": {"name": {"type": "string"},
                            "port": {"type": "integer", "maximum": 9}}}}}}}}))
        .unwrap();
        let old = json!({"spec": {"must": "x", "short": "long", "ports": [
            {"name": "a", "port": 10}, {"name": "b", "port": 1}]}});
        let told = |new: &Value| -> Vec<String> {
            let found = validate_changed(&schema, new, &old);
            let mut paths: Vec<String> = found.into_iter().map(|v| v.path).collect();
            paths.sort();
            paths
        };
        let mut new = old.clone();
        new["spec"]["other"] = json!(1);
        new["spec"]["ports"] = json!([{"name": "b", "port": 2}, {"name": "a", "port": 10}]);
        assert_eq!(told(&new), Vec::<String>::new());
        new["spec"]["short"] = json!("longer");
        new["spec"]["ports"][0]["port"] = json!(11);
        assert_eq!(told(&new), ["spec.ports[0].port", "spec.short"]);
        let mut new = old.clone();
        new["spec"].as_object_mut().unwrap().remove("must");
        assert_eq!(told(&new), ["spec.must"]);
        assert_eq!(steps("a.b[1][k.x].c").len(), 5);
    }
}
