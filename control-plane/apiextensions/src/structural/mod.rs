//! The structural schema of a custom kind, parsed once from a definition.
//!
//! Owns: the tree that pruning, defaulting, validation, apply and OpenAPI walk. A schema is parsed
//! leniently: whether it is sound is asked before, by `definition/`. Invariant: patterns compile.

mod default;
mod format;
mod openapi;
mod prune;
mod ratchet;
#[cfg(test)]
mod tests;
mod typed;
mod validate;

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

pub use self::default::default;
pub(crate) use self::format::{duration_nanoseconds, holds as format_holds};
pub use self::openapi::open_api;
pub use self::prune::{metadata_of, prune};
pub use self::ratchet::validate_changed;
pub use self::typed::typed;
pub use self::validate::validate;

/// Deeper schemas are refused.
pub(crate) const DEPTH_MAX: usize = 64;

/// A JSON type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// A map.
    Object,
    /// A list.
    Array,
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// True or false.
    Boolean,
}

impl Type {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    /// Its name in schemas and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// `x-kubernetes-list-type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListType {
    /// Replaced as a whole.
    #[default]
    Atomic,
    /// Unique scalars.
    Set,
    /// Objects told apart by keys.
    Map,
}

/// What fields beside the named ones hold.
#[derive(Debug, Clone)]
pub enum Additional {
    /// Anything, or nothing.
    Any(bool),
    /// Values of this schema.
    Of(Box<Schema>),
}

/// Rules on a value, beside its type.
#[derive(Debug, Clone, Default)]
pub struct Checks {
    /// Allowed values; empty allows all.
    pub allowed: Vec<Value>,
    /// Format of a text.
    pub format: String,
    /// Expression that a text must match, and its source.
    pub pattern: Option<(Regex, String)>,
    /// Bounds of a text's length in characters.
    pub length: (Option<usize>, Option<usize>),
    /// Bounds of a list's length.
    pub items: (Option<usize>, Option<usize>),
    /// Bounds of the number of fields.
    pub properties: (Option<usize>, Option<usize>),
    /// Least value, and whether it is excluded.
    pub minimum: Option<(serde_json::Number, bool)>,
    /// Greatest value, and whether it is excluded.
    pub maximum: Option<(serde_json::Number, bool)>,
    /// The value is a multiple of this.
    pub multiple_of: Option<f64>,
    /// Fields that must be there.
    pub required: Vec<String>,
    /// Schemas of which all must hold.
    pub all_of: Vec<Schema>,
    /// Schemas of which one or more must hold.
    pub any_of: Vec<Schema>,
    /// Schemas of which exactly one must hold.
    pub one_of: Vec<Schema>,
    /// A schema that must not hold.
    pub not: Option<Box<Schema>>,
}

/// One entry of `x-kubernetes-validations`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// The expression.
    pub rule: String,
    /// What is told when it is false.
    pub message: String,
    /// An expression that makes the message.
    pub message_expression: String,
    /// Reason of the error.
    pub reason: String,
    /// Place of the error, relative to the schema.
    pub field_path: String,
    /// The rule is evaluated without an old value too.
    pub optional_old_self: bool,
}

/// A schema.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    /// Type; none where any value may stand.
    pub kind: Option<Type>,
    /// Sentence for `kubectl explain`.
    pub description: String,
    /// Fields by name.
    pub properties: BTreeMap<String, Schema>,
    /// Other fields.
    pub additional: Option<Additional>,
    /// Items of a list.
    pub items: Option<Box<Schema>>,
    /// Value of an absent field.
    pub default: Option<Value>,
    /// Null is a value.
    pub nullable: bool,
    /// Unknown fields stay.
    pub preserve_unknown: bool,
    /// The value is a whole object with its own apiVersion, kind and metadata.
    pub embedded: bool,
    /// A number or a text.
    pub int_or_string: bool,
    /// How lists merge.
    pub list_type: Option<ListType>,
    /// Keys of a [`ListType::Map`].
    pub list_map_keys: Vec<String>,
    /// Maps are replaced as a whole.
    pub map_atomic: bool,
    /// Value rules.
    pub checks: Checks,
    /// CEL rules.
    pub rules: Vec<Rule>,
}

/// Why a schema cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// Too deep.
    #[error("the schema is nested deeper than {DEPTH_MAX} levels")]
    Depth,
    /// A pattern is no regular expression.
    #[error("pattern {pattern:?} is no regular expression: {why}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Why.
        why: String,
    },
}

impl Schema {
    /// Reads `openAPIV3Schema`.
    ///
    /// # Errors
    /// [`SchemaError`]; anything else that is unsound is left out.
    pub fn parse(value: &Value) -> Result<Self, SchemaError> {
        Self::parse_at(value, 0)
    }

