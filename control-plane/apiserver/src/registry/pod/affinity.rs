//! Where a pod may, should and should not run: node selectors, affinities, tolerations, spreading.

use proto_api::names;

use crate::field::FieldError;
use crate::validation::{Errors, Place, label_selector, sentences};

const WEIGHT_DETAIL: &str = "must be in the range 1-100";
const OPERATOR_DETAIL: &str = "not a valid selector operator";
const TOLERATION_EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Checks `affinity`.
pub(super) fn validate_affinity(affinity: &Place<'_>, errors: &mut Errors) {
    let node = affinity.get("nodeAffinity");
    let required = node.get(REQUIRED);
    if required.is_present() {
        node_selector(&required, errors);
    }
    for term in node.get(PREFERRED).items() {
        weight(&term.get("weight"), errors);
        node_term(&term.get("preference"), Values::Any, errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let pods = affinity.get(kind);
        for term in pods.get(REQUIRED).items() {
            pod_term(&term, errors);
        }
        for term in pods.get(PREFERRED).items() {
            weight(&term.get("weight"), errors);
            pod_term(&term.get("podAffinityTerm"), errors);
        }
    }
}

fn weight(weight: &Place<'_>, errors: &mut Errors) {
    let number = weight.int().unwrap_or_default();
    if !(1..=100).contains(&number) {
        errors.push(FieldError::invalid(&weight.path, number, WEIGHT_DETAIL));
    }
}

/// Whether the values of a requirement must be possible label values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    Labels,
    Any,
}

/// Checks a node selector; persistent volumes have one too.
pub(crate) fn node_selector(selector: &Place<'_>, errors: &mut Errors) {
    let terms = selector.get("nodeSelectorTerms");
    if terms.is_unset() {
        terms.required("must have at least one node selector term", errors);
    }
    for term in terms.items() {
        node_term(&term, Values::Labels, errors);
    }
}

fn node_term(term: &Place<'_>, values: Values, errors: &mut Errors) {
    for requirement in term.get("matchExpressions").items() {
        node_requirement(&requirement, values, errors);
    }
    for requirement in term.get("matchFields").items() {
        field_requirement(&requirement, errors);
    }
}

fn node_requirement(requirement: &Place<'_>, kind: Values, errors: &mut Errors) {
    let values = requirement.get("values");
    let operator = requirement.get("operator");
    match operator.text() {
        "In" | "NotIn" if values.is_unset() => {
            let detail = "must be specified when `operator` is 'In' or 'NotIn'";
            values.required(detail, errors);
        }
        "Exists" | "DoesNotExist" if !values.is_unset() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            values.forbidden(detail, errors);
        }
        "Gt" | "Lt" if values.len() != 1 => {
            let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            values.required(detail, errors);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        _ => operator_unknown(&operator, errors),
    }
    requirement.get("key").named(names::qualified_name, errors);
    if kind == Values::Labels {
        for value in values.items() {
            value.named(names::label_value, errors);
        }
    }
}

fn operator_unknown(operator: &Place<'_>, errors: &mut Errors) {
    let text = operator.text();
    errors.push(FieldError::invalid(&operator.path, text, OPERATOR_DETAIL));
}

fn field_requirement(requirement: &Place<'_>, errors: &mut Errors) {
    let values = requirement.get("values");
    let operator = requirement.get("operator");
    match operator.text() {
        "In" | "NotIn" if values.len() != 1 => {
            let detail =
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            values.required(detail, errors);
        }
        "In" | "NotIn" => {}
        _ => operator_unknown(&operator, errors),
    }
    let key = requirement.get("key");
    if key.text() == "metadata.name" {
        for value in values.items() {
            value.named(names::dns_subdomain, errors);
        }
    } else {
        let detail = "not a valid field selector key";
        errors.push(FieldError::invalid(&key.path, key.text(), detail));
    }
}

fn pod_term(term: &Place<'_>, errors: &mut Errors) {
    let selector = term.get("labelSelector");
    for one in [&selector, &term.get("namespaceSelector")] {
        label_selector(one.value, &one.path, errors);
    }
    for name in term.get("namespaces").items() {
        let place = term.get("namespace");
        sentences(
            name.text(),
            &place.path,
            names::dns_label(name.text()),
            errors,
        );
    }
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        let keys = term.get(field);
        if keys.is_unset() {
            continue;
        }
        if !selector.is_present() {
            keys.forbidden(
                "must not be specified when labelSelector is not set",
                errors,
            );
            continue;
        }
        for key in keys.items() {
            key.named(names::qualified_name, errors);
        }
    }
    let mismatched = term.get("mismatchLabelKeys");
    for key in term.get("matchLabelKeys").items() {
        if mismatched.items().any(|other| other.value == key.value) {
            let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
            key.invalid(detail, errors);
        }
    }
    let key = term.get("topologyKey");
    if key.text().is_empty() {
        key.required("can not be empty", errors);
    }
    key.named(names::qualified_name, errors);
}

