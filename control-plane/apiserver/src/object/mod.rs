//! One object as the cache holds it: bytes serialised once, with what selectors and indexes need
//! beside them.
//!
//! Owns: [`Obj`], its key and the encoding that is stored. Must not know: kinds' rules. Invariant:
//! `json` is the stored encoding with `metadata.resourceVersion` spliced in as the first field of
//! `metadata`, so a revision is never serialised twice and never stored.

mod encode;
mod peek;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use proto_api::schema::{Schema, TypeId};
use proto_api::transcode::{self, TranscodeError};
use serde_json::Value;

pub use self::encode::{EncodeError, encode, parse_store_key, store_key};
pub use self::peek::{Meta, OwnerMeta, Peek, PeekError, Scalar};

/// Namespace and name; ordered so that a namespace is one range.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjKey {
    /// Namespace, empty for cluster-scoped objects.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl ObjKey {
    /// Key of `name` in `namespace` (empty for cluster-scoped objects).
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: Arc::from(namespace),
            name: Arc::from(name),
        }
    }
}

/// One version of one object, immutable and shared.
#[derive(Debug)]
pub struct Obj {
    /// Namespace and name.
    pub key: ObjKey,
    /// The revision this version was committed with.
    pub rv: u64,
    /// The whole object as JSON, `metadata.resourceVersion` included.
    pub json: Bytes,
    /// What the server itself reads of the metadata.
    pub meta: Meta,
    /// Values of the kind's selectable fields, in the kind's order.
    pub fields: Box<[Box<str>]>,
    rv_text: std::ops::Range<usize>,
    /// The object as a bare protobuf message, made when first asked for.
    message: OnceLock<Bytes>,
}

/// Versions are told apart by their revision: one names one content.
impl PartialEq for Obj {
    fn eq(&self, other: &Self) -> bool {
        self.rv == other.rv && self.key == other.key
    }
}

impl Obj {
    /// Makes the object of stored bytes committed at `rv`; 0: not committed (a dry run), so it
    /// shows no revision. `fields` reads the kind's selectable fields.
    ///
    /// # Errors
    /// The bytes are no object that [`mod@encode`] wrote.
    pub fn from_stored(
        key: ObjKey,
        stored: &[u8],
        rv: u64,
        fields: impl FnOnce(&Peek<'_>) -> Box<[Box<str>]>,
    ) -> Result<Self, PeekError> {
        let (json, rv_text) = encode::splice_revision(stored, rv)?;
        let (meta, fields) = {
            let peek: Peek<'_> = Peek::parse(&json)?;
            (peek.meta(), fields(&peek))
        };
        Ok(Self {
            key,
            rv,
            json,
            meta,
            fields,
            rv_text,
            message: OnceLock::new(),
        })
    }

    /// The same object as of revision `rv`: how a deletion, or leaving a selector, is told.
    #[must_use]
    pub fn at_revision(&self, rv: u64) -> Self {
        let text = rv.to_string();
        let mut json = Vec::with_capacity(self.json.len() + text.len());
        json.extend_from_slice(&self.json[..self.rv_text.start]);
        json.extend_from_slice(text.as_bytes());
        json.extend_from_slice(&self.json[self.rv_text.end..]);
        let rv_text = self.rv_text.start..self.rv_text.start + text.len();
        Self {
            key: self.key.clone(),
            rv,
            json: Bytes::from(json),
            meta: self.meta.clone(),
            fields: self.fields.clone(),
            rv_text,
            message: OnceLock::new(),
        }
    }

    /// The object as a bare protobuf message of type `id`, encoded once and shared by all readers.
    ///
    /// # Errors
    /// The object does not fit its schema.
    pub fn message(&self, schema: &Schema, id: TypeId) -> Result<Bytes, TranscodeError> {
        if let Some(made) = self.message.get() {
            return Ok(made.clone());
        }
        let made = Bytes::from(transcode::message(schema, id, &self.value())?);
        Ok(self.message.get_or_init(|| made).clone())
    }

    /// The object as a JSON tree.
    #[must_use]
    pub fn value(&self) -> Value {
        // The peek parsed the same bytes, so this cannot fail on anything that is in the cache.
        serde_json::from_slice(&self.json).unwrap_or(Value::Null)
    }

    /// Bytes this version holds, about; for the ring's bound.
    #[must_use]
    pub fn size(&self) -> usize {
        self.json.len() + 256
    }
}

#[cfg(test)]
mod tests;
