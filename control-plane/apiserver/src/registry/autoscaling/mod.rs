//! HorizontalPodAutoscaler: replicas by measured use. Stored as `autoscaling/v2`; `autoscaling/v1`
//! is a view of the same objects.

mod metrics;
mod table;
mod view;

use proto_api::names;
use serde_json::{Value, json};

use super::strategy::{Prepare, Strategy};
use crate::field::FieldError;
use crate::tree;
use crate::validation::Place;

pub(super) use self::table::{TABLE, TABLE_V1};
pub(super) use self::view::VIEW;

const CPU_PERCENT: i64 = 80;
const WINDOW_SECONDS_MAX: i64 = 3600;
const PERIOD_SECONDS_MAX: i64 = 1800;
const SELECT_POLICIES: &[&str] = &["Disabled", "Max", "Min"];
const POLICY_TYPES: &[&str] = &["Percent", "Pods"];

#[derive(Debug)]
pub(super) struct HorizontalPodAutoscaler;

/// Fills the rules of one direction.
fn default_rules(behavior: &mut tree::Object, direction: &str, defaults: &Value) {
    let rules = behavior.entry(direction.to_owned()).or_insert(Value::Null);
    let rules = tree::as_object(rules);
    for (name, value) in tree::entries(defaults, &[]) {
        tree::default(rules, name, value.clone());
    }
}

fn check_rules(rules: &Place<'_>, errors: &mut Vec<FieldError>) {
    if !rules.is_present() {
        return;
    }
    let window = rules.get("stabilizationWindowSeconds");
    match window.int() {
        Some(seconds) if seconds < 0 => {
            window.invalid("must be greater than or equal to zero", errors);
        }
        Some(seconds) if seconds > WINDOW_SECONDS_MAX => {
            let detail = format!("must be less than or equal to {WINDOW_SECONDS_MAX}");
            window.invalid(detail, errors);
        }
        _ => {}
    }
    rules.get("selectPolicy").one_of(SELECT_POLICIES, errors);
    rules.get("tolerance").quantity(errors);
    let policies = rules.get("policies");
    if policies.len() == 0 {
        policies.required("must specify at least one Policy", errors);
    }
    for policy in policies.items() {
        let kind = policy.get("type");
        if !POLICY_TYPES.contains(&kind.text()) {
            errors.push(FieldError::not_supported(
                &kind.path,
                kind.text(),
                POLICY_TYPES,
            ));
        }
        for field in ["value", "periodSeconds"] {
            let number = policy.get(field);
            if number.int().unwrap_or_default() <= 0 {
                number.invalid("must be greater than zero", errors);
            }
        }
        let period = policy.get("periodSeconds");
        if period
            .int()
            .is_some_and(|seconds| seconds > PERIOD_SECONDS_MAX)
        {
            let detail = format!("must be less than or equal to {PERIOD_SECONDS_MAX}");
            period.invalid(detail, errors);
        }
    }
}

/// Checks a reference to an object of any version.
fn check_reference(reference: &Place<'_>, errors: &mut Vec<FieldError>) {
    for field in ["kind", "name"] {
        reference
            .get(field)
            .required_named(names::path_segment, errors);
    }
}

impl Strategy for HorizontalPodAutoscaler {
    fn has_status(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let spec = tree::object_mut(object, "spec");
        tree::default(spec, "minReplicas", 1);
        if spec.get("metrics").is_none_or(tree::is_unset) {
            let target = json!({"type": "Utilization", "averageUtilization": CPU_PERCENT});
            let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
            spec.insert("metrics".to_owned(), json!([metric]));
        }
        if let Some(Value::Object(behavior)) = spec.get_mut("behavior") {
            let up = json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
                {"type": "Pods", "value": 4, "periodSeconds": 15},
                {"type": "Percent", "value": 100, "periodSeconds": 15},
            ]});
            let down = json!({"selectPolicy": "Max", "policies": [
                {"type": "Percent", "value": 100, "periodSeconds": 15},
            ]});
            default_rules(behavior, "scaleUp", &up);
            default_rules(behavior, "scaleDown", &down);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        let status = json!({"currentReplicas": 0, "desiredReplicas": 0});
        tree::as_object(object).insert("status".to_owned(), status);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = Place::root(object, "spec");
        let (least, most) = (spec.get("minReplicas"), spec.get("maxReplicas"));
        if least.int().is_some_and(|replicas| replicas < 1) {
            least.invalid("must be greater than or equal to 1", &mut errors);
        }
        let bound = most.int().unwrap_or_default();
        if bound < 1 {
            errors.push(FieldError::invalid(
                &most.path,
                bound,
                "must be greater than 0",
            ));
        }
        if least.int().is_some_and(|replicas| bound < replicas) {
            let detail = "must be greater than or equal to `minReplicas`";
            errors.push(FieldError::invalid(&most.path, bound, detail));
        }
        check_reference(&spec.get("scaleTargetRef"), &mut errors);
        for metric in spec.get("metrics").items() {
            metrics::check(&metric, &mut errors);
        }
        let behavior = spec.get("behavior");
        check_rules(&behavior.get("scaleUp"), &mut errors);
        check_rules(&behavior.get("scaleDown"), &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, _old: &Value, write: Prepare) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if write == Prepare::Status {
            let status = Place::root(new, "status");
            status.get("currentReplicas").non_negative(&mut errors);
            status.get("desiredReplicas").non_negative(&mut errors);
        }
        errors
    }
}

#[cfg(test)]
mod tests;
