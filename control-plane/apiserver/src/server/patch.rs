//! Patch: a change told as a difference, applied to whatever the object is now.

use std::sync::Arc;

use proto_api::decode::DecodeError;
use proto_api::schema::{Gvk, Schema};
use proto_api::{decode, patch};
use serde_json::Value;

use super::{Server, Target, WriteContext};
use crate::field::{FieldError, Path};
use crate::object::Obj;
use crate::registry::Subresource;
use crate::status::StatusError;
use crate::tree;

/// The body of a patch request.
#[derive(Debug, Clone)]
pub enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    /// Strategic merge patch, by the schema's merge keys.
    Strategic(Value),
}

/// What a patch made, and the fields in it that the schema does not know.
#[derive(Debug)]
pub struct Patched {
    /// The object.
    pub obj: Arc<Obj>,
    /// Findings of the last application.
    pub findings: Vec<decode::Finding>,
}

/// What a patch made of an object.
pub struct Made<'a> {
    /// Fields in it that the schema does not know.
    pub findings: &'a [decode::Finding],
    /// What a refusal shows of it.
    pub shown: &'a dyn Fn() -> String,
}

impl std::fmt::Debug for Made<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Made")
            .field("findings", &self.findings)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Applies `patch`. `refuse` sees what it makes of the object and may refuse it.
    ///
    /// # Errors
    /// NotFound, Conflict, Invalid; BadRequest when the patch does not fit the object.
    pub async fn patch(
        &self,
        target: &Target,
        patch: &Patch,
        context: &WriteContext,
        mut refuse: impl FnMut(&Made<'_>) -> Result<(), StatusError>,
    ) -> Result<Patched, StatusError> {
        let kind = &target.kind;
        let gvk = match target.subresource.and_then(Subresource::body) {
            Some((group, version, kind)) => Gvk {
                group,
                version,
                kind,
            },
            None => kind.gvk(),
        };
        let scale = target.subresource == Some(Subresource::Scale);
        let (schema, type_id) = match target.subresource.and_then(Subresource::body) {
            Some((group, version, kind)) => (self.schema, self.type_of_gvk(group, version, kind)?),
            None => self.type_of(kind)?,
        };
        let mut findings = Vec::new();
        let obj = self
            .modify(target, context, |old| {
                let before = || match (scale, &kind.view) {
                    (true, _) => super::scale::of(kind, old),
                    (false, Some(view)) => view.show(old.clone()),
                    (false, None) => old.clone(),
                };
                let patched = self.patch_value(type_id, before(), patch)?;
                let shown = || match patch {
                    Patch::Strategic(difference) => go_text(difference),
                    // Made again: it is seldom asked for.
                    Patch::Json(_) | Patch::Merge(_) => self
                        .patch_value(type_id, before(), patch)
                        .map_or_else(|fault| fault.message, |made| made.to_string()),
                };
                let invalid = |why: String| {
                    let error = FieldError::invalid(&Path::root("patch"), shown(), why);
                    StatusError::invalid("", "", "", &[error])
                };
                if let Some(why) = other_kind(self.schema, gvk, &patched) {
                    return Err(invalid(why));
                }
                let checked = match &kind.custom {
                    Some(custom) if !scale => crate::custom::check(custom, patched),
                    _ => decode::check(schema, type_id, patched),
                };
                let (checked, found) = checked.map_err(|fault| match patch {
                    Patch::Strategic(_) => invalid(converter_text(&fault)),
                    Patch::Json(_) | Patch::Merge(_) => invalid(fault.to_string()),
                })?;
                refuse(&Made {
                    findings: &found,
                    shown: &shown,
                })?;
                findings = found;
                same_place(target, &checked)?;
                match (scale, &kind.view) {
                    (true, _) => super::scale::into(target, old, &checked),
                    (false, Some(view)) => Ok(view.store(checked)),
                    (false, None) => Ok(checked),
                }
            })
            .await?;
        Ok(Patched { obj, findings })
    }

    fn patch_value(
        &self,
        type_id: proto_api::schema::TypeId,
        object: Value,
        patch: &Patch,
    ) -> Result<Value, StatusError> {
        match patch {
            Patch::Json(operations) => patch::json(&object, operations),
            Patch::Merge(difference) => {
                // A patched object may name a resourceVersion only when the patch does.
                let mut object = object;
                drop_revision(&mut object);
                Ok(patch::merge(object, difference))
            }
            Patch::Strategic(difference) => {
                let mut object = object;
                drop_revision(&mut object);
                patch::strategic(self.schema, type_id, object, difference.clone())
            }
        }
        .map_err(|fault| refusal(&fault))
        .map(|mut patched| {
            if let Patch::Json(operations) = patch
                && !names_revision(operations)
            {
                drop_revision(&mut patched);
            }
            patched
        })
    }
}

