//! Server-side apply: an object told in part, merged by the schema, with an owner for each field.
//!
//! Ownership (`metadata.managedFields`) is kept of objects that a client created or applied. Those
//! that the control plane makes itself carry no entries; their fields count as set "before first
//! apply" when somebody does apply them.

use std::sync::Arc;

use proto_api::apply::{self, ApplyError, FieldSet, Form, OnConflict, Writer};
use proto_api::decode::{self, DecodeError, Finding};
use proto_api::schema::Schema;
use serde_json::{Value, json};

use super::patch::same_place;
use super::{Owners, Server, Target, WriteContext};
use crate::object::Obj;
use crate::registry::{Kind, Subresource, group_version};
use crate::status::{Cause, Details, StatusError};
use crate::tree;

/// How often an apply that found no object, then found one on creating it, begins again.
const ATTEMPTS_MAX: usize = 4;

/// Whose entries a write carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ownership {
    /// The object comes from an apply and has its entries.
    Applied,
    /// The write is noted in the entries, if the object has any.
    Noted,
}

impl Server {
    /// Applies `config` (parsed, not checked) as `context.manager`; true when it created the object.
    ///
    /// # Errors
    /// Conflict with a cause for each field that another manager owns, unless they are taken;
    /// BadRequest when the configuration does not fit the schema.
    pub async fn apply(
        &self,
        target: &Target,
        config: &Value,
        on_conflict: OnConflict,
        context: &WriteContext,
    ) -> Result<(Arc<Obj>, bool), StatusError> {
        let (api_version, kind) = match target.subresource.and_then(Subresource::body) {
            Some((group, version, kind)) => (group_version(group, version), kind),
            None => (target.kind.api_version(), target.kind.kind),
        };
        check_config(config, &api_version, kind)?;
        let scaled;
        let config = match target.subresource {
            Some(Subresource::Scale) => {
                scaled = self.config_of_scale(target, config)?;
                &scaled
            }
            _ => config,
        };
        let pinned = !tree::is_unset(tree::at(config, &["metadata", "resourceVersion"]));
        for attempt in 1..=ATTEMPTS_MAX {
            let merge = |live: Option<&Value>| {
                let mut merged = self.merge_applied(target, live, config, on_conflict, context)?;
                if live.is_none() {
                    refuse_uid(target, config)?;
                }
                same_place(target, &merged)?;
                if !pinned {
                    tree::object_mut(&mut merged, "metadata").shift_remove("resourceVersion");
                }
                Ok(merged)
            };
            if self.cached(target).is_some() || target.subresource.is_some() {
                let write = |live: &Value| merge(Some(live));
                let applied = self
                    .modify_as(target, context, Ownership::Applied, write)
                    .await?;
                return Ok((applied, false));
            }
            let (kind, namespace) = (&target.kind, &target.key.namespace);
            self.admission.check_may_create(target, &context.user)?;
            let body = merge(None)?;
            match self
                .create_as(kind, namespace, body, context, Ownership::Applied)
                .await
            {
                Ok(made) => return Ok((made, true)),
                Err(error) if error.reason != "AlreadyExists" || attempt >= ATTEMPTS_MAX => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
        Err(StatusError::modified(
            target.kind.group_resource(),
            &target.key.name,
        ))
    }

    /// What a configuration of a scale says of the object itself: its replicas, and which version
    /// of it is meant.
    fn config_of_scale(&self, target: &Target, scale: &Value) -> Result<Value, StatusError> {
        let refuse = |why: &dyn std::fmt::Display| {
            StatusError::bad_request(typed_patch(target, "autoscaling/v1", "Scale", why))
        };
        let type_id = self.type_of_gvk("autoscaling", "v1", "Scale")?;
        let (_, findings) =
            decode::check(self.schema, type_id, scale.clone()).map_err(|fault| refuse(&fault))?;
        if let Some(Finding::UnknownField(path)) = findings.first() {
            return Err(refuse(&format!(".{path}: field not declared in schema")));
        }
        let mut config = json!({
            "apiVersion": target.kind.api_version(), "kind": target.kind.kind,
            "metadata": {"name": tree::text(scale, &["metadata", "name"])},
        });
        if tree::int(scale, &["spec", "replicas"]).is_some() {
            config = super::scale::into(target, &config, scale)?;
        }
        let meta = tree::object_mut(&mut config, "metadata");
        if meta.get("resourceVersion").is_none_or(tree::is_unset) {
            meta.shift_remove("resourceVersion");
        }
        Ok(config)
    }

    fn merge_applied(
        &self,
        target: &Target,
        live: Option<&Value>,
        config: &Value,
        on_conflict: OnConflict,
        context: &WriteContext,
    ) -> Result<Value, StatusError> {
        let (schema, type_id) = self.type_of(&target.kind)?;
        let (api_version, now) = (target.kind.api_version(), self.now_text());
        let ignored = ignored(target);
        let writer = Writer {
            schema,
            type_id,
            form: form(&target.kind),
            manager: &context.manager,
            api_version: &api_version,
            subresource: target.subresource.map_or("", Subresource::name),
            ignored: &ignored,
            now: &now,
        };
        apply::apply(&writer, live, config, on_conflict).map_err(|fault| refusal(target, &fault))
    }
}

/// Notes in `managedFields` what a write other than an apply changed of `old` (nothing at
/// creation), if the object has entries or the writer gives it some.
pub(super) fn note_owner(
    schema: &Schema,
    target: &Target,
    new: &mut Value,
    old: Option<&Value>,
    context: &WriteContext,
    now: &str,
) {
    let entries = ["metadata", "managedFields"];
    let tracked = match old {
        Some(old) => !tree::list(old, &entries).is_empty(),
        None => context.owners == Owners::FromCreation && !target.kind.is_view(),
    };
    let kind = &target.kind;
    let gvk = proto_api::schema::Gvk {
        group: kind.group,
        version: kind.version,
        kind: kind.kind,
    };
    let schema = kind.custom.as_ref().map_or(schema, |custom| &custom.typed);
    let Some(type_id) = schema.kind(gvk).filter(|_| tracked) else {
        tree::object_mut(new, "metadata").shift_remove("managedFields");
        return;
    };
    let (api_version, ignored) = (kind.api_version(), ignored(target));
    let writer = Writer {
        schema,
        type_id,
        form: form(kind),
        manager: &context.manager,
        api_version: &api_version,
        subresource: target.subresource.map_or("", Subresource::name),
        ignored: &ignored,
        now,
    };
    // Ownership must not stand in the way of a write; the next apply sees a conflict too few.
    if let Err(fault) = apply::update(&writer, old, new) {
        tracing::warn!(kind = kind.kind, name = %target.key.name, %fault, "owner not noted");
        let kept = old.map_or(Value::Null, |old| tree::at(old, &entries).clone());
        tree::object_mut(new, "metadata").insert("managedFields".to_owned(), kept);
    }
}

const fn form(kind: &Kind) -> Form {
    if kind.custom.is_some() {
        Form::Free
    } else {
        Form::Canonical
    }
}

/// Fields that the path does not write.
fn ignored(target: &Target) -> FieldSet {
    let none = FieldSet::default();
    match target.subresource {
        Some(Subresource::Status) => none.with(&["spec"]).with(&["metadata", "labels"]),
        _ if target.kind.strategy.has_status() => none.with(&["status"]),
        _ => none,
    }
}

/// Nothing is created with a uid of the client's choice: it means an object that is gone.
fn refuse_uid(target: &Target, config: &Value) -> Result<(), StatusError> {
    let uid = tree::text(config, &["metadata", "uid"]);
    if uid.is_empty() {
        return Ok(());
    }
    let why = format!(
        "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
    );
    let resource = target.kind.group_resource();
    Err(StatusError::conflict(resource, &target.key.name, &why))
}

fn check_config(config: &Value, api_version: &str, kind: &str) -> Result<(), StatusError> {
    let stated = tree::text(config, &["apiVersion"]);
    if stated != api_version {
        return Err(StatusError::bad_request(format!(
            "Incorrect version specified in apply patch. Specified patch version: {stated}, \
             expected: {api_version}"
        )));
    }
    let stated = tree::text(config, &["kind"]);
    if stated != kind {
        return Err(StatusError::bad_request(format!(
            "the kind in the patch ({stated}) does not match the resource's ({kind})"
        )));
    }
    if !tree::is_unset(tree::at(config, &["metadata", "managedFields"])) {
        return Err(StatusError::bad_request(
            "metadata.managedFields must be nil",
        ));
    }
    Ok(())
}

fn refusal(target: &Target, fault: &ApplyError) -> StatusError {
    let kind = &target.kind;
    match fault {
        ApplyError::Conflicts(conflicts) => {
            let mut error = StatusError::new(409, "Conflict", fault.to_string());
            let cause = |conflict: &apply::Conflict| Cause {
                reason: "FieldManagerConflict".to_owned(),
                message: conflict.message.clone(),
                field: conflict.field.clone(),
            };
            let causes = conflicts.iter().map(cause).collect();
            error.details = Some(Box::new(Details {
                causes,
                ..Details::default()
            }));
            error
        }
        ApplyError::Schema(_) | ApplyError::Decode(_) => {
            let why: &dyn std::fmt::Display = match fault {
                ApplyError::Decode(fault) => &type_text(fault),
                _ => fault,
            };
            let message = typed_patch(target, &kind.api_version(), kind.kind, why);
            StatusError::bad_request(message)
        }
        ApplyError::ManagedFields(_) => StatusError::internal(fault),
    }
}

fn typed_patch(
    target: &Target,
    api_version: &str,
    kind: &str,
    why: &dyn std::fmt::Display,
) -> String {
    format!(
        "failed to create typed patch object ({}/{}; {api_version}, Kind={kind}): {why}",
        target.key.namespace, target.key.name
    )
}

/// A value of the wrong type, as upstream's typed merge says it.
fn type_text(fault: &DecodeError) -> String {
    let DecodeError::Type {
        found,
        path,
        go_type,
        ..
    } = fault
    else {
        return fault.to_string();
    };
    let found = match found.as_str() {
        "array" => "[]interface {}",
        "object" => "map[string]interface {}",
        other => other,
    };
    let expected = match go_type.as_str() {
        "string" => "string",
        "bool" => "boolean",
        "int32" | "int64" | "float64" => "numeric (int or float)",
        list if list.starts_with("[]") => "list",
        _ => "map",
    };
    format!(".{path}: expected {expected}, got {found}")
}

#[cfg(test)]
mod tests;
