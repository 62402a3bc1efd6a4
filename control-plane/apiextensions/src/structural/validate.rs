//! Value validation against a structural schema, in upstream's order and wording.

use serde_json::{Number, Value};

use super::{Additional, Checks, ListType, Schema, Type, format};
use crate::violation::{Reason, Violation, child};

/// More violations than this are not told.
const VIOLATIONS_MAX: usize = 100;

/// Checks a pruned and defaulted object.
#[must_use]
pub fn validate(schema: &Schema, object: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    value(schema, object, "", &mut found);
    lists(schema, object, "", &mut found);
    found.truncate(VIOLATIONS_MAX);
    found
}

fn value(schema: &Schema, value: &Value, path: &str, found: &mut Vec<Violation>) {
    if found.len() >= VIOLATIONS_MAX || (value.is_null() && schema.nullable) {
        return;
    }
    if let Some(expected) = wrong_type(schema, value) {
        let is = type_of(value);
        let detail = format!("{path} in body must be of type {expected}: \"{is}\"");
        found.push(Violation::new(path, Reason::Type(is.into()), detail));
    }
    combined(&schema.checks, value, path, found);
    match value {
        Value::String(text) => check_text(&schema.checks, text, path, found),
        Value::Number(number) => check_number(&schema.checks, number, path, found),
        Value::Array(items) => check_items(schema, items, path, found),
        Value::Object(_) | Value::Null | Value::Bool(_) => {}
    }
    check_allowed(&schema.checks, value, path, found);
    if let Value::Object(fields) = value {
        check_fields(schema, fields, path, found);
    }
}

