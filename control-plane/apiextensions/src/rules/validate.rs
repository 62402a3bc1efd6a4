//! Whether the rules of a schema are sound: expressions of the right type that cannot cost too much.

use std::sync::Arc;

use serde_json::json;

use super::declared::{cardinality_max, declared};
use crate::cel::{Declared, ESTIMATE_MAX, Env, Program, SCHEMA_ESTIMATE_MAX, Type as Cel};
use crate::structural::{Additional, Rule, Schema};
use crate::violation::Violation;

/// How many of the dearest expressions are named when all together cost too much.
const DEAREST: usize = 4;
const REASONS: [&str; 4] = [
    "FieldValueInvalid",
    "FieldValueForbidden",
    "FieldValueRequired",
    "FieldValueDuplicate",
];

/// Checks the rules of `schema`; `path` is the schema's place.
#[must_use]
pub fn validate_rules(schema: &Schema, path: &str) -> Vec<Violation> {
    let mut check = Check::default();
    check.schema(schema, path, true, Some(1));
    check.total(path);
    check.found
}

#[derive(Default)]
struct Check {
    found: Vec<Violation>,
    /// Cost and place of each expression.
    costs: Vec<(u64, String)>,
}

impl Check {
    /// `times`: how often a value of this schema may occur; nothing when it is not bounded.
    fn schema(&mut self, schema: &Schema, path: &str, whole: bool, times: Option<u64>) {
        if !schema.rules.is_empty() {
            let own = declared(schema, whole || schema.embedded);
            for (index, rule) in schema.rules.iter().enumerate() {
                let path = format!("{path}.x-kubernetes-validations[{index}]");
                self.rule(rule, own.as_ref(), &path, times);
            }
        }
        for (name, property) in &schema.properties {
            let path = format!("{path}.properties[{name}]");
            self.schema(property, &path, false, times);
        }
        let below = |most: Option<usize>| {
            let most = u64::try_from(most?).unwrap_or(u64::MAX);
            Some(times?.saturating_mul(most))
        };
        if let Some(Additional::Of(values)) = &schema.additional {
            let times = below(schema.checks.properties.1);
            self.schema(
                values,
                &format!("{path}.additionalProperties"),
                false,
                times,
            );
        }
        if let Some(items) = &schema.items {
            let times = below(schema.checks.items.1);
            self.schema(items, &format!("{path}.items"), false, times);
        }
    }

    fn rule(&mut self, rule: &Rule, own: Option<&Arc<Declared>>, path: &str, times: Option<u64>) {
        let at = |name: &str| format!("{path}.{name}");
        if rule.rule.trim().is_empty() {
            self.found
                .push(Violation::required(&at("rule"), "rule is not specified"));
            return;
        }
        self.words(rule, path);
        let unknown = || Arc::new(Declared::unsized_of(Cel::Dyn));
        let own = own.map_or_else(unknown, Arc::clone);
        let env = environment(&own, rule.optional_old_self);
        match Program::checked(&rule.rule, &env) {
            Ok(program) if *program.result() != Cel::Bool => {
                let detail = "cel expression must evaluate to a bool";
                self.found
                    .push(Violation::invalid(&at("rule"), shown(rule), detail));
            }
            Ok(program) => {
                let times = times.unwrap_or_else(|| cardinality_max(&own));
                let cost = program.cost_max().saturating_mul(times);
                self.cost(&at("rule"), "estimated rule cost", cost);
            }
            Err(fault) => {
                let detail = format!("compilation failed: {fault}");
                self.found
                    .push(Violation::invalid(&at("rule"), shown(rule), detail));
            }
        }
        if rule.message_expression.is_empty() {
            return;
        }
        let path = at("messageExpression");
        match Program::checked(&rule.message_expression, &env) {
            Ok(program) if *program.result() != Cel::Text => {
                let detail = "messageExpression must evaluate to a string";
                self.found
                    .push(Violation::invalid(&path, shown(rule), detail));
            }
            Ok(program) => {
                let what = "estimated messageExpression cost";
                self.cost(&path, what, program.cost_max());
            }
            Err(fault) => {
                let detail = format!("messageExpression compilation failed: {fault}");
                self.found
                    .push(Violation::invalid(&path, shown(rule), detail));
            }
        }
    }

