//! Protobuf bodies to JSON values and back, driven by the schema table. One reason to change: the
//! wire form of Kubernetes objects.
//!
//! A body is `k8s\0` and a `runtime.Unknown` message: `apiVersion`, `kind` and the object's own
//! message. What kubectl writes is read exactly; what is written here is byte for byte what
//! upstream's generated code writes for the same object: fields by ascending number, fields that
//! are no pointers always, maps sorted by key.

mod read;
#[cfg(test)]
mod tests;
mod wire;
mod write;

use serde_json::{Map, Value};

use self::wire::{Reader, Writer};
use crate::schema::{Gvk, Schema, TypeId};

/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";
/// Messages within messages.
const DEPTH_MAX: usize = 100;
/// `runtime.Unknown` and its `TypeMeta`.
const TYPE_META: u32 = 1;
const RAW: u32 = 2;
const CONTENT_ENCODING: u32 = 3;
const CONTENT_TYPE: u32 = 4;
const API_VERSION: u32 = 1;
const KIND: u32 = 2;
/// Content encoding and content type of the envelope: empty, and written as upstream does.
pub const ENVELOPE_TAIL: &[u8] = &[0x1a, 0, 0x22, 0];

/// Why a body and a value do not translate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TranscodeError {
    /// Not a Kubernetes protobuf body.
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    Magic,
    /// A length, varint or tag runs past the end of its message.
    #[error("unexpected EOF in the protobuf message of {context}")]
    Truncated { context: String },
    /// A field has another wire type than the schema says.
    #[error("proto: wrong wireType = {wire_type} for field {field}")]
    WireType { wire_type: u8, field: String },
    /// The object's kind is not in the schema.
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\" in scheme")]
    KindUnknown { kind: String, api_version: String },
    /// Text that is no UTF-8, or JSON inside a message that is no JSON.
    #[error("proto: field {field} holds {problem}")]
    Content {
        field: String,
        problem: &'static str,
    },
    /// Messages nested too deep.
    #[error("proto: nested deeper than 100 messages")]
    Depth,
    /// A value does not fit the schema; check it first.
    #[error("field {field} is no {expected}")]
    Value {
        field: String,
        expected: &'static str,
    },
    /// The body says it is compressed or in another content type.
    #[error("proto: content {0} inside a protobuf body is not supported")]
    ContentType(String),
}

/// Reads a whole body. The result carries `apiVersion` and `kind` and is not yet checked
/// ([`crate::decode::body`] does both): zero values that Go would omit are still in it.
///
/// # Errors
/// [`TranscodeError`] when the bytes are damaged or the kind is unknown.
pub fn to_json(schema: &Schema, body: &[u8]) -> Result<Value, TranscodeError> {
    nested_to_json(schema, body, DEPTH_MAX)
}

/// [`to_json`] for a body within a message, with what is left of the depth.
fn nested_to_json(schema: &Schema, body: &[u8], depth: usize) -> Result<Value, TranscodeError> {
    let message = body.strip_prefix(MAGIC).ok_or(TranscodeError::Magic)?;
    let (mut api_version, mut kind) = (String::new(), String::new());
    let (mut raw, mut content_type, mut content_encoding) = (&[][..], String::new(), String::new());
    let mut reader = Reader::new(message, "Unknown");
    while let Some((number, value)) = reader.field()? {
        match number {
            TYPE_META => {
                let mut meta = Reader::new(value.bytes("typeMeta")?, "TypeMeta");
                while let Some((number, value)) = meta.field()? {
                    match number {
                        API_VERSION => api_version = value.text("apiVersion")?,
                        KIND => kind = value.text("kind")?,
                        _ => {}
                    }
                }
            }
            RAW => raw = value.bytes("raw")?,
            CONTENT_ENCODING => content_encoding = value.text("contentEncoding")?,
            CONTENT_TYPE => content_type = value.text("contentType")?,
            _ => {}
        }
    }
    if !content_encoding.is_empty() {
        return Err(TranscodeError::ContentType(content_encoding));
    }
    let mut object = match content_type.as_str() {
        "" | "application/vnd.kubernetes.protobuf" => {
            let Some(id) = schema.kind(Gvk::parse(&api_version, &kind)) else {
                return Err(TranscodeError::KindUnknown { kind, api_version });
            };
            read::object(schema, id, raw, depth)?
        }
        "application/json" => {
            serde_json::from_slice(raw).map_err(|_error| TranscodeError::Content {
                field: "raw".to_owned(),
                problem: "no JSON object",
            })?
        }
        _ => return Err(TranscodeError::ContentType(content_type)),
    };
    let mut whole = Map::with_capacity(object.len() + 2);
    whole.insert("apiVersion".to_owned(), Value::String(api_version));
    whole.insert("kind".to_owned(), Value::String(kind));
    object.remove("apiVersion");
    object.remove("kind");
    whole.extend(object);
    Ok(Value::Object(whole))
}

