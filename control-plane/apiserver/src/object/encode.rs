//! The stored encoding of an object and the key it is stored under.

use bytes::Bytes;
use serde_json::Value;

use super::peek::PeekError;

const METADATA: &[u8] = b"\"metadata\":{";
const RV_FIELD: &str = "\"resourceVersion\":\"";
/// How far into the bytes `metadata` may begin: after `apiVersion` and `kind`.
const HEAD_LEN_MAX: usize = 512;

/// Why an object could not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Not a JSON object with apiVersion, kind and metadata.
    #[error("object has no {field}")]
    Missing {
        /// The missing field.
        field: &'static str,
    },
    /// serde refused.
    #[error("serialise object")]
    Serialise(#[from] serde_json::Error),
}

/// Encodes `value` for the store: `kind`, `apiVersion` and `metadata` first, no resourceVersion.
///
/// # Errors
/// One of the three is missing.
pub fn encode(value: &Value) -> Result<Bytes, EncodeError> {
    let map = value
        .as_object()
        .ok_or(EncodeError::Missing { field: "fields" })?;
    let kind = map
        .get("kind")
        .ok_or(EncodeError::Missing { field: "kind" })?;
    let version = map.get("apiVersion").ok_or(EncodeError::Missing {
        field: "apiVersion",
    })?;
    let metadata = map
        .get("metadata")
        .and_then(Value::as_object)
        .ok_or(EncodeError::Missing { field: "metadata" })?;
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(b"{\"kind\":");
    serde_json::to_writer(&mut out, kind)?;
    out.extend_from_slice(b",\"apiVersion\":");
    serde_json::to_writer(&mut out, version)?;
    out.push(b',');
    out.extend_from_slice(METADATA);
    write_fields(
        &mut out,
        metadata
            .iter()
            .filter(|(name, _)| *name != "resourceVersion"),
    )?;
    out.push(b'}');
    let rest = map
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "kind" | "apiVersion" | "metadata"))
        .peekable();
    let mut rest = rest;
    if rest.peek().is_some() {
        out.push(b',');
        write_fields(&mut out, rest)?;
    }
    out.push(b'}');
    out.shrink_to_fit();
    Ok(Bytes::from(out))
}

fn write_fields<'a>(
    out: &mut Vec<u8>,
    fields: impl Iterator<Item = (&'a String, &'a Value)>,
) -> Result<(), serde_json::Error> {
    for (i, (name, value)) in fields.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, name)?;
        out.push(b':');
        serde_json::to_writer(&mut *out, value)?;
    }
    Ok(())
}

/// Puts `rv` into stored bytes; returns them with the place of the revision's digits.
pub(super) fn splice_revision(
    stored: &[u8],
    rv: u64,
) -> Result<(Bytes, std::ops::Range<usize>), PeekError> {
    if rv == 0 {
        return Ok((Bytes::copy_from_slice(stored), 0..0));
    }
    let head = &stored[..stored.len().min(HEAD_LEN_MAX)];
    let at = head
        .windows(METADATA.len())
        .position(|window| window == METADATA)
        .ok_or(PeekError::NoMetadata)?
        + METADATA.len();
    let digits = rv.to_string();
    let mut json = Vec::with_capacity(stored.len() + RV_FIELD.len() + digits.len() + 2);
    json.extend_from_slice(&stored[..at]);
    json.extend_from_slice(RV_FIELD.as_bytes());
    let start = json.len();
    json.extend_from_slice(digits.as_bytes());
    let end = json.len();
    json.push(b'"');
    if stored.get(at) != Some(&b'}') {
        json.push(b',');
    }
    json.extend_from_slice(&stored[at..]);
    Ok((Bytes::from(json), start..end))
}

/// The store's key of an object: `o/<group or core>/<plural>/<namespace or empty>/<name>`.
#[must_use]
pub fn store_key(group: &str, plural: &str, namespace: &str, name: &str) -> String {
    let group = if group.is_empty() { "core" } else { group };
    format!("o/{group}/{plural}/{namespace}/{name}")
}

/// Takes a store key apart: group (empty for core), plural, namespace, name. `None` for a key that
/// is no object's.
#[must_use]
pub fn parse_store_key(key: &str) -> Option<(&str, &str, &str, &str)> {
    let mut parts = key.strip_prefix("o/")?.splitn(4, '/');
    let group = parts.next()?;
    let group = if group == "core" { "" } else { group };
    Some((group, parts.next()?, parts.next()?, parts.next()?))
}
