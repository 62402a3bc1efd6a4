//! Custom resources as data: what a definition says, whether it is sound, and what it makes of an
//! object. Pure functions; no I/O, no state, nothing about HTTP or storage.
//!
//! The API server turns a [`Definition`] into kinds of its registry and calls these functions where
//! it would call a built-in kind's rules. See README.md.

pub mod cel;
mod definition;
mod jsonpath;
mod rules;
mod structural;
mod violation;

pub use self::definition::{
    Column, Conversion, Definition, Names, Scale, Version, Webhook, defaults, validate_definition,
    validate_definition_update,
};
pub use self::jsonpath::{JsonPath, JsonPathError};
pub use self::rules::{Rules, declared, validate_rules};
pub use self::structural::{
    Additional, Checks, ListType, Rule, Schema, SchemaError, Type, default, metadata_of, open_api,
    prune, typed, validate, validate_changed,
};
pub use self::violation::{Reason, Violation};
