//! OpenAPI v3 documents, one a group-version, made from the schema table and the resources that are
//! served. One reason to change: what kubectl, Helm and generators read from them.
//!
//! kubectl needs: every write operation with its `x-kubernetes-group-version-kind` and the
//! `fieldValidation` parameter (validation), descriptions (`explain`), list types and merge keys
//! (`apply`, `diff`, `edit`). A document with descriptions is 60 to 400 KB of text and some
//! milliseconds of work: build it at first demand and keep the bytes.

mod components;
mod legacy;
mod paths;
#[cfg(test)]
mod tests;

use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_128;

pub use self::legacy::merged;
use crate::schema::{Gvk, Schema};

/// The Kubernetes release that the documents state.
pub const VERSION: &str = "v1.37.0";

/// One entry of discovery: a resource or a subresource.
#[derive(Debug, Clone)]
pub struct Resource<'a> {
    /// `pods`, or `pods/status` for a subresource.
    pub name: &'a str,
    /// Kind of the bodies; a subresource's may be of another group (`autoscaling/v1`, `Scale`).
    pub gvk: Gvk<'a>,
    pub namespaced: bool,
    /// Discovery's verbs: `create`, `delete`, `deletecollection`, `get`, `list`, `patch`,
    /// `update`, `watch`.
    pub verbs: &'a [&'a str],
}

/// The document of one group-version as JSON bytes. Kinds that the schema does not hold have
/// operations but no component. `custom`: components that the schema does not hold, by kind and name.
pub fn document(
    schema: &Schema,
    group: &str,
    version: &str,
    resources: &[Resource<'_>],
    custom: &[(Gvk<'_>, String, Value)],
) -> Vec<u8> {
    let document: Value = json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": paths::paths(schema, group, version, resources, custom),
        "components": {"schemas": components::schemas(schema, resources, custom)},
    });
    document.to_string().into_bytes()
}

/// An OpenAPI v2 document without definitions, as protobuf ([`merged`] has them, as JSON): kubectl asks for it when the v3 document
/// does not know a kind, and then reports the unknown kind instead of the missing document.
pub fn legacy_document() -> Vec<u8> {
    // gnostic's openapi.v2.Document: 1 swagger, 2 info (1 title, 2 version), 8 paths.
    let mut info = Vec::new();
    push_field(&mut info, 1, b"Kubernetes");
    push_field(&mut info, 2, VERSION.as_bytes());
    let mut document = Vec::new();
    push_field(&mut document, 1, b"2.0");
    push_field(&mut document, 2, &info);
    push_field(&mut document, 8, b"");
    document
}

/// Appends a length-delimited protobuf field; number and length stay below 16 and 128.
fn push_field(message: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    message.push(number << 3 | 2);
    message.extend(u8::try_from(bytes.len()));
    message.extend_from_slice(bytes);
}

/// The hash that the index carries in a document's URL, so that clients may cache it for good.
pub fn hash(document: &[u8]) -> String {
    format!("{:032X}", xxh3_128(document))
}

/// Where a schema is found.
fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}
