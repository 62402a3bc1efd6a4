//! Field paths and validation errors in upstream's wording.

use serde_json::Value;
use smallvec::SmallVec;

/// Bytes of a path that need no allocation: walks make a path for every field they look at, and
/// nearly all are dropped unread.
const INLINE_BYTES: usize = 80;

/// A field's place in an object, as error messages print it: `spec.ports[0].port`.
#[derive(Clone, PartialEq, Eq)]
pub struct Path(SmallVec<[u8; INLINE_BYTES]>);

impl std::fmt::Debug for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Path").field(&self.as_str()).finish()
    }
}

impl Path {
    /// The top-level field `name`.
    #[must_use]
    pub fn root(name: &str) -> Self {
        Self(SmallVec::from_slice(name.as_bytes()))
    }

    /// This path with `parts` behind it.
    fn with(&self, parts: [&str; 3]) -> Self {
        // Not `clone`, which goes byte by byte.
        let mut text = SmallVec::from_slice(&self.0);
        for part in parts {
            text.extend_from_slice(part.as_bytes());
        }
        Self(text)
    }

    /// The field `name` below this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() {
            Self::root(name)
        } else {
            self.with([".", name, ""])
        }
    }

    /// Item `index` of this list.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(["[", &index.to_string(), "]"])
    }

    /// Entry `key` of this map.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.with(["[", key, "]"])
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Made of texts alone.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Problem {
    Required,
    Invalid(String),
    InvalidUnshown,
    NotSupported {
        value: String,
        supported: Vec<String>,
    },
    Duplicate(String),
    Forbidden,
    TooLong {
        max: usize,
    },
    TooMany {
        count: usize,
        max: usize,
    },
    NotFound(String),
    Type(String),
}

/// One broken rule at one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Where.
    pub field: String,
    problem: Problem,
    detail: String,
}

impl FieldError {
    fn new(path: &Path, problem: Problem, detail: impl Into<String>) -> Self {
        Self {
            field: path.as_str().to_owned(),
            problem,
            detail: detail.into(),
        }
    }

    /// The field must be set.
    pub fn required(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(path, Problem::Required, detail)
    }

    /// The value breaks a rule.
    pub fn invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(path, Problem::Invalid(value.into().to_string()), detail)
    }

    /// The value breaks a rule, and is not worth showing.
    pub fn invalid_unshown(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(path, Problem::InvalidUnshown, detail)
    }

    /// The value is none of the known ones.
    pub fn not_supported(path: &Path, value: &str, supported: &[&str]) -> Self {
        let supported = supported.iter().map(|s| (*s).to_owned()).collect();
        let value = Value::from(value).to_string();
        Self::new(path, Problem::NotSupported { value, supported }, "")
    }

    /// Some of the values are none of the known ones.
    pub fn not_supported_list(path: &Path, values: &[&str], supported: &[&str]) -> Self {
        let supported = supported.iter().map(|s| (*s).to_owned()).collect();
        let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
        let value = format!("[]string{{{}}}", quoted.join(", "));
        Self::new(path, Problem::NotSupported { value, supported }, "")
    }

    /// The value has the wrong type; `value` says which it has.
    pub fn type_invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(path, Problem::Type(value.into().to_string()), detail)
    }

    /// The value, of any type, is none of the known ones.
    pub fn not_supported_value(path: &Path, value: &Value, supported: Vec<String>) -> Self {
        let value = value.to_string();
        Self::new(path, Problem::NotSupported { value, supported }, "")
    }

    /// The value occurs twice where it must be unique.
    pub fn duplicate(path: &Path, value: impl Into<Value>) -> Self {
        Self::new(path, Problem::Duplicate(value.into().to_string()), "")
    }

    /// The field may not be set here.
    pub fn forbidden(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(path, Problem::Forbidden, detail)
    }

    /// The value has more than `max` bytes.
    pub fn too_long(path: &Path, max: usize) -> Self {
        Self::new(path, Problem::TooLong { max }, "")
    }

    /// The list has more than `max` items.
    pub fn too_many(path: &Path, count: usize, max: usize) -> Self {
        Self::new(path, Problem::TooMany { count, max }, "")
    }

    /// The value names something that is not there.
    pub fn not_found(path: &Path, value: impl Into<Value>) -> Self {
        Self::new(path, Problem::NotFound(value.into().to_string()), "")
    }

    /// The same error, with a sentence that explains it.
    #[must_use]
    pub fn because(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// The machine-readable reason of the cause.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self.problem {
            Problem::Required => "FieldValueRequired",
            Problem::Invalid(_) | Problem::InvalidUnshown => "FieldValueInvalid",
            Problem::Type(_) => "FieldValueTypeInvalid",
            Problem::NotSupported { .. } => "FieldValueNotSupported",
            Problem::Duplicate(_) => "FieldValueDuplicate",
            Problem::Forbidden => "FieldValueForbidden",
            Problem::TooLong { .. } => "FieldValueTooLong",
            Problem::TooMany { .. } => "FieldValueTooMany",
            Problem::NotFound(_) => "FieldValueNotFound",
        }
    }

    /// The sentence without the path.
    #[must_use]
    pub fn body(&self) -> String {
        let head = match &self.problem {
            Problem::Required => "Required value".to_owned(),
            Problem::Invalid(value) | Problem::Type(value) => format!("Invalid value: {value}"),
            Problem::InvalidUnshown => "Invalid value".to_owned(),
            Problem::NotSupported { value, supported } => {
                let list: Vec<String> = supported.iter().map(|s| format!("\"{s}\"")).collect();
                format!(
                    "Unsupported value: {value}: supported values: {}",
                    list.join(", ")
                )
            }
            Problem::Duplicate(value) => format!("Duplicate value: {value}"),
            Problem::Forbidden => "Forbidden".to_owned(),
            Problem::TooLong { max } => format!("Too long: may not be more than {max} bytes"),
            Problem::TooMany { count, max } => {
                let noun = if *max == 1 { "item" } else { "items" };
                format!("Too many: {count}: must have at most {max} {noun}")
            }
            Problem::NotFound(value) => format!("Not found: {value}"),
        };
        if self.detail.is_empty() {
            head
        } else {
            format!("{head}: {}", self.detail)
        }
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_upstreams() {
        let p = Path::root("spec").child("ports").index(1).child("port");
        let cases = [
            (
                FieldError::required(&p, ""),
                "spec.ports[1].port: Required value",
            ),
            (
                FieldError::invalid(&p, 0, "must be between 1 and 65535, inclusive"),
                "spec.ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ),
            (
                FieldError::not_supported(&p, "x", &["TCP", "UDP"]),
                "spec.ports[1].port: Unsupported value: \"x\": supported values: \"TCP\", \"UDP\"",
            ),
            (
                FieldError::duplicate(&p, "a"),
                "spec.ports[1].port: Duplicate value: \"a\"",
            ),
            (
                FieldError::too_many(&p, 3, 1),
                "spec.ports[1].port: Too many: 3: must have at most 1 item",
            ),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
    }
}