/// The type that `value` should have and has not.
fn wrong_type(schema: &Schema, value: &Value) -> Option<&'static str> {
    if schema.int_or_string {
        let fits = value.is_string() || is_integer(value);
        return (!fits).then_some("integer,string");
    }
    let kind = schema.kind?;
    let fits = match kind {
        Type::Object => value.is_object(),
        Type::Array => value.is_array(),
        Type::String => value.is_string(),
        Type::Integer => is_integer(value),
        Type::Number => value.is_number(),
        Type::Boolean => value.is_boolean(),
    };
    (!fits).then_some(kind.name())
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0)
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_integer(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn holds(schema: &Schema, of: &Value, path: &str) -> Result<(), Vec<Violation>> {
    let mut found = Vec::new();
    value(schema, of, path, &mut found);
    if found.is_empty() { Ok(()) } else { Err(found) }
}

fn combined(checks: &Checks, of: &Value, path: &str, found: &mut Vec<Violation>) {
    // Upstream tells these without a place of their own.
    let composite = |text: String| Violation::invalid("<nil>", "", format!("\"{path}\" {text}"));
    if !checks.any_of.is_empty() {
        let tried = checks.any_of.iter().map(|schema| holds(schema, of, path));
        if let Some(best) = best_failure(tried) {
            found.push(composite(
                "must validate at least one schema (anyOf)".to_owned(),
            ));
            found.extend(best);
        }
    }
    if !checks.one_of.is_empty() {
        let tried: Vec<_> = checks.one_of.iter().map(|s| holds(s, of, path)).collect();
        let valid = tried.iter().filter(|outcome| outcome.is_ok()).count();
        let rule = "must validate one and only one schema (oneOf).";
        match (valid, best_failure(tried.into_iter())) {
            (1, _) => {}
            (0, best) => {
                found.push(composite(format!("{rule} Found none valid")));
                found.extend(best.unwrap_or_default());
            }
            (many, _) => {
                found.push(composite(format!("{rule} Found {many} valid alternatives")));
            }
        }
    }
    let mut failed = 0;
    for schema in &checks.all_of {
        if let Err(broken) = holds(schema, of, path) {
            found.extend(broken);
            failed += 1;
        }
    }
    if failed > 0 {
        let none = if failed == checks.all_of.len() {
            ". None validated"
        } else {
            ""
        };
        found.push(composite(format!(
            "must validate all the schemas (allOf){none}"
        )));
    }
    if let Some(schema) = &checks.not
        && holds(schema, of, path).is_ok()
    {
        found.push(composite("must not validate the schema (not)".to_owned()));
    }
}

/// The violations of the alternative that is broken least; nothing when one holds.
fn best_failure(tried: impl Iterator<Item = Result<(), Vec<Violation>>>) -> Option<Vec<Violation>> {
    let mut best: Option<Vec<Violation>> = None;
    for outcome in tried {
        let broken = outcome.err()?;
        if best.as_ref().is_none_or(|best| broken.len() < best.len()) {
            best = Some(broken);
        }
    }
    best
}

fn check_text(checks: &Checks, text: &str, path: &str, found: &mut Vec<Violation>) {
    let broken =
        |detail: String| Violation::invalid(path, text, format!("{path} in body {detail}"));
    let length = text.chars().count();
    if let Some(max) = checks.length.1.filter(|max| length > *max) {
        found.push(Violation::new(path, Reason::TooLong(max), ""));
    }
    if let Some(min) = checks.length.0.filter(|min| length < *min) {
        found.push(broken(format!("should be at least {min} chars long")));
    }
    if let Some((regex, source)) = &checks.pattern
        && !regex.is_match(text)
    {
        found.push(broken(format!("should match '{source}'")));
    }
    if !format::holds(&checks.format, text) {
        found.push(broken(format!(
            "must be of type {}: {text:?}",
            checks.format
        )));
    }
}

fn check_number(checks: &Checks, number: &Number, path: &str, found: &mut Vec<Violation>) {
    let mut broken = |detail: String| {
        let detail = format!("{path} in body {detail}");
        found.push(Violation::invalid(path, number.clone(), detail));
    };
    let of = number.as_f64().unwrap_or_default();
    if let Some((max, exclusive)) = &checks.maximum {
        let bound = max.as_f64().unwrap_or(f64::INFINITY);
        if *exclusive && of >= bound {
            broken(format!("should be less than {max}"));
        } else if of > bound {
            broken(format!("should be less than or equal to {max}"));
        }
    }
    if let Some((min, exclusive)) = &checks.minimum {
        let bound = min.as_f64().unwrap_or(f64::NEG_INFINITY);
        if *exclusive && of <= bound {
            broken(format!("should be greater than {min}"));
        } else if of < bound {
            broken(format!("should be greater than or equal to {min}"));
        }
    }
    if let Some(step) = checks.multiple_of
        && step > 0.0
    {
        let times = of / step;
        if (times - times.round()).abs() > 1e-9 {
            broken(format!("should be a multiple of {step}"));
        }
    }
}

fn check_items(schema: &Schema, items: &[Value], path: &str, found: &mut Vec<Violation>) {
    let (min, max) = schema.checks.items;
    if let Some(min) = min.filter(|min| items.len() < *min) {
        let detail = format!("{path} in body should have at least {min} items");
        found.push(Violation::invalid(path, items.len(), detail));
    }
    if let Some(max) = max.filter(|max| items.len() > *max) {
        let count = items.len();
        found.push(Violation::new(path, Reason::TooMany { count, max }, ""));
    }
    if let Some(schema) = &schema.items {
        for (index, item) in items.iter().enumerate() {
            value(schema, item, &format!("{path}[{index}]"), found);
        }
    }
}

fn check_allowed(checks: &Checks, value: &Value, path: &str, found: &mut Vec<Violation>) {
    if checks.allowed.is_empty() || checks.allowed.iter().any(|allowed| same(allowed, value)) {
        return;
    }
    let printed = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let supported = checks.allowed.iter().map(printed).collect();
    let value = value.clone();
    found.push(Violation::new(
        path,
        Reason::NotSupported { value, supported },
        "",
    ));
}

/// Equality of JSON values; numbers by value.
fn same(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().is_some_and(|a| b.as_f64() == Some(a))
}

fn check_fields(
    schema: &Schema,
    fields: &serde_json::Map<String, Value>,
    path: &str,
    found: &mut Vec<Violation>,
) {
    let (min, max) = schema.checks.properties;
    if let Some(min) = min.filter(|min| fields.len() < *min) {
        let detail = format!("{path} in body should have at least {min} properties");
        found.push(Violation::invalid(path, fields.len(), detail));
    }
    if let Some(max) = max.filter(|max| fields.len() > *max) {
        let count = fields.len();
        found.push(Violation::new(path, Reason::TooMany { count, max }, ""));
    }
    for name in &schema.checks.required {
        if !fields.contains_key(name) {
            found.push(Violation::required(&child(path, name), ""));
        }
    }
    if schema.embedded {
        for name in ["apiVersion", "kind"] {
            if fields
                .get(name)
                .and_then(Value::as_str)
                .is_none_or(str::is_empty)
            {
                found.push(Violation::required(&child(path, name), "must not be empty"));
            }
        }
    }
    for (name, field) in fields {
        match (schema.properties.get(name), &schema.additional) {
            (Some(schema), _) => value(schema, field, &child(path, name), found),
            (None, Some(Additional::Of(schema))) => {
                value(schema, field, &child(path, name), found);
            }
            (None, _) => {}
        }
    }
}

/// Sets and maps have no two equal items.
fn lists(schema: &Schema, value: &Value, path: &str, found: &mut Vec<Violation>) {
    if found.len() >= VIOLATIONS_MAX {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(schema) = schema.field(name) {
                    lists(schema, value, &child(path, name), found);
                }
            }
        }
        Value::Array(items) => {
            unique(schema, items, path, found);
            if let Some(schema) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    lists(schema, item, &format!("{path}[{index}]"), found);
                }
            }
        }
        _ => {}
    }
}

fn unique(schema: &Schema, items: &[Value], path: &str, found: &mut Vec<Violation>) {
    let key = |item: &Value| -> Value {
        match schema.list_type {
            Some(ListType::Map) => {
                let keys = schema.list_map_keys.iter();
                let own = keys.filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
                Value::Object(own.collect())
            }
            Some(ListType::Set | ListType::Atomic) | None => item.clone(),
        }
    };
    if !matches!(schema.list_type, Some(ListType::Map | ListType::Set)) {
        return;
    }
    let mut seen = std::collections::HashSet::new();
    for (index, item) in items.iter().enumerate() {
        let key = key(item);
        if !seen.insert(key.to_string()) {
            found.push(Violation::duplicate(&format!("{path}[{index}]"), key));
        }
    }
}
