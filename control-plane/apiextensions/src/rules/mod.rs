//! `x-kubernetes-validations`: rules in CEL at places of a schema.

mod declared;
mod validate;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

pub use self::declared::declared;
use self::validate::environment;
pub use self::validate::validate_rules;
use crate::cel::{
    Budget, CelError, Declared, EXPRESSION_COST_MAX, OBJECT_COST_MAX, Program, Type as Cel, Value,
    Variables,
};
use crate::structural::{Additional, ListType, Rule, Schema, Type, duration_nanoseconds};
use crate::violation::{Reason, Violation, child};

/// Words that a field's name may not be in an expression.
const RESERVED: [&str; 20] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
];

/// The rules of a schema, parsed, with their places.
#[derive(Debug, Default)]
pub struct Rules {
    here: Vec<Parsed>,
    fields: BTreeMap<String, Rules>,
    values: Option<Box<Rules>>,
    items: Option<Box<Rules>>,
}

#[derive(Debug)]
struct Parsed {
    rule: Rule,
    program: Program,
    message: Option<Program>,
    transition: bool,
}

impl Rules {
    /// Parses the rules of `schema`; rules that are no expressions are left out.
    #[must_use]
    pub fn of(schema: &Schema) -> Self {
        Self::at(schema, true)
    }

    fn at(schema: &Schema, whole: bool) -> Self {
        let below = |schema: &Schema| {
            Some(Box::new(Self::at(schema, false))).filter(|rules| !rules.is_empty())
        };
        let whole = whole || schema.embedded;
        let own = match schema.rules.is_empty() {
            true => None,
            false => declared(schema, whole),
        };
        Self {
            here: schema
                .rules
                .iter()
                .filter_map(|rule| Parsed::of(rule, own.as_ref()))
                .collect(),
            fields: schema
                .properties
                .iter()
                .map(|(name, schema)| (name.clone(), Self::at(schema, false)))
                .filter(|(_, rules)| !rules.is_empty())
                .collect(),
            values: match &schema.additional {
                Some(Additional::Of(schema)) => below(schema),
                Some(Additional::Any(_)) | None => None,
            },
            items: schema.items.as_deref().and_then(below),
        }
    }

    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.here.is_empty()
            && self.fields.is_empty()
            && self.values.is_none()
            && self.items.is_none()
    }

    /// Evaluates the rules on `object`, which was `old` before (nothing at creation).
    #[must_use]
    pub fn evaluate(&self, schema: &Schema, object: &Json, old: Option<&Json>) -> Vec<Violation> {
        let mut walk = Walk {
            budget: Budget::new(OBJECT_COST_MAX),
            found: Vec::new(),
        };
        walk.at(self, schema, object, old, "", true);
        walk.found
    }
}

impl Parsed {
    fn of(rule: &Rule, own: Option<&Arc<Declared>>) -> Option<Self> {
        let unknown = || Arc::new(Declared::unsized_of(Cel::Dyn));
        let env = environment(
            &own.map_or_else(unknown, Arc::clone),
            rule.optional_old_self,
        );
        // What was stored before the check was stricter is evaluated as far as it goes.
        let compiled = |text: &str| {
            let checked = Program::checked(text, &env);
            checked.or_else(|_fault| Program::compile(text, &["self", "oldSelf"]))
        };
        let program = compiled(&rule.rule).ok()?;
        let message = compiled(&rule.message_expression).ok();
        Some(Self {
            transition: program.names("oldSelf"),
            rule: rule.clone(),
            program,
            message,
        })
    }
}

struct Walk {
    budget: Budget,
    found: Vec<Violation>,
}

impl Walk {
    fn at(
        &mut self,
        rules: &Rules,
        schema: &Schema,
        value: &Json,
        old: Option<&Json>,
        path: &str,
        whole: bool,
    ) {
        if self.budget.left() == 0 || value.is_null() {
            return;
        }
        if !rules.here.is_empty() {
            self.here(rules, schema, value, old, path, whole);
        }
        match value {
            Json::Object(fields) => {
                for (name, value) in fields {
                    let below = rules.fields.get(name).or(rules.values.as_deref());
                    let (Some(rules), Some(schema)) = (below, schema.field(name)) else {
                        continue;
                    };
                    let old = old.and_then(|old| old.get(name));
                    self.at(rules, schema, value, old, &child(path, name), false);
                }
            }
            Json::Array(items) => {
                let (Some(rules), Some(of)) = (&rules.items, &schema.items) else {
                    return;
                };
                for (index, item) in items.iter().enumerate() {
                    let old = old.and_then(|old| same_item(schema, item, old));
                    self.at(rules, of, item, old, &format!("{path}[{index}]"), false);
                }
            }
            _ => {}
        }
    }

