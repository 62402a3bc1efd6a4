//! A broken rule at a place of an object; the API server prints it in upstream's words.

use serde_json::Value;

/// What kind of rule is broken.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// The field must be set.
    Required,
    /// The value breaks a rule.
    Invalid(Value),
    /// The value has the wrong type; carries the type that was found.
    Type(Value),
    /// The value is none of the allowed ones.
    NotSupported {
        /// The value.
        value: Value,
        /// The allowed ones, as they are printed.
        supported: Vec<String>,
    },
    /// The value occurs twice.
    Duplicate(Value),
    /// The field may not be set here.
    Forbidden,
    /// The text is too long.
    TooLong(usize),
    /// The list or map has too many entries.
    TooMany {
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
}

/// One broken rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Violation {
    /// Where: `spec.versions[0].name`; empty for the object itself.
    pub path: String,
    /// What kind of rule.
    pub reason: Reason,
    /// A sentence, or empty.
    pub detail: String,
}

impl Violation {
    pub(crate) fn new(path: &str, reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            reason,
            detail: detail.into(),
        }
    }

    pub(crate) fn required(path: &str, detail: impl Into<String>) -> Self {
        Self::new(path, Reason::Required, detail)
    }

    pub(crate) fn invalid(path: &str, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(path, Reason::Invalid(value.into()), detail)
    }

    pub(crate) fn forbidden(path: &str, detail: impl Into<String>) -> Self {
        Self::new(path, Reason::Forbidden, detail)
    }

    pub(crate) fn not_supported(path: &str, value: &str, supported: &[&str]) -> Self {
        let supported = supported.iter().map(|s| (*s).to_owned()).collect();
        let value = value.into();
        Self::new(path, Reason::NotSupported { value, supported }, "")
    }

    pub(crate) fn duplicate(path: &str, value: impl Into<Value>) -> Self {
        Self::new(path, Reason::Duplicate(value.into()), "")
    }
}

/// The place `name` below `path`.
pub(crate) fn child(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}
