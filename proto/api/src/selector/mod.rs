//! Selectors: which objects a list, a watch, a controller or a service means. One reason to change:
//! the grammar or meaning of label and field selectors.
//!
//! Both match through a closure from key to value, so that they work on maps, typed objects and
//! JSON values alike without a copy.

mod fields;
mod labels;
#[cfg(test)]
mod tests;

pub use self::fields::{FieldRequirement, Fields};
pub use self::labels::{Labels, Operator, Requirement};

/// Why a selector is not understood. Display is upstream's wording.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The text does not follow the grammar of label selectors.
    #[error("unable to parse requirement: {0}")]
    Labels(String),
    /// The text does not follow the grammar of field selectors.
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    Fields { selector: String, term: String },
    /// An operator of a selector struct that does not exist.
    #[error("\"{0}\" is not a valid label selector operator")]
    Operator(String),
}
