//! From a request's bytes to a checked object: syntax, duplicate keys, unknown fields and types,
//! in upstream's words. One reason to change: what the API server accepts as a body.
//!
//! Two steps: [`fn@parse`] reads JSON or YAML and knows no types; [`fn@check`] walks the schema table. A
//! checked object is in canonical form, which is what Go would print: no unknown fields, no nulls, no
//! zero where Go omits it, zero where Go always writes it, quantities and times normalised; only
//! that embedded structs that are all zero (`status: {}`) are left out. So equal objects are equal
//! values whoever wrote them. [`body`] does both and protobuf too.
//!
//! What is not an error but not right either is a [`Finding`]: whether findings are errors,
//! warnings or nothing (`fieldValidation=Strict|Warn|Ignore`) is the caller's decision.

mod check;
mod json;
mod scalar;
#[cfg(test)]
mod tests;
mod yaml;

use std::fmt;

use serde_json::Value;

pub use self::check::check;
pub(crate) use self::scalar::json_type;
use crate::schema::{Gvk, Schema, TypeId};
use crate::transcode::{self, TranscodeError};

/// More findings than this in one body are not recorded.
pub const FINDINGS_MAX: usize = 100;

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Yaml,
    /// `k8s\0` and a `runtime.Unknown` message.
    Protobuf,
}

/// A checked object.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    pub value: Value,
    pub api_version: String,
    pub kind: String,
    pub type_id: TypeId,
    pub findings: Vec<Finding>,
}

impl Decoded {
    /// The object's group, version and kind.
    pub fn gvk(&self) -> Gvk<'_> {
        Gvk::parse(&self.api_version, &self.kind)
    }
}

/// What strict field validation complains about. Display is upstream's wording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Path from the object's root: `spec.containers[0].foo`.
    UnknownField(String),
    DuplicateField(String),
    /// YAML names the key alone, with its line.
    DuplicateKey {
        line: u64,
        key: String,
    },
    /// Of an operation of a JSON patch; what is found, as text.
    InPatch(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownField(path) => write!(f, "unknown field \"{path}\""),
            Self::DuplicateField(path) => write!(f, "duplicate field \"{path}\""),
            Self::InPatch(found) => write!(f, "json patch {found}"),
            Self::DuplicateKey { line, key } => {
                write!(
                    f,
                    "yaml: unmarshal errors:\n  line {line}: key \"{key}\" already set in map"
                )
            }
        }
    }
}

/// The message of the 400 answer under `fieldValidation=Strict`.
pub fn strict_message(findings: &[Finding]) -> String {
    let findings: Vec<String> = findings.iter().map(ToString::to_string).collect();
    format!("strict decoding error: {}", findings.join(", "))
}

/// Why a body is no object. Display is upstream's wording where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The text is no JSON.
    #[error("json: {0}")]
    Json(String),
    /// The text is no YAML, or exceeds the budget of aliases, depth and nodes.
    #[error("error converting YAML to JSON: yaml: {0}")]
    Yaml(String),
    /// The root is no object.
    #[error("json: cannot unmarshal {found} into Go value of type {go_type}")]
    NotAnObject {
        found: &'static str,
        go_type: String,
    },
    /// A value has the wrong type. `path` has no list indexes, as in Go.
    #[error(
        "json: cannot unmarshal {found} into Go struct field {go_struct}.{path} of type {go_type}"
    )]
    Type {
        found: String,
        go_struct: String,
        path: String,
        go_type: String,
    },
    /// A scalar's own grammar refused it.
    #[error("{0}")]
    Scalar(String),
    /// Neither the body nor the caller names a kind.
    #[error("Object 'Kind' is missing in '{0}'")]
    KindMissing(String),
    /// The table holds no such kind.
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\" in scheme")]
    KindUnknown { kind: String, api_version: String },
    /// The protobuf message is damaged or holds another type.
    #[error(transparent)]
    Protobuf(#[from] TranscodeError),
}

