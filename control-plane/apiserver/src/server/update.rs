//! Update: replace an object or one of its subresources, retried when nothing forbids it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::apply::{Ownership, note_owner};
use super::commit::{Change, CommitFault};
use super::{Server, Target, WriteContext, owners};
use crate::admission::dynamic::Mutated;
use crate::field::{FieldError, Path};
use crate::object::Obj;
use crate::registry::{Kind, Prepare, Subresource, pod};
use crate::status::StatusError;
use crate::{tree, validation};

/// How often a write without a precondition is tried again after somebody else's.
const RETRIES_MAX: usize = 16;

impl Server {
    /// Replaces the object (or its status, scale, finalizers) by `body`; true when it was created.
    ///
    /// # Errors
    /// NotFound, Conflict, Invalid, or the store's faults.
    pub async fn update(
        &self,
        target: &Target,
        body: Value,
        context: &WriteContext,
    ) -> Result<(Arc<Obj>, bool), StatusError> {
        self.check_identity(target, &body)?;
        if target.subresource == Some(Subresource::Scale) {
            return Ok((self.update_scale(target, &body, context).await?, false));
        }
        let body = match &target.kind.view {
            Some(view) => view.store(body),
            None => body,
        };
        let missing = self.cached(target).is_none() && target.subresource.is_none();
        if missing && target.kind.strategy.creates_on_update() {
            self.admission.check_may_create(target, &context.user)?;
            let made = self
                .create(&target.kind, &target.key.namespace, body, context)
                .await?;
            return Ok((made, true));
        }
        check_conditional(target, &body)?;
        let obj = self.modify(target, context, |_| Ok(body.clone())).await?;
        Ok((obj, false))
    }

    fn check_identity(&self, target: &Target, body: &Value) -> Result<(), StatusError> {
        same_name(target, tree::text(body, &["metadata", "name"]))?;
        let namespace = tree::text(body, &["metadata", "namespace"]);
        let wanted = &*target.key.namespace;
        if !namespace.is_empty() && !wanted.is_empty() && namespace != wanted {
            return Err(StatusError::bad_request(format!(
                "the namespace of the object ({namespace}) does not match the namespace on the \
                 request ({wanted})"
            )));
        }
        if self
            .registry
            .by_kind(target.kind.group, target.kind.kind)
            .is_none()
        {
            return Err(StatusError::path_not_found());
        }
        Ok(())
    }

    /// Reads the object, lets `change` make the new one of it, and writes that. Tried again when
    /// somebody else wrote meanwhile, unless the new object names a resourceVersion.
    ///
    /// # Errors
    /// As [`Server::update`]; or what `change` returns.
    pub async fn modify(
        &self,
        target: &Target,
        context: &WriteContext,
        change: impl FnMut(&Value) -> Result<Value, StatusError>,
    ) -> Result<Arc<Obj>, StatusError> {
        self.modify_as(target, context, Ownership::Noted, change)
            .await
    }

    pub(super) async fn modify_as(
        &self,
        target: &Target,
        context: &WriteContext,
        ownership: Ownership,
        mut change: impl FnMut(&Value) -> Result<Value, StatusError>,
    ) -> Result<Arc<Obj>, StatusError> {
        let resource = target.kind.group_resource();
        let mut attempts = 0;
        loop {
            let Some(current) = self.cached(target) else {
                // The cache may lag behind another writer's create.
                self.cache.wait_for(self.newest().await?).await?;
                if self.cached(target).is_some() {
                    continue;
                }
                return Err(target.not_found());
            };
            let old = self.value_of(&target.kind, &current).await?;
            let mut new = change(&old)?;
            owners::dedup(&mut new, context);
            let pinned = check_preconditions(target, &current, &new)?;
            prepare(target, &mut new, &old);
            self.admission.update(target, &context.user, &new, &old)?;
            if ownership == Ownership::Noted {
                let now = self.now_text();
                note_owner(self.schema, target, &mut new, Some(&old), context, &now);
            }
            let asked = self.dynamic.asks(context);
            if asked {
                let mutated = self.mutate_update(target, &mut new, &old, context);
                if Box::pin(mutated).await? == Mutated::Yes {
                    prepare(target, &mut new, &old);
                    self.admission.update(target, &context.user, &new, &old)?;
                }
            }
            check(target, &new, &old)?;
            if asked {
                Box::pin(self.validate_update(target, &new, &old, context)).await?;
            }
            if is_same(&new, &old) && !is_finished(target, &new) {
                return self.in_version(&target.kind, current).await;
            }
            attempts += 1;
            let step = if is_finished(target, &new) {
                Change::Remove(&current)
            } else {
                Change::Replace(&mut new, &current)
            };
            match self.commit(target, context, step).await {
                Ok(obj) => return Ok(obj),
                Err(CommitFault::Refused(error)) => return Err(error),
                Err(CommitFault::Stale) if pinned || attempts >= RETRIES_MAX => {
                    return Err(StatusError::modified(resource, &target.key.name));
                }
                Err(CommitFault::NumberTaken) if attempts >= RETRIES_MAX => {
                    let message = "others took what this needs (a node port, a place in a quota) \
                        again and again; try again";
                    return Err(StatusError::new(500, "ServerTimeout", message));
                }
                Err(CommitFault::Stale | CommitFault::NumberTaken) => {}
            }
        }
    }
}

