//! Patch: a change told as a difference, applied to whatever the object is now.

use std::sync::Arc;

use proto_api::{decode, patch};
use serde_json::Value;

use super::{Server, Target, WriteContext};
use crate::object::Obj;
use crate::registry::Subresource;
use crate::status::StatusError;

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

impl Server {
    /// Applies `patch`. `refuse` sees unknown and duplicate fields and may refuse them.
    ///
    /// # Errors
    /// NotFound, Conflict, Invalid; BadRequest when the patch does not fit the object.
    pub async fn patch(
        &self,
        target: &Target,
        patch: &Patch,
        context: &WriteContext,
        mut refuse: impl FnMut(&[decode::Finding]) -> Result<(), StatusError>,
    ) -> Result<Patched, StatusError> {
        let kind = &target.kind;
        let (schema, type_id) = match target.subresource.and_then(Subresource::body) {
            Some((group, version, kind)) => (self.schema, self.type_of_gvk(group, version, kind)?),
            None => self.type_of(kind)?,
        };
        let scale = target.subresource == Some(Subresource::Scale);
        let mut findings = Vec::new();
        let obj = self
            .modify(target, context, |old| {
                let shown = match (scale, &kind.view) {
                    (true, _) => super::scale::of(kind, old),
                    (false, Some(view)) => view.show(old.clone()),
                    (false, None) => old.clone(),
                };
                let patched = self.patch_value(type_id, shown, patch)?;
                let checked = match &kind.custom {
                    Some(custom) if !scale => crate::custom::check(custom, patched),
                    _ => decode::check(schema, type_id, patched),
                };
                let (checked, found) =
                    checked.map_err(|fault| StatusError::bad_request(fault.to_string()))?;
                refuse(&found)?;
                findings = found;
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
    crate::tree::object_mut(object, "metadata").shift_remove("resourceVersion");
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

fn refusal(fault: &patch::PatchError) -> StatusError {
    use patch::PatchError as Fault;
    let prefix = "the server rejected our request due to an error in our request";
    match fault {
        Fault::TooManyOperations(_) | Fault::TooMuchCopied(_) => {
            StatusError::new(413, "RequestEntityTooLarge", fault.to_string())
        }
        Fault::Inapplicable(why) => StatusError::new(422, "Invalid", format!("{prefix}: {why}")),
        Fault::Malformed(_)
        | Fault::UnknownDirective { .. }
        | Fault::NoMergeKey { .. }
        | Fault::Strategic(_) => StatusError::bad_request(fault.to_string()),
    }
}