/// Writes a checked object that carries `apiVersion` and `kind` as a whole body.
///
/// # Errors
/// [`TranscodeError::KindUnknown`], or [`TranscodeError::Value`] when the object was not checked.
pub fn to_protobuf(schema: &Schema, object: &Value) -> Result<Vec<u8>, TranscodeError> {
    let stated = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (stated("apiVersion"), stated("kind"));
    let Some(id) = schema.kind(Gvk::parse(api_version, kind)) else {
        return Err(TranscodeError::KindUnknown {
            kind: kind.to_owned(),
            api_version: api_version.to_owned(),
        });
    };
    let raw = write::object(schema, id, object)?;
    Ok(envelope(api_version, kind, &raw))
}

/// Whether objects of a type have a protobuf message at all: custom resources and their
/// definitions have none.
pub fn has_message(schema: &Schema, id: TypeId) -> bool {
    schema.get(id).fields.iter().any(|field| field.number != 0)
}

/// Writes the bare message of a checked object, as it stands inside an envelope or a list.
///
/// # Errors
/// [`TranscodeError::Value`] when the object was not checked.
pub fn message(schema: &Schema, id: TypeId, object: &Value) -> Result<Vec<u8>, TranscodeError> {
    write::object(schema, id, object)
}

/// A whole body around a bare message.
pub fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut body = envelope_head(api_version, kind, raw.len() as u64);
    body.reserve_exact(raw.len() + ENVELOPE_TAIL.len());
    body.extend_from_slice(raw);
    body.extend_from_slice(ENVELOPE_TAIL);
    body
}

/// What comes before a bare message of `raw_len` bytes that is written piece by piece;
/// [`ENVELOPE_TAIL`] comes after it.
pub fn envelope_head(api_version: &str, kind: &str, raw_len: u64) -> Vec<u8> {
    let mut meta = Writer::default();
    meta.bytes(API_VERSION, api_version.as_bytes());
    meta.bytes(KIND, kind.as_bytes());
    let mut unknown = Writer {
        out: MAGIC.to_vec(),
    };
    unknown.bytes(TYPE_META, &meta.out);
    unknown.head(RAW, raw_len);
    unknown.out
}

/// Tag and length of a field that holds `len` bytes, for writing a message piece by piece.
pub fn field_head(number: u32, len: u64) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.head(number, len);
    writer.out
}

/// One message of a watch stream: four bytes of length, then a bare `WatchEvent` that holds the
/// whole body `object`.
///
/// `object`: less than 4 GiB, as every body is.
pub fn watch_frame(event: &str, object: &[u8]) -> Vec<u8> {
    let mut extension = Writer::default();
    extension.head(1, object.len() as u64);
    let mut message = Writer::default();
    message.bytes(1, event.as_bytes());
    message.head(2, (extension.out.len() + object.len()) as u64);
    message.out.append(&mut extension.out);
    let len = u32::try_from(message.out.len() + object.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(4 + message.out.len() + object.len());
    frame.extend_from_slice(&len.to_be_bytes());
    frame.append(&mut message.out);
    frame.extend_from_slice(object);
    frame
}