/// The object that is written has the name in its path.
pub(super) fn same_name(target: &Target, name: &str) -> Result<(), StatusError> {
    let wanted = &*target.key.name;
    if name.is_empty() {
        return Err(StatusError::bad_request(format!(
            "the name of the object ({wanted} based on URL) was undeterminable: name must be \
             provided"
        )));
    }
    if name != wanted {
        return Err(StatusError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({wanted})"
        )));
    }
    Ok(())
}

/// Some kinds are replaced only by who names the version that is replaced. (A patch names it by
/// being one.)
fn check_conditional(target: &Target, body: &Value) -> Result<(), StatusError> {
    let rv = tree::text(body, &["metadata", "resourceVersion"]);
    let unconditional = rv.is_empty() || rv == "0";
    if !unconditional
        || target.subresource.is_some()
        || target.kind.strategy.updates_unconditionally()
    {
        return Ok(());
    }
    let path = Path::root("metadata").child("resourceVersion");
    let error = FieldError::invalid(&path, 0, "must be specified for an update");
    Err(target.invalid(&[error]))
}

/// Compares resourceVersion and uid of the new object; true when it names a revision.
fn check_preconditions(target: &Target, current: &Obj, new: &Value) -> Result<bool, StatusError> {
    let resource = target.kind.group_resource();
    let rv = tree::text(new, &["metadata", "resourceVersion"]);
    let uid = tree::text(new, &["metadata", "uid"]);
    if !uid.is_empty() && uid != &*current.meta.uid {
        let place = [&*target.key.namespace, &*target.key.name].join("/");
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: /registry/{resource}/{}, \
             ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: \
             {uid}, UID in object meta: {}",
            place.trim_start_matches('/'),
            current.meta.uid
        );
        return Err(StatusError::conflict(resource, &target.key.name, &why));
    }
    if rv.is_empty() || rv == "0" {
        return Ok(false);
    }
    if rv != current.rv.to_string() {
        return Err(StatusError::modified(resource, &target.key.name));
    }
    Ok(true)
}

/// Makes `new` a whole object: what this write may not change is taken from `old`.
fn prepare(target: &Target, new: &mut Value, old: &Value) {
    let kind = &target.kind;
    carry_metadata(new, old, kind);
    match target.subresource {
        Some(Subresource::Finalize) => {
            let spec = new.get("spec").cloned().unwrap_or(Value::Null);
            *new = old.clone();
            tree::as_object(new).insert("spec".to_owned(), spec);
        }
        Some(Subresource::Ephemeralcontainers) => {
            pod::prepare_ephemeral(new, old);
            kind.strategy.default(new);
        }
        Some(Subresource::Resize) => {
            pod::prepare_resize(new, old);
            kind.strategy.default(new);
        }
        // These write what only they may write, on a copy of the stored object.
        Some(Subresource::Binding | Subresource::Scale) => {}
        _ => {
            kind.strategy.default(new);
            kind.strategy.prepare_update(new, old, path_of(target));
        }
    }
    if target.subresource != Some(Subresource::Binding) {
        count_generation(new, old, kind);
    }
}

