//! Selectable fields of a kind: their names, and how they are read of an object.

use crate::object::Peek;

/// How a selectable field is read.
pub type FieldReader = fn(&Peek<'_>) -> Box<str>;

/// The selectable fields of a kind, beside `metadata.name` and `metadata.namespace`.
#[derive(Debug)]
pub enum Selectable {
    /// Of a built-in kind.
    Builtin(&'static [(&'static str, FieldReader)]),
}

impl Selectable {
    /// Where the values of field `name` are.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        match self {
            Self::Builtin(fields) => fields.iter().position(|(known, _)| *known == name),
        }
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        match self {
            Self::Builtin(fields) => fields.len(),
        }
    }

    pub(super) fn read(&self, peek: &Peek<'_>) -> Box<[Box<str>]> {
        match self {
            Self::Builtin(fields) => fields.iter().map(|(_, read)| read(peek)).collect(),
        }
    }
}