    fn words(&mut self, rule: &Rule, path: &str) {
        let at = |name: &str| format!("{path}.{name}");
        if !rule.message.is_empty() && rule.message.trim().is_empty() {
            let detail = "message must be non-empty if specified";
            self.found.push(Violation::invalid(
                &at("message"),
                rule.message.clone(),
                detail,
            ));
        } else if rule.message.trim().contains(['\n', '\r']) {
            let detail = "message must not contain line breaks";
            self.found.push(Violation::invalid(
                &at("message"),
                rule.message.clone(),
                detail,
            ));
        }
        let worded = &rule.message_expression;
        if !worded.is_empty() && worded.trim().is_empty() {
            self.found.push(Violation::required(
                &at("messageExpression"),
                "messageExpression must be non-empty if specified",
            ));
        }
        if rule.rule.trim().contains(['\n', '\r']) && rule.message.is_empty() {
            self.found.push(Violation::required(
                &at("message"),
                "message must be specified if rule contains line breaks",
            ));
        }
        if !rule.reason.is_empty() && !REASONS.contains(&rule.reason.as_str()) {
            self.found.push(Violation::not_supported(
                &at("reason"),
                &rule.reason,
                &REASONS,
            ));
        }
    }

    fn cost(&mut self, path: &str, what: &str, cost: u64) {
        self.costs.push((cost, path.to_owned()));
        if cost > ESTIMATE_MAX {
            let detail = exceeded(what, cost, ESTIMATE_MAX);
            self.found.push(Violation::forbidden(path, detail));
        }
    }

