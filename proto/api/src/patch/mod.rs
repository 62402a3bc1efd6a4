//! Patches on objects: JSON Patch, merge patch, strategic merge patch. One reason to change: what a
//! PATCH request may say.
//!
//! Pure functions from a document and a patch to a new document. None of them checks types: pass
//! the result to [`crate::decode::check`].

mod order;
mod strategic;
#[cfg(test)]
mod tests;

use json_patch::PatchOperation;
use serde_json::Value;

pub use self::strategic::strategic;
use crate::decode::{FINDINGS_MAX, Finding};

/// Operations in one JSON Patch.
pub const OPERATIONS_MAX: usize = 10_000;
/// Bytes that the copies of one JSON Patch may add to a document.
pub const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Why a patch does not apply. Display is upstream's wording where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch is malformed: answer 400.
    #[error("error decoding patch: {0}")]
    Malformed(String),
    /// Too large: answer 413.
    #[error("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {0}")]
    TooManyOperations(usize),
    /// Copies would grow the document too much: answer 413.
    #[error(
        "Unable to complete the copy, the accumulated size increase of copy is {0}, \
         exceeding the limit {COPIED_BYTES_MAX}"
    )]
    TooMuchCopied(usize),
    /// A JSON Patch that does not fit the document, a failed test, or an operation that is none:
    /// answer 422.
    #[error("{0}")]
    Inapplicable(String),
    /// A directive of strategic merge with a value it does not have: answer 400.
    #[error("unknown patch type '{directive}' found in: {map}")]
    UnknownDirective { directive: String, map: String },
    /// An item of a merged list lacks the key: answer 400.
    #[error("map: {map} does not contain declared merge key: {key}")]
    NoMergeKey { map: String, key: String },
    /// Anything else strategic merge refuses: answer 400.
    #[error("{0}")]
    Strategic(String),
}

/// Applies a JSON Patch (RFC 6902).
///
/// # Errors
/// [`PatchError`]; the document is not changed then.
pub fn json(document: &Value, patch: &Value) -> Result<Value, PatchError> {
    let malformed = |found: &Value, wanted: &str| {
        let found = crate::decode::json_type(found);
        let why = format!("json: cannot unmarshal {found} into Go value of type {wanted}");
        PatchError::Malformed(why)
    };
    let Value::Array(list) = patch else {
        return Err(malformed(patch, "[]handlers.jsonPatchOp"));
    };
    if list.len() > OPERATIONS_MAX {
        return Err(PatchError::TooManyOperations(list.len()));
    }
    if let Some(item) = list.iter().find(|item| !item.is_object()) {
        return Err(malformed(item, "handlers.jsonPatchOp"));
    }
    let operations: Vec<PatchOperation> = serde_json::from_value(patch.clone())
        .map_err(|error| PatchError::Inapplicable(error.to_string()))?;
    let mut document = document.clone();
    let mut copied = 0;
    for (index, operation) in operations.iter().enumerate() {
        if let PatchOperation::Copy(copy) = operation {
            copied += document
                .pointer(copy.from.as_str())
                .map_or(0, |value| value.to_string().len());
            if copied > COPIED_BYTES_MAX {
                return Err(PatchError::TooMuchCopied(copied));
            }
        }
        if let PatchOperation::Test(test) = operation
            && test.value.is_null()
            && is_absent_member(&document, test.path.as_str())
        {
            continue;
        }
        json_patch::patch_unsafe(&mut document, std::slice::from_ref(operation)).map_err(
            |error| {
                PatchError::Inapplicable(format!(
                    "operation {index} at path \"{}\" failed: {}",
                    operation.path(),
                    error.kind
                ))
            },
        )?;
    }
    Ok(document)
}

/// Whether an object has no such member. Upstream takes that for null, and kube-rs asks so whether
/// an object has no finalizers yet.
fn is_absent_member(document: &Value, path: &str) -> bool {
    let parent = path.rsplit_once('/').map(|(parent, _)| parent);
    let parent = parent.and_then(|parent| document.pointer(parent));
    parent.is_some_and(Value::is_object) && document.pointer(path).is_none()
}

/// Members of a JSON Patch's operations that mean nothing.
pub fn unknown_members(patch: &Value) -> Vec<Finding> {
    let operations = patch.as_array().into_iter().flatten().enumerate();
    let members = operations.flat_map(|(index, operation)| {
        let members = operation.as_object().into_iter().flatten();
        members.map(move |(name, _)| (index, name))
    });
    members
        .filter(|(_, name)| !matches!(name.as_str(), "op" | "path" | "from" | "value"))
        .map(|(index, name)| Finding::UnknownField(format!("[{index}].{name}")))
        .take(FINDINGS_MAX)
        .collect()
}

/// Applies a merge patch (RFC 7396): null removes, objects merge, all else replaces.
pub fn merge(mut document: Value, patch: &Value) -> Value {
    json_patch::merge(&mut document, patch);
    document
}