    fn parse_at(value: &Value, depth: usize) -> Result<Self, SchemaError> {
        if depth > DEPTH_MAX {
            return Err(SchemaError::Depth);
        }
        let below = |value: &Value| Self::parse_at(value, depth + 1);
        let mut properties = BTreeMap::new();
        for (name, property) in value["properties"].as_object().into_iter().flatten() {
            properties.insert(name.clone(), below(property)?);
        }
        let additional = match &value["additionalProperties"] {
            Value::Bool(any) => Some(Additional::Any(*any)),
            schema @ Value::Object(_) => Some(Additional::Of(Box::new(below(schema)?))),
            _ => None,
        };
        let items = match &value["items"] {
            schema @ Value::Object(_) => Some(Box::new(below(schema)?)),
            _ => None,
        };
        Ok(Self {
            kind: Type::parse(text(value, "type")),
            description: text(value, "description").to_owned(),
            properties,
            additional,
            items,
            default: value.get("default").filter(|v| !v.is_null()).cloned(),
            nullable: flag(value, "nullable"),
            preserve_unknown: flag(value, "x-kubernetes-preserve-unknown-fields"),
            embedded: flag(value, "x-kubernetes-embedded-resource"),
            int_or_string: flag(value, "x-kubernetes-int-or-string"),
            list_type: match text(value, "x-kubernetes-list-type") {
                "atomic" => Some(ListType::Atomic),
                "set" => Some(ListType::Set),
                "map" => Some(ListType::Map),
                _ => None,
            },
            list_map_keys: texts(value, "x-kubernetes-list-map-keys"),
            map_atomic: text(value, "x-kubernetes-map-type") == "atomic",
            checks: Checks::parse(value, depth)?,
            rules: list(value, "x-kubernetes-validations")
                .iter()
                .map(Rule::parse)
                .collect(),
        })
    }

    /// The schema of field `name`, if there is one.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Self> {
        match (self.properties.get(name), &self.additional) {
            (Some(schema), _) => Some(schema),
            (None, Some(Additional::Of(schema))) => Some(schema),
            (None, _) => None,
        }
    }

    /// Whether a null stands for an absent value here.
    pub(crate) fn drops_null(&self) -> bool {
        !self.nullable && self.default.is_none()
    }
}

impl Checks {
    fn parse(value: &Value, depth: usize) -> Result<Self, SchemaError> {
        let all = |name: &str| -> Result<Vec<Schema>, SchemaError> {
            list(value, name)
                .iter()
                .map(|schema| Schema::parse_at(schema, depth + 1))
                .collect()
        };
        let bound = |name: &str| value[name].as_u64().and_then(|n| usize::try_from(n).ok());
        let limit = |name: &str, exclusive: &str| match &value[name] {
            Value::Number(number) => Some((number.clone(), flag(value, exclusive))),
            _ => None,
        };
        let not = match &value["not"] {
            schema @ Value::Object(_) => Some(Box::new(Schema::parse_at(schema, depth + 1)?)),
            _ => None,
        };
        Ok(Self {
            allowed: list(value, "enum").to_vec(),
            format: text(value, "format").to_owned(),
            pattern: pattern(text(value, "pattern"))?,
            length: (bound("minLength"), bound("maxLength")),
            items: (bound("minItems"), bound("maxItems")),
            properties: (bound("minProperties"), bound("maxProperties")),
            minimum: limit("minimum", "exclusiveMinimum"),
            maximum: limit("maximum", "exclusiveMaximum"),
            multiple_of: value["multipleOf"].as_f64(),
            required: texts(value, "required"),
            all_of: all("allOf")?,
            any_of: all("anyOf")?,
            one_of: all("oneOf")?,
            not,
        })
    }
}

impl Rule {
    fn parse(value: &Value) -> Self {
        let own = |name| text(value, name).to_owned();
        Self {
            rule: own("rule"),
            message: own("message"),
            message_expression: own("messageExpression"),
            reason: own("reason"),
            field_path: own("fieldPath"),
            optional_old_self: flag(value, "optionalOldSelf"),
        }
    }
}

fn pattern(source: &str) -> Result<Option<(Regex, String)>, SchemaError> {
    if source.is_empty() {
        return Ok(None);
    }
    let regex = Regex::new(source).map_err(|why| SchemaError::Pattern {
        pattern: source.to_owned(),
        why: why.to_string(),
    })?;
    Ok(Some((regex, source.to_owned())))
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn flag(value: &Value, name: &str) -> bool {
    value[name].as_bool().unwrap_or_default()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn texts(value: &Value, name: &str) -> Vec<String> {
    let items = list(value, name).iter();
    items
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect()
}