    fn here(
        &mut self,
        rules: &Rules,
        schema: &Schema,
        value: &Json,
        old: Option<&Json>,
        path: &str,
        whole: bool,
    ) {
        let mut variables = Variables::new();
        variables.insert("self".to_owned(), value_of(schema, value, whole));
        let before = old.map(|old| value_of(schema, old, whole));
        // What is as it was may stay, though a rule came after it; a transition is always looked at.
        let unchanged = old.is_some_and(|old| old == value);
        for parsed in &rules.here {
            if unchanged && !parsed.transition {
                continue;
            }
            match (&before, parsed.transition, parsed.rule.optional_old_self) {
                (None, true, false) => continue,
                (before, _, true) => {
                    let before = Value::Optional(before.clone().map(Arc::new));
                    variables.insert("oldSelf".to_owned(), before);
                }
                (Some(before), _, false) => {
                    variables.insert("oldSelf".to_owned(), before.clone());
                }
                (None, false, false) => {}
            }
            let mut own = Budget::new(EXPRESSION_COST_MAX.min(self.budget.left()));
            let before = own.left();
            let outcome = parsed.program.evaluate(&variables, &mut own);
            let spent = self.budget.spend(before - own.left());
            let place = format!("{path}{}", parsed.rule.field_path);
            let place = place.strip_prefix('.').unwrap_or(&place);
            match outcome {
                Ok(Value::Bool(true)) => {}
                Ok(Value::Bool(false)) => {
                    let message = parsed.message(&variables, &mut self.budget);
                    self.found
                        .push(parsed.violation(place, schema, value, message));
                }
                Ok(_) => self.fault(place, schema, "rule does not evaluate to a bool".to_owned()),
                Err(CelError::Cost) => {
                    let text = "validation failed due to running out of cost budget, no further \
                                validation rules will be run";
                    self.fault(place, schema, text.to_owned());
                    self.budget = Budget::new(0);
                    return;
                }
                Err(fault) => {
                    let text = format!("rule evaluation error: {}: {fault}", parsed.rule.rule);
                    self.fault(place, schema, text);
                }
            }
            if spent.is_err() {
                return;
            }
        }
    }

    fn fault(&mut self, path: &str, schema: &Schema, detail: String) {
        self.found
            .push(Violation::invalid(path, type_of(schema), detail));
    }
}

impl Parsed {
    fn message(&self, variables: &Variables, budget: &mut Budget) -> String {
        let made =
            self.message
                .as_ref()
                .and_then(|program| match program.evaluate(variables, budget) {
                    Ok(Value::Text(text)) if !text.trim().is_empty() && !text.contains('\n') => {
                        Some(text.as_ref().to_owned())
                    }
                    _ => None,
                });
        match made {
            Some(text) => text,
            None if self.rule.message.is_empty() => format!("failed rule: {}", self.rule.rule),
            None => self.rule.message.clone(),
        }
    }

    fn violation(&self, path: &str, schema: &Schema, value: &Json, message: String) -> Violation {
        match self.rule.reason.as_str() {
            "FieldValueForbidden" => Violation::forbidden(path, message),
            "FieldValueRequired" => Violation::required(path, message),
            "FieldValueDuplicate" => {
                Violation::new(path, Reason::Duplicate(value.clone()), String::new())
            }
            _ => Violation::invalid(path, type_of(schema), message),
        }
    }
}

fn type_of(schema: &Schema) -> &'static str {
    match schema.kind {
        Some(kind) => kind.name(),
        None if schema.int_or_string => "integer or string",
        None => "object",
    }
}

/// The item of an old list that an item was before; only items with keys can be found again.
fn same_item<'a>(schema: &Schema, item: &Json, old: &'a Json) -> Option<&'a Json> {
    if schema.list_type != Some(ListType::Map) {
        return None;
    }
    let same = |other: &&Json| {
        schema
            .list_map_keys
            .iter()
            .all(|key| item.get(key) == other.get(key))
    };
    old.as_array()?.iter().find(same)
}

