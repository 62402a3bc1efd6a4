//! What webhooks and policies are asked about: rules, selectors, conditions.

use std::collections::HashSet;

use control_plane_apiextensions::cel::{Env, Program, Type};
use proto_api::names;
use serde_json::Value;

use crate::field::FieldError;
use crate::tree::{self, Object};
use crate::validation::{Errors, Place, label_selector};

pub(super) const FAILURE_POLICIES: &[&str] = &["Fail", "Ignore"];
pub(super) const MATCH_POLICIES: &[&str] = &["Equivalent", "Exact"];
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: &[&str] = &["*", "Cluster", "Namespaced"];
const CONDITIONS_MAX: usize = 64;

/// Fills what the client left out of a webhook or of `matchConstraints`.
pub(super) fn default(holder: &mut Object, rules: &[&str]) {
    tree::default_text(holder, "matchPolicy", "Equivalent");
    for selector in ["namespaceSelector", "objectSelector"] {
        tree::default(holder, selector, serde_json::json!({}));
    }
    for field in rules {
        for rule in tree::list_mut(holder, field) {
            tree::default_text(tree::as_object(rule), "scope", "*");
        }
    }
}

/// Checks the selectors and the match policy.
pub(super) fn validate_selectors(holder: &Place<'_>, errors: &mut Errors) {
    holder.get("matchPolicy").one_of(MATCH_POLICIES, errors);
    for field in ["namespaceSelector", "objectSelector"] {
        let selector = holder.get(field);
        label_selector(selector.value, &selector.path, errors);
    }
}

/// Checks one rule.
pub(super) fn validate_rule(rule: &Place<'_>, errors: &mut Errors) {
    let operations = rule.get("operations");
    if operations.is_unset() {
        operations.required("", errors);
    }
    alone(&operations, "operations", errors);
    for operation in operations.items() {
        operation.one_of(OPERATIONS, errors);
    }
    let groups = rule.get("apiGroups");
    if groups.is_unset() {
        groups.required("", errors);
    }
    alone(&groups, "API groups", errors);
    let versions = rule.get("apiVersions");
    if versions.is_unset() {
        versions.required("", errors);
    }
    alone(&versions, "API versions", errors);
    for version in versions.items() {
        version.required_text(errors);
    }
    validate_resources(&rule.get("resources"), errors);
    rule.get("scope").one_of(SCOPES, errors);
}

/// A wildcard stands for all others.
fn alone(list: &Place<'_>, what: &str, errors: &mut Errors) {
    if list.len() > 1 && list.items().any(|item| item.text() == "*") {
        let detail = format!("if '*' is present, must not specify other {what}");
        list.invalid(detail, errors);
    }
}

fn validate_resources(resources: &Place<'_>, errors: &mut Errors) {
    if resources.is_unset() {
        resources.required("", errors);
    }
    let (mut all_of, mut in_all) = (HashSet::new(), HashSet::new());
    let (mut plain, mut star) = (false, false);
    for resource in resources.items() {
        let text = resource.text();
        if !resource.required_text(errors) {
            continue;
        }
        star |= text == "*";
        let Some((name, sub)) = text.split_once('/') else {
            plain |= text != "*";
            continue;
        };
        if all_of.contains(name) {
            let detail = format!("if '{name}/*' is present, must not specify {text}");
            resource.invalid(detail, errors);
        }
        if in_all.contains(sub) {
            let detail = format!("if '*/{sub}' is present, must not specify {text}");
            resource.invalid(detail, errors);
        }
        if sub == "*" {
            all_of.insert(name);
        }
        if name == "*" {
            in_all.insert(sub);
        }
    }
    if resources.len() > 1 && resources.items().any(|one| one.text() == "*/*") {
        let detail = "if '*/*' is present, must not specify other resources";
        resources.invalid(detail, errors);
    }
    if star && plain {
        let detail = "if '*' is present, must not specify other resources without subresources";
        resources.invalid(detail, errors);
    }
}

