//! Selectable fields of a kind: their names, and how they are read of an object.

use control_plane_apiextensions::JsonPath;
use serde_json::Value;

use crate::object::Peek;

/// How a selectable field is read.
pub type FieldReader = fn(&Peek<'_>) -> Box<str>;

/// The selectable fields of a kind, beside `metadata.name` and `metadata.namespace`.
#[derive(Debug)]
pub enum Selectable {
    /// Of a built-in kind.
    Builtin(&'static [(&'static str, FieldReader)]),
    /// Of a custom kind.
    Paths(Box<[(String, JsonPath)]>),
}

impl Selectable {
    /// Where the values of field `name` are.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        match self {
            Self::Builtin(fields) => fields.iter().position(|(known, _)| *known == name),
            Self::Paths(fields) => fields.iter().position(|(known, _)| known == name),
        }
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        match self {
            Self::Builtin(fields) => fields.len(),
            Self::Paths(fields) => fields.len(),
        }
    }

    pub(super) fn read(&self, peek: &Peek<'_>) -> Box<[Box<str>]> {
        match self {
            Self::Builtin(fields) => fields.iter().map(|(_, read)| read(peek)).collect(),
            Self::Paths(fields) if fields.is_empty() => Box::default(),
            Self::Paths(fields) => {
                let object = serde_json::from_slice(peek.raw).unwrap_or(Value::Null);
                fields
                    .iter()
                    .map(|(_, path)| text(path.first(&object)))
                    .collect()
            }
        }
    }
}

/// A scalar as selectors compare it; anything else is empty.
fn text(value: Option<&Value>) -> Box<str> {
    match value {
        Some(Value::String(text)) => text.as_str().into(),
        Some(scalar @ (Value::Bool(_) | Value::Number(_))) => scalar.to_string().into(),
        Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => Box::default(),
    }
}