fn drop_revision(object: &mut Value) {
    tree::object_mut(object, "metadata").shift_remove("resourceVersion");
}

/// Whether a JSON patch sets the resourceVersion itself.
fn names_revision(operations: &Value) -> bool {
    operations
        .as_array()
        .into_iter()
        .flatten()
        .any(|operation| {
            let path = operation["path"].as_str().unwrap_or_default();
            path == "/metadata/resourceVersion" && operation["op"] != "test"
        })
}

/// Why what a patch made is no object of `wanted`: another kind, or none that is known.
fn other_kind(schema: &Schema, wanted: Gvk<'_>, made: &Value) -> Option<String> {
    let text = |name: &str| tree::text(made, &[name]);
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if kind == wanted.kind && api_version == wanted.api_version() {
        return None;
    }
    if api_version.is_empty() || kind.is_empty() || !made.is_object() {
        return None;
    }
    let found = Gvk::parse(api_version, kind);
    Some(match schema.kind(found) {
        Some(_) => decode::no_conversion(found, wanted),
        None => format!("no kind \"{kind}\" is registered for version \"{api_version}\" in scheme"),
    })
}

/// A patch does not give its object another name or namespace.
pub(super) fn same_place(target: &Target, made: &Value) -> Result<(), StatusError> {
    let text = |name: &str| tree::text(made, &["metadata", name]);
    let (namespace, name) = (text("namespace"), text("name"));
    if !namespace.is_empty() && target.kind.namespaced() && namespace != &*target.key.namespace {
        return Err(StatusError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    super::update::same_name(target, name)
}

/// What upstream's converter of trees says where its decoder says `fault`.
fn converter_text(fault: &DecodeError) -> String {
    let DecodeError::Type { found, go_type, .. } = fault else {
        return fault.to_string();
    };
    let found = match found.split(' ').next() {
        Some("array") => "slice",
        Some("object") => "map",
        Some("number") => "int64",
        _ => found,
    };
    if go_type.starts_with("map[") {
        return format!("cannot restore map from {found}");
    }
    if go_type.starts_with("[]") {
        return format!("cannot restore slice from {found}");
    }
    if go_type.contains('.') {
        return format!("cannot restore struct from: {found}");
    }
    format!("unrecognized type: {go_type}")
}

/// A tree as Go prints its maps.
fn go_text(value: &Value) -> String {
    let joined = |parts: Vec<String>| parts.join(" ");
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => format!("[{}]", joined(items.iter().map(go_text).collect())),
        Value::Object(fields) => {
            let mut parts: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("{name}:{}", go_text(value)))
                .collect();
            parts.sort();
            format!("map[{}]", joined(parts))
        }
    }
}

fn refusal(fault: &patch::PatchError) -> StatusError {
    use patch::PatchError as Fault;
    match fault {
        Fault::TooManyOperations(_) | Fault::TooMuchCopied(_) => {
            StatusError::new(413, "RequestEntityTooLarge", fault.to_string())
        }
        // Upstream does not say which operation it was, and clients know the sentence.
        Fault::Inapplicable(why) => {
            tracing::debug!(why, "a JSON patch does not apply");
            let message = "the server rejected our request due to an error in our request";
            let mut error = StatusError::new(422, "Invalid", message);
            error.details = Some(Box::default());
            error
        }
        Fault::Malformed(_)
        | Fault::UnknownDirective { .. }
        | Fault::NoMergeKey { .. }
        | Fault::Strategic(_) => StatusError::bad_request(fault.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn trees_are_shown_as_go_shows_its_maps() {
        let value = json!({"spec": {"replicas": "x", "a": null}, "b": [1, true, {"c": {}}]});
        let expected = "map[b:[1 true map[c:map[]]] spec:map[a:<nil> replicas:x]]";
        assert_eq!(go_text(&value), expected);
    }
}
