//! What a policy makes of one request with one parameter. Pure: values in, decisions out.

use control_plane_apiextensions::cel::Value as CelValue;
use control_plane_apiextensions::cel::{Budget, OBJECT_COST_MAX, Variables};

use super::parsed::{Expression, Failure, Policy, Validation};

/// What the conditions of a policy may cost together (as upstream).
const CONDITIONS_COST_MAX: u64 = 2_500_000;
/// Longer annotations are cut (as upstream).
const ANNOTATION_BYTES_MAX: usize = 10 * 1024;

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Which validation; nothing when the policy could not decide.
    pub(super) index: Option<usize>,
    pub(super) message: String,
    pub(super) reason: &'static str,
}

/// Refusals, and annotations by key.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) refusals: Vec<Refusal>,
    pub(super) annotations: Vec<(String, String)>,
}

/// Whether the policy's conditions let it speak; a message when they cannot tell.
pub(super) fn applies(policy: &Policy, variables: &Variables) -> Result<bool, String> {
    let mut budget = Budget::new(CONDITIONS_COST_MAX);
    let mut faults = Vec::new();
    for condition in &policy.conditions {
        match condition.evaluate(variables, &mut budget) {
            Ok(CelValue::Bool(true)) => {}
            Ok(CelValue::Bool(false)) => return Ok(false),
            Ok(other) => faults.push(not_a_bool(condition, &other)),
            Err(fault) => faults.push(fault),
        }
    }
    match faults.as_slice() {
        [] => Ok(true),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

fn not_a_bool(expression: &Expression, _found: &CelValue) -> String {
    format!(
        "expression '{}' resulted in error: must evaluate to bool",
        expression.source
    )
}

/// The verdict of a validating policy.
pub(super) fn decide(policy: &Policy, variables: &Variables) -> Verdict {
    let mut verdict = Verdict::default();
    let failed = |message: String, index| Refusal {
        index,
        message,
        reason: "Invalid",
    };
    match applies(policy, variables) {
        Ok(true) => {}
        Ok(false) => return verdict,
        Err(fault) => {
            if policy.failure == Failure::Fail {
                verdict.refusals.push(failed(fault, None));
            }
            return verdict;
        }
    }
    let mut budget = Budget::new(OBJECT_COST_MAX);
    for (index, validation) in policy.validations.iter().enumerate() {
        let fault = match validation.expression.evaluate(variables, &mut budget) {
            Ok(CelValue::Bool(true)) => continue,
            Ok(CelValue::Bool(false)) => {
                verdict.refusals.push(Refusal {
                    index: Some(index),
                    message: worded(validation, variables, &mut budget),
                    reason: reason(&validation.reason),
                });
                continue;
            }
            Ok(other) => not_a_bool(&validation.expression, &other),
            Err(fault) => fault,
        };
        if policy.failure == Failure::Fail {
            verdict.refusals.push(failed(fault, Some(index)));
        }
    }
    annotate(policy, variables, &mut budget, &mut verdict);
    verdict
}

fn annotate(policy: &Policy, variables: &Variables, budget: &mut Budget, verdict: &mut Verdict) {
    for (key, expression) in &policy.annotations {
        let fault = match expression.evaluate(variables, budget) {
            Ok(CelValue::Text(text)) => {
                let text: String = text.trim().chars().take(ANNOTATION_BYTES_MAX).collect();
                if !text.is_empty() {
                    verdict.annotations.push((key.clone(), text));
                }
                continue;
            }
            Ok(CelValue::Null) => continue,
            Ok(_) => format!(
                "valueExpression '{}' resulted in unsupported return type. Return type must be \
                 either string or null.",
                expression.source
            ),
            Err(fault) => fault,
        };
        if policy.failure == Failure::Fail {
            verdict.refusals.push(Refusal {
                index: None,
                message: fault,
                reason: "Invalid",
            });
        }
    }
}

/// The words of a refusal: the expression's, else the message, else the expression itself.
fn worded(validation: &Validation, variables: &Variables, budget: &mut Budget) -> String {
    let made = validation
        .worded
        .as_ref()
        .and_then(|worded| worded.evaluate(variables, budget).ok());
    if let Some(CelValue::Text(text)) = made {
        let text = text.trim();
        if !text.is_empty() && !text.contains(['\n', '\r']) {
            return text.to_owned();
        }
    }
    if validation.message.is_empty() {
        format!("failed expression: {}", validation.expression.source)
    } else {
        validation.message.clone()
    }
}

fn reason(text: &str) -> &'static str {
    match text {
        "Unauthorized" => "Unauthorized",
        "Forbidden" => "Forbidden",
        "RequestEntityTooLarge" => "RequestEntityTooLarge",
        _ => "Invalid",
    }
}

/// The status code of a refusal.
pub(super) const fn code(reason: &str) -> u16 {
    match reason.as_bytes() {
        b"Unauthorized" => 401,
        b"Forbidden" => 403,
        b"RequestEntityTooLarge" => 413,
        _ => 422,
    }
}