impl DecodeError {
    /// The message of the 400 answer for a body that was expected to hold `gvk`.
    pub fn message(&self, gvk: Gvk<'_>, body: &[u8]) -> String {
        let unrecognized = |why: String| {
            format!(
                "the object provided is unrecognized (must be of type {}): {why} ({})",
                gvk.kind,
                summary(body)
            )
        };
        match self {
            Self::Json(reason) => {
                // Go's words for the commonest of them.
                let reason = match reason.starts_with("EOF while parsing") {
                    true => "unexpected end of JSON input",
                    false => reason,
                };
                unrecognized(format!("{NO_KIND}{reason}"))
            }
            Self::NotAnObject { found, .. } => unrecognized(format!(
                "{NO_KIND}json: cannot unmarshal {found} into Go value of type struct {{ \
                 APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \
                 \"json:\\\"kind,omitempty\\\"\" }}"
            )),
            Self::Yaml(_) | Self::Protobuf(_) => unrecognized(self.to_string()),
            Self::KindUnknown { kind, api_version } => format!(
                "{kind} in version \"{}\" cannot be handled as a {}: {self}",
                Gvk::parse(api_version, kind).version,
                gvk.kind
            ),
            Self::Type { .. } | Self::Scalar(_) | Self::KindMissing(_) => format!(
                "{} in version \"{}\" cannot be handled as a {}: {self}",
                gvk.kind, gvk.version, gvk.kind
            ),
        }
    }
}

const NO_KIND: &str = "couldn't get version/kind; json parse error: ";

/// The start of a body, as it is when it looks like JSON, else in hexadecimal digits.
fn summary(body: &[u8]) -> String {
    const SHOWN_BYTES: usize = 30;
    let start = &body[..body.len().min(SHOWN_BYTES)];
    let more = if body.len() > SHOWN_BYTES { " ..." } else { "" };
    match start.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(start)),
        Some(_) => {
            let digits: String = start.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{digits}{more}")
        }
    }
}

/// Why an object of one kind is not read as another, as upstream's converter says it.
pub fn no_conversion(found: Gvk<'_>, wanted: Gvk<'_>) -> String {
    // The package of the version that upstream stores in memory: the group's first word.
    let package = match wanted.group.split('.').next() {
        None | Some("") => "core",
        Some(package) => package,
    };
    format!(
        "converting ({}.{}) to ({package}.{}): unknown conversion",
        found.version, found.kind, wanted.kind
    )
}

/// Reads JSON or YAML into a value; findings are duplicate keys, of which the last one counts.
///
/// # Errors
/// [`DecodeError`] when the text is malformed, nested deeper than 128 or, for YAML, over budget.
/// `Protobuf` is refused as malformed: it cannot be read without a schema, see [`body`].
pub fn parse(body: &[u8], encoding: Encoding) -> Result<(Value, Vec<Finding>), DecodeError> {
    match encoding {
        Encoding::Json => json::parse(body),
        Encoding::Yaml => yaml::parse(body),
        Encoding::Protobuf => Err(TranscodeError::Magic.into()),
    }
}

/// Decodes and checks a whole body. `default` stands in for an absent `apiVersion` or `kind`.
///
/// # Errors
/// [`DecodeError`]; unknown and duplicate fields are findings, not errors.
pub fn body(
    schema: &Schema,
    default: Option<Gvk<'_>>,
    body: &[u8],
    encoding: Encoding,
) -> Result<Decoded, DecodeError> {
    let (mut value, mut findings) = match encoding {
        Encoding::Json | Encoding::Yaml => parse(body, encoding)?,
        Encoding::Protobuf => (transcode::to_json(schema, body)?, Vec::new()),
    };
    let Some(object) = value.as_object_mut() else {
        return Err(DecodeError::NotAnObject {
            found: json_type(&value),
            go_type: default.map_or("runtime.TypeMeta".to_owned(), |gvk| {
                format!("{}.{}", gvk.version, gvk.kind)
            }),
        });
    };
    let stated = |name: &str| {
        object
            .get(name)
            .and_then(Value::as_str)
            .filter(|s| !s.is_empty())
    };
    let api_version = stated("apiVersion").map(str::to_owned);
    let kind = stated("kind").map(str::to_owned);
    let (Some(api_version), Some(kind)) = (
        api_version.or_else(|| default.map(Gvk::api_version)),
        kind.or_else(|| default.map(|gvk| gvk.kind.to_owned())),
    ) else {
        return Err(DecodeError::KindMissing(excerpt(body)));
    };
    let Some(type_id) = schema.kind(Gvk::parse(&api_version, &kind)) else {
        return Err(DecodeError::KindUnknown { kind, api_version });
    };
    for (name, text) in [("apiVersion", &api_version), ("kind", &kind)] {
        object.insert(name.to_owned(), Value::String(text.clone()));
    }
    let (value, more) = check(schema, type_id, value)?;
    findings.extend(more);
    findings.truncate(FINDINGS_MAX);
    Ok(Decoded {
        value,
        api_version,
        kind,
        type_id,
        findings,
    })
}

/// The start of a body for a message.
fn excerpt(body: &[u8]) -> String {
    const EXCERPT_BYTES: usize = 256;
    let end = body.len().min(EXCERPT_BYTES);
    String::from_utf8_lossy(&body[..end]).into_owned()
}