/// Checks `matchResources` or `matchConstraints` of a policy.
pub(super) fn validate_match(matched: &Place<'_>, errors: &mut Errors) {
    let policy = matched.get("matchPolicy");
    if policy.is_present() {
        policy.one_of(MATCH_POLICIES, errors);
    } else {
        policy.required("", errors);
    }
    validate_selectors_only(matched, errors);
    for field in ["resourceRules", "excludeResourceRules"] {
        for rule in matched.get(field).items() {
            let mut seen = HashSet::new();
            for name in rule.get("resourceNames").items() {
                name.named(names::path_segment, errors);
                if !seen.insert(name.text()) {
                    name.duplicate(errors);
                }
            }
            validate_rule(&rule, errors);
        }
    }
}

fn validate_selectors_only(matched: &Place<'_>, errors: &mut Errors) {
    for field in ["namespaceSelector", "objectSelector"] {
        let selector = matched.get(field);
        if selector.is_present() {
            label_selector(selector.value, &selector.path, errors);
        } else {
            selector.required("", errors);
        }
    }
}

/// Checks that an expression names what there is and makes a value of one of these types (none:
/// of any).
pub(super) fn validate_expression(
    expression: &Place<'_>,
    env: &Env,
    wanted: &[Type],
    errors: &mut Errors,
) {
    match Program::checked(expression.text(), env) {
        Err(fault) => expression.invalid(format!("compilation failed: {fault}"), errors),
        Ok(program) => {
            let found = program.result();
            if wanted.is_empty() || *found == Type::Dyn || wanted.contains(found) {
                return;
            }
            let names: Vec<String> = wanted.iter().map(ToString::to_string).collect();
            let detail = match names.as_slice() {
                [one] => format!("must evaluate to {one}"),
                many => format!("must evaluate to one of [{}]", many.join(" ")),
            };
            expression.invalid(detail, errors);
        }
    }
}

/// Checks `matchConditions`, which may name what `env` declares.
pub(super) fn validate_conditions(conditions: &Place<'_>, env: &Env, errors: &mut Errors) {
    if conditions.len() > CONDITIONS_MAX {
        let count = conditions.len();
        errors.push(FieldError::too_many(
            &conditions.path,
            count,
            CONDITIONS_MAX,
        ));
    }
    let mut seen = HashSet::new();
    for condition in conditions.items() {
        let expression = condition.get("expression");
        if expression.text().trim().is_empty() {
            expression.required("", errors);
        } else {
            validate_expression(&expression, env, &[Type::Bool], errors);
        }
        let name = condition.get("name");
        if name.required_text(errors) {
            name.named(names::qualified_name, errors);
            if !seen.insert(name.text()) {
                name.duplicate(errors);
            }
        }
    }
}

/// `apiVersion` and `kind` of a policy's parameters.
pub(super) fn validate_param_kind(kind: &Place<'_>, errors: &mut Errors) {
    let version = kind.get("apiVersion");
    if version.required_text(errors) {
        let parts: Vec<&str> = version.text().split('/').collect();
        let (group, plain) = match parts.as_slice() {
            [plain] => ("", *plain),
            [group, plain] => (*group, *plain),
            _ => {
                let detail = format!("unexpected GroupVersion string: {}", version.text());
                return version.invalid(detail, errors);
            }
        };
        let mut refuse = |value: &str, problems: Vec<String>| {
            if !problems.is_empty() {
                let detail = problems.join(",");
                errors.push(FieldError::invalid(&version.path, value, detail));
            }
        };
        if !group.is_empty() {
            refuse(group, names::dns_subdomain(group));
        }
        refuse(plain, names::dns_1035_label(plain));
    }
    let name = kind.get("kind");
    if name.required_text(errors) {
        let problems = names::dns_1035_label(&name.text().to_lowercase());
        if !problems.is_empty() {
            let detail = format!(
                "may have mixed case, but should otherwise match: {}",
                problems.join(",")
            );
            name.invalid(detail, errors);
        }
    }
}

/// How many items the list at `path` has, as a cell.
pub(super) fn count_text(object: &Value, path: &[&str]) -> Value {
    Value::from(tree::list(object, path).len())
}