/// A value as its schema types it.
fn value_of(schema: &Schema, json: &Json, whole: bool) -> Value {
    match json {
        Json::Null | Json::Bool(_) => Value::of(json),
        Json::Number(number) => match schema.kind {
            Some(Type::Number) => Value::Double(number.as_f64().unwrap_or_default()),
            _ => whole_number(json),
        },
        Json::String(text) => text_of(schema, text),
        Json::Array(items) => match &schema.items {
            Some(schema) => Value::list(items.iter().map(|i| value_of(schema, i, false)).collect()),
            None => Value::of(json),
        },
        Json::Object(fields) => {
            let whole = whole || schema.embedded;
            let fields = fields.iter();
            let fields = fields.filter_map(|(name, value)| entry(schema, name, value, whole));
            Value::Map(Arc::new(fields.collect()))
        }
    }
}

/// A field as expressions see it; nothing when they cannot name it.
fn entry(schema: &Schema, name: &str, value: &Json, whole: bool) -> Option<(String, Value)> {
    if whole && name == "metadata" {
        let own = ["name", "generateName"].into_iter();
        let own = own.filter_map(|field| Some((field.to_owned(), Value::of(value.get(field)?))));
        return Some((name.to_owned(), Value::Map(Arc::new(own.collect()))));
    }
    if let Some(property) = schema.properties.get(name) {
        return Some((escaped(name)?, value_of(property, value, false)));
    }
    let value = match &schema.additional {
        Some(Additional::Of(of)) => value_of(of, value, false),
        Some(Additional::Any(_)) | None => Value::of(value),
    };
    Some((name.to_owned(), value))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a whole number in the range of i64"
)]
fn whole_number(json: &Json) -> Value {
    match (json.as_i64(), json.as_f64()) {
        (None, Some(n)) if n.fract() == 0.0 && n.abs() < 9.2e18 => Value::Int(n as i64),
        _ => Value::of(json),
    }
}

fn text_of(schema: &Schema, text: &str) -> Value {
    let plain = || Value::text(text);
    match schema.checks.format.as_str() {
        "date-time" | "datetime" => text.parse().map_or_else(|_form| plain(), Value::Timestamp),
        "date" => format!("{text}T00:00:00Z")
            .parse()
            .map_or_else(|_form| plain(), Value::Timestamp),
        "duration" => duration_nanoseconds(text).map_or_else(plain, Value::Duration),
        _ => plain(),
    }
}

/// A field's name as expressions write it; nothing when they cannot.
fn escaped(name: &str) -> Option<String> {
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let escaped = name
        .replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__");
    let mut chars = escaped.chars();
    let first = chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    (first && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')).then_some(escaped)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(schema: &Json, object: &Json, old: Option<&Json>) -> Vec<String> {
        let schema = Schema::parse(schema).unwrap();
        let found = Rules::of(&schema).evaluate(&schema, object, old);
        found
            .iter()
            .map(|v| format!("{}: {}", v.path, v.detail))
            .collect()
    }

    #[test]
    fn rules_hold_at_their_places() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object",
            "properties": {"min": {"type": "integer"}, "max": {"type": "integer"},
                "ports": {"type": "array", "items": {"type": "object",
                    "properties": {"port": {"type": "integer"}},
                    "x-kubernetes-validations": [{"rule": "self.port > 0", "message": "positive"}]}}},
            "x-kubernetes-validations": [
                {"rule": "self.min <= self.max", "messageExpression": "'min is ' + string(self.min)"},
                {"rule": "self.min == oldSelf.min", "fieldPath": ".min", "reason": "FieldValueForbidden"}]}}});
        let object = json!({"spec": {"min": 3, "max": 2, "ports": [{"port": 1}, {"port": 0}]}});
        let old = json!({"spec": {"min": 1, "max": 2}});
        assert_eq!(
            told(&schema, &object, None),
            ["spec: min is 3", "spec.ports[1]: positive"]
        );
        assert_eq!(
            told(&schema, &object, Some(&old)),
            [
                "spec: min is 3",
                "spec.min: failed rule: self.min == oldSelf.min",
                "spec.ports[1]: positive"
            ]
        );
    }

    #[test]
    fn an_expensive_rule_ends_with_the_budget() {
        let schema = json!({"type": "object", "properties": {"l": {"type": "array",
            "items": {"type": "integer"}, "x-kubernetes-validations": [
                {"rule": "self.all(a, self.all(b, self.all(c, a + b + c > 0)))"}]}}});
        let object = json!({"l": (1..200).collect::<Vec<i32>>()});
        let told = told(&schema, &object, None);
        assert!(told[0].contains("running out of cost budget"), "{told:?}");
    }
}
