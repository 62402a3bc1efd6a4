//! Create: name, metadata, defaults, admission, validation, commit.

use std::sync::Arc;

use proto_api::names;
use serde_json::{Value, json};

use super::apply::{Ownership, note_owner};
use super::commit::{Change, CommitFault};
use super::{Server, Target, WriteContext, new_uid, owners};
use crate::admission::dynamic::Mutated;
use crate::object::{Obj, ObjKey};
use crate::registry::Kind;
use crate::status::StatusError;
use crate::{tree, validation};

/// How often a taken generated name, or a taken number, is chosen again.
const ATTEMPTS_MAX: usize = 8;

impl Server {
    /// Creates `body` in `namespace` (empty for cluster-scoped kinds).
    ///
    /// # Errors
    /// AlreadyExists, Invalid, Forbidden, or the store's faults.
    pub async fn create(
        &self,
        kind: &Arc<Kind>,
        namespace: &str,
        body: Value,
        context: &WriteContext,
    ) -> Result<Arc<Obj>, StatusError> {
        self.create_as(kind, namespace, body, context, Ownership::Noted)
            .await
    }

    pub(super) async fn create_as(
        &self,
        kind: &Arc<Kind>,
        namespace: &str,
        body: Value,
        context: &WriteContext,
        ownership: Ownership,
    ) -> Result<Arc<Obj>, StatusError> {
        if kind
            .custom
            .as_ref()
            .is_some_and(|custom| custom.terminating)
        {
            let message = "create not allowed while custom resource definition is terminating";
            return Err(StatusError::new(405, "MethodNotAllowed", message));
        }
        let body = match &kind.view {
            Some(view) => view.store(body),
            None => body,
        };
        let mut attempt = 0;
        loop {
            let mut value = body.clone();
            if ownership == Ownership::Noted {
                // Entries of another object: what a client exported and creates anew.
                tree::object_mut(&mut value, "metadata").shift_remove("managedFields");
            }
            owners::dedup(&mut value, context);
            let generated = self.fill_metadata(kind, namespace, &mut value)?;
            let target = Target::new(kind, namespace, tree::text(&value, &["metadata", "name"]));
            self.complete_new(&target, &mut value, context, ownership)
                .await?;
            let exists = || StatusError::already_exists(kind.group_resource(), &target.key.name);
            if self.cached(&target).is_some() && !generated {
                return Err(exists());
            }
            attempt += 1;
            match self
                .commit(&target, context, Change::Create(&mut value))
                .await
            {
                Ok(obj) => return Ok(obj),
                Err(CommitFault::Refused(error)) => return Err(error),
                Err(CommitFault::Stale) if !generated => return Err(exists()),
                Err(CommitFault::Stale) if attempt >= ATTEMPTS_MAX => {
                    let resource = kind.group_resource();
                    return Err(StatusError::no_unique_name(resource, &target.key.name));
                }
                Err(CommitFault::NumberTaken) if attempt >= ATTEMPTS_MAX => {
                    let message = "others took what this needs (a service address, a node port, \
                        a place in a quota) again and again; try again";
                    return Err(StatusError::new(500, "ServerTimeout", message));
                }
                Err(CommitFault::Stale | CommitFault::NumberTaken) => {}
            }
        }
    }

    /// Sets what the server owns of a new object's metadata; true when it generated the name.
    fn fill_metadata(
        &self,
        kind: &Arc<Kind>,
        namespace: &str,
        value: &mut Value,
    ) -> Result<bool, StatusError> {
        let api_version = kind.stored_api_version();
        let object = tree::as_object(value);
        object.insert("apiVersion".to_owned(), json!(api_version));
        object.insert("kind".to_owned(), json!(kind.kind));
        let meta = tree::object_mut(value, "metadata");
        if meta
            .get("resourceVersion")
            .is_some_and(|rv| !tree::is_unset(rv))
        {
            let message = "resourceVersion should not be set on objects to be created";
            return Err(StatusError::bad_request(message));
        }
        if kind.namespaced() {
            let own = meta
                .get("namespace")
                .and_then(Value::as_str)
                .unwrap_or_default();
            if !own.is_empty() && own != namespace {
                return Err(StatusError::bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
            meta.insert("namespace".to_owned(), json!(namespace));
        }
        for field in [
            "resourceVersion",
            "selfLink",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        ] {
            meta.shift_remove(field);
        }
        meta.insert("uid".to_owned(), json!(new_uid()));
        meta.insert("creationTimestamp".to_owned(), json!(self.now_text()));
        if kind.strategy.has_generation() {
            meta.insert("generation".to_owned(), json!(1));
        } else {
            meta.shift_remove("generation");
        }
        let has_name = meta.get("name").is_some_and(|name| !tree::is_unset(name));
        let base = meta
            .get("generateName")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if has_name || base.is_empty() {
            return Ok(false);
        }
        let name = names::generated(base, rand::random::<u32>);
        meta.insert("name".to_owned(), json!(name));
        Ok(true)
    }

    async fn complete_new(
        &self,
        target: &Target,
        value: &mut Value,
        context: &WriteContext,
        ownership: Ownership,
    ) -> Result<(), StatusError> {
        let kind = &target.kind;
        self.admit_new(target, value, context).await?;
        if ownership == Ownership::Noted {
            let now = self.now_text();
            note_owner(self.schema, target, value, None, context, &now);
        }
        let asked = self.dynamic.asks(context);
        if asked {
            // What others change is nobody's field (as upstream): the owner is noted before.
            let mutated = Box::pin(self.mutate_new(target, value, context)).await?;
            if mutated == Mutated::Yes {
                self.admit_new(target, value, context).await?;
            }
        }
        let mut errors = validation::object_meta(kind, value);
        errors.extend(kind.strategy.validate(value));
        errors.extend(kind.strategy.validate_create(value));
        if !errors.is_empty() {
            return Err(target.invalid(&errors));
        }
        if asked {
            Box::pin(self.validate_new(target, value, context)).await?;
        }
        Ok(())
    }

    async fn admit_new(
        &self,
        target: &Target,
        value: &mut Value,
        context: &WriteContext,
    ) -> Result<(), StatusError> {
        let strategy = &target.kind.strategy;
        strategy.default(value);
        self.admission.create(target, &context.user, value).await?;
        strategy.prepare_create(value);
        Ok(())
    }

    /// Creates `body` unless an object of its name exists; for what the server itself needs.
    ///
    /// # Errors
    /// As [`Server::create`], except AlreadyExists.
    pub async fn ensure(
        &self,
        kind: &Arc<Kind>,
        namespace: &str,
        body: Value,
        context: &WriteContext,
    ) -> Result<(), StatusError> {
        let key = ObjKey::new(namespace, tree::text(&body, &["metadata", "name"]));
        if self.cache.of(kind).get(&key).is_some() {
            return Ok(());
        }
        match self.create(kind, namespace, body, context).await {
            Ok(_) => Ok(()),
            Err(error) if error.reason == "AlreadyExists" => Ok(()),
            Err(error) => Err(error),
        }
    }
}
