//! AdmissionReview: the question, and what may be taken of the answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::request::Request;
use super::super::told::told;
use super::hook::{ReviewVersion, Step};
use crate::registry::Kind;
use crate::status::StatusError;
use crate::tree;

/// The question about `object` (null: there is none), shown as `kind` has it.
pub(super) fn question(
    version: ReviewVersion,
    uid: &str,
    request: &Request<'_>,
    kind: &Kind,
    (object, old): (Value, Value),
) -> Value {
    let mut asked = told(request, kind);
    asked["uid"] = json!(uid);
    asked["object"] = object;
    asked["oldObject"] = old;
    json!({"kind": "AdmissionReview", "apiVersion": version.api_version(), "request": asked})
}

/// What a webhook said.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) allowed: bool,
    /// `response.status`.
    pub(super) status: Value,
    /// The operations of a JSON patch; none: nothing changes.
    pub(super) patch: Vec<Value>,
    pub(super) warnings: Vec<String>,
    pub(super) annotations: Vec<(String, String)>,
}

/// Why an answer cannot be used; Display is upstream's wording.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("received invalid webhook response: {0}")]
    Invalid(String),
    #[error("received undecodable patch in webhook response: {0}")]
    Patch(String),
    #[error("unsupported patch type \"{0}\"")]
    PatchType(String),
}

/// Reads an answer to the question `uid`.
pub(super) fn answered(
    version: ReviewVersion,
    step: Step,
    uid: &str,
    answer: &Value,
) -> Result<Answer, AnswerError> {
    let response = tree::at(answer, &["response"]);
    check(version, step, uid, answer).map_err(AnswerError::Invalid)?;
    let texts = |path: &[&str]| -> Vec<String> {
        let items = tree::list(response, path).iter();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let allowed = tree::flag(response, &["allowed"]);
    Ok(Answer {
        allowed,
        status: tree::at(response, &["status"]).clone(),
        // What is refused is not changed either.
        patch: if allowed {
            patch(response)?
        } else {
            Vec::new()
        },
        warnings: texts(&["warnings"]),
        annotations: tree::entries(response, &["auditAnnotations"])
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect(),
    })
}

fn check(version: ReviewVersion, step: Step, uid: &str, answer: &Value) -> Result<(), String> {
    let response = tree::at(answer, &["response"]);
    if response.is_null() {
        return Err("webhook response was absent".to_owned());
    }
    let got = tree::text(response, &["uid"]);
    let mut patch_type = tree::at(response, &["patchType"]);
    let patch = tree::text(response, &["patch"]);
    match version {
        ReviewVersion::V1 => {
            if got != uid {
                return Err(format!("expected response.uid=\"{uid}\", got \"{got}\""));
            }
            let expected = format!("{}, Kind=AdmissionReview", version.api_version());
            let got = format!(
                "{}, Kind={}",
                tree::text(answer, &["apiVersion"]),
                tree::text(answer, &["kind"])
            );
            if got != expected {
                return Err(format!(
                    "expected webhook response of {expected}, got {got}"
                ));
            }
        }
        // These were never checked, and a patch without a type is a JSON patch.
        ReviewVersion::V1Beta1 if step == Step::Mutating => patch_type = &Value::Null,
        ReviewVersion::V1Beta1 => return Ok(()),
    }
    match (step, patch.is_empty(), patch_type.is_null()) {
        (Step::Mutating, false, true) if version == ReviewVersion::V1 => {
            Err("webhook returned response.patch but not response.patchType".to_owned())
        }
        (Step::Mutating, true, false) => {
            Err("webhook returned response.patchType but not response.patch".to_owned())
        }
        (Step::Mutating, false, false) if tree::is_unset(patch_type) => {
            Err("webhook returned invalid response.patchType of \"\"".to_owned())
        }
        (Step::Validating, false, _) => {
            Err("validating webhook may not return response.patch".to_owned())
        }
        (Step::Validating, true, false) => {
            Err("validating webhook may not return response.patchType".to_owned())
        }
        _ => Ok(()),
    }
}

fn patch(response: &Value) -> Result<Vec<Value>, AnswerError> {
    let text = tree::text(response, &["patch"]);
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let bytes = STANDARD
        .decode(text)
        .map_err(|fault| AnswerError::Patch(fault.to_string()))?;
    let operations: Value =
        serde_json::from_slice(&bytes).map_err(|fault| AnswerError::Patch(fault.to_string()))?;
    match (tree::text(response, &["patchType"]), operations) {
        ("" | "JSONPatch", Value::Array(operations)) => Ok(operations),
        ("" | "JSONPatch", _) => Err(AnswerError::Patch("it is not a list".to_owned())),
        (other, _) => Err(AnswerError::PatchType(other.to_owned())),
    }
}

/// A refusal as the client is told.
pub(super) fn rejection(webhook: &str, status: &Value) -> StatusError {
    let denied = format!("admission webhook \"{webhook}\" denied the request");
    let (message, reason) = (
        tree::text(status, &["message"]),
        tree::text(status, &["reason"]),
    );
    let message = match (message, reason) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    let code = tree::int(status, &["code"]).and_then(|code| u16::try_from(code).ok());
    let code = code
        .filter(|code| (400..=999).contains(code))
        .unwrap_or(400);
    let mut shown = match status {
        Value::Object(_) => status.clone(),
        _ => json!({}),
    };
    let fields = tree::as_object(&mut shown);
    fields.insert("kind".to_owned(), json!("Status"));
    fields.insert("apiVersion".to_owned(), json!("v1"));
    if !fields.get("metadata").is_some_and(Value::is_object) {
        fields.insert("metadata".to_owned(), json!({}));
    }
    let told = fields.get("status").and_then(Value::as_str);
    if matches!(told, None | Some("" | "Success")) {
        fields.insert("status".to_owned(), json!("Failure"));
    }
    fields.insert("message".to_owned(), json!(message));
    fields.insert("code".to_owned(), json!(code));
    StatusError::relayed(code, message, shown)
}

#[cfg(test)]
mod tests;