/// Checks `topologySpreadConstraints`.
pub(super) fn validate_spreading(constraints: &Place<'_>, errors: &mut Errors) {
    let all: Vec<Place<'_>> = constraints.items().collect();
    for (i, constraint) in all.iter().enumerate() {
        let skew = constraint.get("maxSkew");
        let number = skew.int().unwrap_or_default();
        if number <= 0 {
            let detail = "must be greater than zero";
            errors.push(FieldError::invalid(&skew.path, number, detail));
        }
        let key = constraint.get("topologyKey");
        if key.text().is_empty() {
            key.required("can not be empty", errors);
        }
        let action = constraint.get("whenUnsatisfiable");
        let known = &["DoNotSchedule", "ScheduleAnyway"];
        if !known.contains(&action.text()) {
            let error = FieldError::not_supported(&action.path, action.text(), known);
            errors.push(error);
        }
        let repeated = all.iter().skip(i + 1).any(|other| {
            other.get("topologyKey").value == key.value
                && other.get("whenUnsatisfiable").value == action.value
        });
        if repeated {
            let path = constraint.path.child("{topologyKey, whenUnsatisfiable}");
            let value = format!("{{{}, {}}}", key.text(), action.text());
            errors.push(FieldError::duplicate(&path, value));
        }
        spread_details(constraint, action.text(), errors);
    }
}

fn spread_details(constraint: &Place<'_>, action: &str, errors: &mut Errors) {
    let domains = constraint.get("minDomains");
    if let Some(number) = domains.int() {
        if number <= 0 {
            domains.invalid("must be greater than zero", errors);
        }
        if action != "DoNotSchedule" {
            let detail =
                format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
            domains.invalid(detail, errors);
        }
    }
    for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
        constraint.get(field).one_of(&["Honor", "Ignore"], errors);
    }
    let selector = constraint.get("labelSelector");
    let keys = constraint.get("matchLabelKeys");
    if !keys.is_unset() && !selector.is_present() {
        keys.forbidden(
            "must not be specified when labelSelector is not set",
            errors,
        );
    }
    for key in keys.items() {
        key.named(names::qualified_name, errors);
        let labels = selector.get("matchLabels");
        let expressions = selector.get("matchExpressions");
        let selected = labels.entries().any(|(label, _)| label == key.text())
            || expressions
                .items()
                .any(|one| one.get("key").value == key.value);
        if selected {
            let detail = "exists in both matchLabelKeys and labelSelector";
            key.invalid(detail, errors);
        }
    }
    label_selector(selector.value, &selector.path, errors);
}

/// Checks `tolerations`.
pub(crate) fn validate_tolerations(tolerations: &Place<'_>, errors: &mut Errors) {
    for toleration in tolerations.items() {
        let (key, operator) = (toleration.get("key"), toleration.get("operator"));
        let (value, effect) = (toleration.get("value"), toleration.get("effect"));
        key.named_if_set(names::qualified_name, errors);
        if key.text().is_empty() && operator.text() != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(&operator.path, operator.text(), detail));
        }
        if toleration.get("tolerationSeconds").is_present() && effect.text() != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(&effect.path, effect.text(), detail));
        }
        match operator.text() {
            "" | "Equal" => {
                let problems = names::label_value(value.text());
                if !problems.is_empty() {
                    let detail = problems.join(";");
                    errors.push(FieldError::invalid(&operator.path, value.text(), detail));
                }
            }
            "Exists" if !value.text().is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                errors.push(FieldError::invalid(&operator.path, value.text(), detail));
            }
            "Exists" => {}
            "Lt" | "Gt" if value.text().parse::<i64>().is_err() => {
                let detail = "value must be a valid integer when `operator` is 'Lt' or 'Gt'";
                errors.push(FieldError::invalid(&operator.path, value.text(), detail));
            }
            "Lt" | "Gt" => {}
            other => {
                let known = &["Equal", "Exists"];
                errors.push(FieldError::not_supported(&operator.path, other, known));
            }
        }
        if !effect.text().is_empty() {
            effect.one_of(TOLERATION_EFFECTS, errors);
        }
    }
}
