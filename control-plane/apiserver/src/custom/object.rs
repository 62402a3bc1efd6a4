//! Bodies of custom objects: no Go types, so syntax, metadata and unknown fields are what is
//! checked on reading; the schema's rules are validation.

use control_plane_apiextensions::{default, metadata_of, prune};
use proto_api::decode::{self, DecodeError, Decoded, Encoding, Finding};
use proto_api::schema::Gvk;
use serde_json::Value;

use super::CustomVersion;

/// Reads a body of kind `gvk`.
pub(crate) fn decode(
    version: &CustomVersion,
    gvk: Gvk<'_>,
    body: &[u8],
    encoding: Encoding,
) -> Result<Decoded, DecodeError> {
    let (mut value, mut findings) = decode::parse(body, encoding)?;
    let Some(object) = value.as_object_mut() else {
        return Err(DecodeError::NotAnObject {
            found: "value",
            go_type: "unstructured.Unstructured".to_owned(),
        });
    };
    let (default_version, default_kind) = (gvk.api_version(), gvk.kind.to_owned());
    let mut stated = |name: &str, default: String| {
        let own = object
            .get(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty());
        let text = own.map_or(default, str::to_owned);
        object.insert(name.to_owned(), Value::String(text.clone()));
        text
    };
    let api_version = stated("apiVersion", default_version);
    let kind = stated("kind", default_kind);
    let (value, found) = check(version, value)?;
    findings.extend(found);
    Ok(Decoded {
        value,
        api_version,
        kind,
        type_id: version.type_id,
        findings,
    })
}

/// Drops unknown fields, fills defaults and brings the metadata into its canonical form.
pub(crate) fn check(
    version: &CustomVersion,
    mut value: Value,
) -> Result<(Value, Vec<Finding>), DecodeError> {
    let mut findings = match value.as_object_mut() {
        Some(object) => metadata_of(object)?,
        None => Vec::new(),
    };
    findings.extend(prune(&version.schema, &mut value));
    default(&version.schema, &mut value);
    Ok((value, findings))
}
