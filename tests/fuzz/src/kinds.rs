//! What the API server makes of an object that was read: rules of kinds, custom kinds, the store's form.

use bytes::Bytes;
use control_plane_apiextensions::{
    Definition, defaults, prune, validate, validate_definition, validate_rules,
};
use control_plane_apiserver::fuzzing;
use proto_api::decode::{self, Encoding};
use proto_api::schema::builtin;

use crate::bodies::parsed;
use crate::text;

/// Defaults and validates whatever kind the body is of.
pub(crate) fn kinds(data: &[u8]) {
    if let Ok(decoded) = decode::body(builtin(), None, data, Encoding::Json) {
        fuzzing::validate(decoded.value);
    }
}

/// A stored object and its key, as the store gives them back.
pub(crate) fn stored(data: &[u8]) {
    let (key, value) = halves(data);
    fuzzing::stored(&text(key), &Bytes::copy_from_slice(value));
}

/// A definition of a custom kind and an object of it.
pub(crate) fn definition(data: &[u8]) {
    let (definition, object) = halves(data);
    let Some(mut definition) = parsed(definition) else {
        return;
    };
    if !definition.is_object() {
        return;
    }
    defaults(&mut definition);
    let sound = validate_definition(&definition).is_empty();
    let Ok(made) = Definition::parse(&definition) else {
        return;
    };
    for version in &made.versions {
        let _violations = validate_rules(&version.schema, "spec");
        let (Some(mut object), true) = (parsed(object), sound) else {
            continue;
        };
        let _findings = prune(&version.schema, &mut object);
        control_plane_apiextensions::default(&version.schema, &mut object);
        let _violations = validate(&version.schema, &object);
    }
}

/// The two halves of `data` around the first NUL byte.
fn halves(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[]),
    }
}