    fn total(&mut self, path: &str) {
        let sum = self.costs.iter();
        let sum = sum.fold(0_u64, |sum, (cost, _)| sum.saturating_add(*cost));
        if sum <= SCHEMA_ESTIMATE_MAX {
            return;
        }
        self.costs.sort_by_key(|cost| std::cmp::Reverse(cost.0));
        for (_, place) in self.costs.iter().take(DEAREST) {
            let detail = "contributed to estimated rule cost total exceeding cost limit for \
                          entire OpenAPIv3 schema";
            self.found.push(Violation::forbidden(place, detail));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        let detail = exceeded(what, sum, SCHEMA_ESTIMATE_MAX);
        self.found.push(Violation::forbidden(path, detail));
    }
}

/// What rules may name.
pub(super) fn environment(own: &Arc<Declared>, optional_old: bool) -> Env {
    let old = match optional_old {
        true => {
            let mut old = (**own).clone();
            old.kind = Cel::Optional(Arc::new(own.kind.clone()));
            Arc::new(old)
        }
        false => Arc::clone(own),
    };
    Env::default()
        .with("self", Arc::clone(own))
        .with("oldSelf", old)
}

/// A rule as errors show it.
fn shown(rule: &Rule) -> serde_json::Value {
    json!({"rule": rule.rule, "message": rule.message,
        "messageExpression": rule.message_expression})
}

#[expect(clippy::cast_precision_loss, reason = "shown with a few digits")]
fn exceeded(what: &str, cost: u64, max: u64) -> String {
    let factor = cost as f64 / max as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding \
         maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cel::CelError;

    fn told(schema: &serde_json::Value) -> Vec<String> {
        let schema = Schema::parse(schema).unwrap();
        let found = validate_rules(&schema, "s");
        found
            .iter()
            .map(|v| format!("{}: {}", v.path, v.detail))
            .collect()
    }

    fn with(rule: &str) -> serde_json::Value {
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "n": {"type": "integer"}, "text": {"type": "string"},
            "short": {"type": "string", "maxLength": 10},
            "list": {"type": "array", "items": {"type": "string"}},
            "few": {"type": "array", "maxItems": 10, "items": {"type": "string", "maxLength": 10}},
            "map": {"type": "object", "additionalProperties": {"type": "integer"}},
            "any": {"x-kubernetes-int-or-string": true},
            "at": {"type": "string", "format": "date-time"}}}},
            "x-kubernetes-validations": [{"rule": rule}]})
    }

    #[test]
    fn sound_rules_are_let_through() {
        for rule in [
            "self.spec.n > 1 && self.metadata.name != 'x'",
            "self.spec.few.all(t, t.startsWith('a'))",
            "!has(self.spec.any) || (type(self.spec.any) == int ? self.spec.any > 1 : true)",
            "self.spec.at > timestamp('2026-01-01T00:00:00Z')",
            "self.spec.map.all(k, self.spec.map[k] > 0)",
            "self.spec.short.matches('^[a-z]+$')",
            "oldSelf.spec.n <= self.spec.n",
            "self.spec.few.exists(t, t in ['a', 'b']) && size(self.spec.list) < 3",
            "cel.bind(x, self.spec.n, x * x < 10)",
            "self.spec.few.map(t, size(t)).sum() < 100",
            "semver('1.2.3').isLessThan(semver('2.0.0'))",
        ] {
            assert_eq!(told(&with(rule)), Vec::<String>::new(), "{rule}");
        }
    }

    #[test]
    fn what_cannot_be_right_is_told_with_its_place() {
        let cases = [
            (
                "self.spec.missing == 1",
                "compilation failed: ERROR: <input>:1:10: undefined field 'missing'\n | \
                 self.spec.missing == 1\n | .........^",
            ),
            (
                "selff.a == 1",
                "compilation failed: ERROR: <input>:1:1: undeclared reference to 'selff' (in \
                 container '')\n | selff.a == 1\n | ^",
            ),
            (
                "self.spec.n + 'a' == 'b'",
                "compilation failed: ERROR: <input>:1:13: found no matching overload for '_+_' \
                 applied to '(int, string)'\n | self.spec.n + 'a' == 'b'\n | ............^",
            ),
            (
                "self.spec.text.nope()",
                "compilation failed: ERROR: <input>:1:20: undeclared reference to 'nope' (in \
                 container '')\n | self.spec.text.nope()\n | ...................^",
            ),
            ("self.spec.n", "cel expression must evaluate to a bool"),
            (
                "self.spec.n ==",
                "compilation failed: ERROR: <input>:1:15: Syntax error: mismatched input '<EOF>' \
                 expecting",
            ),
            (
                "self.spec.few.all(t, t > 1)",
                "compilation failed: ERROR: <input>:1:24: found no matching overload for '_>_' \
                 applied to '(string, int)'",
            ),
            (
                "[1, 'a'].size() == 2",
                "compilation failed: ERROR: <input>:1:5: expected type 'int' but found 'string'",
            ),
        ];
        for (rule, expected) in cases {
            let told = told(&with(rule));
            let expected = format!("s.x-kubernetes-validations[0].rule: {expected}");
            assert!(
                told.len() == 1 && told[0].starts_with(&expected),
                "{rule}: {told:#?}"
            );
        }
    }

    #[test]
    fn rules_that_may_cost_too_much_are_refused() {
        let nested = told(&with(
            "self.spec.list.all(a, self.spec.list.all(b, a != b))",
        ));
        assert!(
            nested[0].starts_with(
                "s.x-kubernetes-validations[0].rule: estimated rule cost exceeds budget by factor \
                 of more than 100x (try simplifying the rule, or adding maxItems"
            ),
            "{nested:#?}"
        );
        assert!(
            nested.last().unwrap().starts_with(
                "s: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 \
                 schema exceeds budget by factor of more than 100x"
            ),
            "{nested:#?}"
        );
        let bounded = told(&with("self.spec.few.all(a, self.spec.few.all(b, a != b))"));
        assert_eq!(bounded, Vec::<String>::new());
    }

    #[test]
    fn costs_are_what_upstream_estimates() {
        let schema = Schema::parse(&with("true")).unwrap();
        let env = environment(&declared(&schema, true).unwrap(), false);
        let cases = [
            ("true", 0),
            ("self.spec.n == 1", 3),
            ("has(self.spec.n)", 2),
            ("self.spec.n > 1", 4),
            // 3 to reach it, ten times (2 + 1 + 1 + 1 + 1), and the result.
            ("self.spec.few.all(t, t.startsWith('a'))", 54),
            ("self.spec.short.contains('abc')", 7),
            ("1 + 1 == 2", 2),
            ("size([1, 2, 3]) == 3", 12),
        ];
        for (rule, expected) in cases {
            let program = Program::checked(rule, &env).unwrap();
            assert_eq!(program.cost_max(), expected, "{rule}");
        }
    }

    #[test]
    fn a_fault_says_where() {
        let CelError::Compile(text) =
            Program::checked("'b' +\n 'ä' + x", &Env::default()).unwrap_err()
        else {
            unreachable!("it does not compile")
        };
        assert!(
            text.starts_with("ERROR: <input>:2:8: undeclared reference to 'x'"),
            "{text}"
        );
        assert!(text.ends_with(" |  'ä' + x\n | .......^"), "{text}");
    }
}
