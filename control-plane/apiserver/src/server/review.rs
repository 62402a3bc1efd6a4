//! Where a write meets the policies and webhooks that users configure.
//!
//! Changed objects go the way of new ones again: defaults, built-in admission, preparation. What the
//! server alone writes is put back.

use serde_json::Value;

use super::{Server, Target, WriteContext, scale};
use crate::admission::dynamic::{Mutated, Operation, Request};
use crate::registry::Subresource;
use crate::server::DeleteRequest;
use crate::status::StatusError;
use crate::tree;

/// Metadata that nobody changes of an object that is being written.
const KEPT: [&str; 6] = [
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "generation",
    "managedFields",
];

impl Server {
    /// Lets a new object be changed.
    pub(super) async fn mutate_new(
        &self,
        target: &Target,
        object: &mut Value,
        context: &WriteContext,
    ) -> Result<Mutated, StatusError> {
        let request = Request::write(Operation::Create, target, &Value::Null, context);
        let before = kept(object);
        let mutated = self.dynamic.mutate(&request, object).await?;
        if mutated == Mutated::Yes {
            put_back(object, before);
        }
        Ok(mutated)
    }

    /// Asks about a new object as it would be stored.
    pub(super) async fn validate_new(
        &self,
        target: &Target,
        object: &Value,
        context: &WriteContext,
    ) -> Result<(), StatusError> {
        let request = Request::write(Operation::Create, target, &Value::Null, context);
        self.dynamic.validate(&request, object).await
    }

    /// Lets the new version of an object, or its scale, be changed.
    pub(super) async fn mutate_update(
        &self,
        target: &Target,
        new: &mut Value,
        old: &Value,
        context: &WriteContext,
    ) -> Result<Mutated, StatusError> {
        if target.subresource != Some(Subresource::Scale) {
            let request = Request::write(Operation::Update, target, old, context);
            let before = kept(new);
            let mutated = self.dynamic.mutate(&request, new).await?;
            if mutated == Mutated::Yes {
                put_back(new, before);
            }
            return Ok(mutated);
        }
        let (mut scale, before) = (scale::of(&target.kind, new), scale::of(&target.kind, old));
        let request = Request::write(Operation::Update, target, &before, context);
        let mutated = self.dynamic.mutate(&request, &mut scale).await?;
        if mutated == Mutated::Yes {
            let rv = tree::at(new, &["metadata", "resourceVersion"]).clone();
            *new = scale::into(target, new, &scale)?;
            tree::object_mut(new, "metadata").insert("resourceVersion".to_owned(), rv);
        }
        Ok(mutated)
    }

    /// Asks about the new version of an object, or its scale, as it would be stored.
    pub(super) async fn validate_update(
        &self,
        target: &Target,
        new: &Value,
        old: &Value,
        context: &WriteContext,
    ) -> Result<(), StatusError> {
        if target.subresource != Some(Subresource::Scale) {
            let request = Request::write(Operation::Update, target, old, context);
            return self.dynamic.validate(&request, new).await;
        }
        let (scale, before) = (scale::of(&target.kind, new), scale::of(&target.kind, old));
        let request = Request::write(Operation::Update, target, &before, context);
        self.dynamic.validate(&request, &scale).await
    }

    /// Asks about a deletion.
    pub(super) async fn review_delete(
        &self,
        target: &Target,
        old: &Value,
        deletion: &DeleteRequest,
        context: &WriteContext,
    ) -> Result<(), StatusError> {
        let request = Request::delete(target, old, deletion, context);
        self.dynamic.mutate(&request, &mut Value::Null).await?;
        self.dynamic.validate(&request, &Value::Null).await
    }

    /// Asks about what is sent to a subresource that is no part of the object: a Binding, an
    /// Eviction, a TokenRequest.
    ///
    /// # Errors
    /// It is refused.
    pub(crate) async fn review_body(
        &self,
        target: &Target,
        body: &mut Value,
        context: &WriteContext,
    ) -> Result<(), StatusError> {
        if !self.dynamic.asks(context) {
            return Ok(());
        }
        let request = Request::write(Operation::Create, target, &Value::Null, context);
        self.dynamic.mutate(&request, body).await?;
        self.dynamic.validate(&request, body).await
    }

    /// Asks about a connection to a pod, service or node; `options` say how.
    ///
    /// # Errors
    /// It is refused.
    pub(crate) async fn review_connection(
        &self,
        target: &Target,
        mut options: Value,
        context: &WriteContext,
    ) -> Result<(), StatusError> {
        let request = Request::connect(target, context);
        self.dynamic.mutate(&request, &mut options).await?;
        self.dynamic.validate(&request, &options).await
    }
}

fn kept(object: &Value) -> Vec<Option<Value>> {
    let meta = tree::at(object, &["metadata"]);
    KEPT.iter().map(|field| meta.get(*field).cloned()).collect()
}

fn put_back(object: &mut Value, kept: Vec<Option<Value>>) {
    let meta = tree::object_mut(object, "metadata");
    for (field, value) in KEPT.iter().zip(kept) {
        match value {
            Some(value) => {
                meta.insert((*field).to_owned(), value);
            }
            None => {
                meta.shift_remove(*field);
            }
        }
    }
}
