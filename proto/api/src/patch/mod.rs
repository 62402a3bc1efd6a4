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
    /// A well-formed JSON Patch that does not fit the document, or a failed test: answer 422.
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
    let operations: Vec<PatchOperation> = serde_json::from_value(patch.clone())
        .map_err(|error| PatchError::Malformed(error.to_string()))?;
    if operations.len() > OPERATIONS_MAX {
        return Err(PatchError::TooManyOperations(operations.len()));
    }
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

/// Applies a merge patch (RFC 7396): null removes, objects merge, all else replaces.
pub fn merge(mut document: Value, patch: &Value) -> Value {
    json_patch::merge(&mut document, patch);
    document
}