fn path_of(target: &Target) -> Prepare {
    match target.subresource {
        Some(Subresource::Status) => Prepare::Status,
        Some(Subresource::Approval) => Prepare::Approval,
        _ => Prepare::Main,
    }
}

/// Checks the whole of what would be stored.
fn check(target: &Target, new: &Value, old: &Value) -> Result<(), StatusError> {
    let strategy = &target.kind.strategy;
    let mut errors = validation::object_meta_update(new, old);
    errors.extend(validation::object_meta(&target.kind, new));
    if !matches!(target.subresource, Some(Subresource::Binding)) {
        errors.extend(strategy.validate_changed(new, old));
        errors.extend(match target.subresource {
            Some(Subresource::Ephemeralcontainers) => pod::validate_ephemeral_update(new, old),
            Some(Subresource::Resize) => pod::validate_resize(new, old),
            _ => strategy.validate_update(new, old, path_of(target)),
        });
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(target.invalid(&errors))
    }
}

/// Whether an object that is being deleted has nothing left to wait for.
pub(super) fn is_finished(target: &Target, value: &Value) -> bool {
    let meta = tree::at(value, &["metadata"]);
    if tree::is_unset(tree::at(meta, &["deletionTimestamp"])) {
        return false;
    }
    let waiting = !tree::list(meta, &["finalizers"]).is_empty()
        || tree::int(meta, &["deletionGracePeriodSeconds"]).unwrap_or_default() > 0;
    let namespace =
        target.kind.kind == "Namespace" && !tree::list(value, &["spec", "finalizers"]).is_empty();
    !waiting && !namespace
}

/// Whether two versions differ in nothing but their revision.
fn is_same(new: &Value, old: &Value) -> bool {
    let fields = |value: &Value| value.as_object().map_or(0, serde_json::Map::len);
    let rest = |name: &str| {
        if name != "metadata" {
            return tree::at(new, &[name]) == tree::at(old, &[name]);
        }
        let strip = |value: &Value| {
            let mut meta = tree::at(value, &["metadata"]).clone();
            tree::as_object(&mut meta).shift_remove("resourceVersion");
            meta
        };
        strip(new) == strip(old)
    };
    fields(new) == fields(old)
        && new
            .as_object()
            .into_iter()
            .flatten()
            .all(|(name, _)| rest(name))
}

/// Metadata that no client writes: taken from the stored object.
fn carry_metadata(new: &mut Value, old: &Value, kind: &Kind) {
    let api_version = match old.get("apiVersion") {
        Some(before) if kind.custom.is_none() => before.clone(),
        _ => json!(kind.stored_api_version()),
    };
    let object = tree::as_object(new);
    object.insert("apiVersion".to_owned(), api_version);
    object.insert("kind".to_owned(), json!(kind.kind));
    let meta = tree::object_mut(new, "metadata");
    meta.shift_remove("selfLink");
    let before = tree::at(old, &["metadata"]);
    for field in [
        "namespace",
        "uid",
        "creationTimestamp",
        "generation",
        "generateName",
    ] {
        match before.get(field) {
            Some(value) if field != "uid" || !meta.contains_key("uid") => {
                meta.insert(field.to_owned(), value.clone());
            }
            Some(_) => {}
            None => {
                meta.shift_remove(field);
            }
        }
    }
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
        match before.get(field) {
            Some(value) => {
                meta.insert(field.to_owned(), value.clone());
            }
            None => {
                meta.shift_remove(field);
            }
        }
    }
}

/// A change of anything but metadata and status counts the generation up.
fn count_generation(new: &mut Value, old: &Value, kind: &Kind) {
    if !kind.strategy.has_generation() {
        return;
    }
    let status = kind.strategy.generation_counts_status();
    let relevant = |value: &Value| -> Vec<(String, Value)> {
        let mut fields: Vec<(String, Value)> = value
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, _)| name.as_str() != "metadata" && (status || *name != "status"))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        fields
    };
    if relevant(new) != relevant(old) {
        let before = tree::int(old, &["metadata", "generation"]).unwrap_or_default();
        tree::object_mut(new, "metadata").insert("generation".to_owned(), json!(before + 1));
    }
}
