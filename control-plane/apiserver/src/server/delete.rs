//! Delete: preconditions, grace, finalizers, propagation.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::commit::{Change, CommitFault};
use super::update::is_finished;
use super::{Server, Target, WriteContext, timestamp};
use crate::cache::ListRequest;
use crate::object::Obj;
use crate::registry::{Graceful, Kind};
use crate::status::{GroupResource, StatusError};
use crate::tree;

/// Finalizer of a foreground deletion: the owner waits for its dependents.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an orphaning deletion: the dependents are released first.
pub(super) const ORPHAN: &str = "orphan";
const RETRIES_MAX: usize = 16;
/// How many objects of a collection are being deleted at a time.
const DELETIONS_AT_ONCE: usize = 16;

/// What happens to dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They stay, without the owner reference.
    Orphan,
    /// They go after the owner.
    Background,
    /// The owner goes after them.
    Foreground,
}

/// What must be true of the object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// Its uid.
    pub uid: Option<String>,
    /// Its resourceVersion.
    pub resource_version: Option<String>,
}

/// How to delete.
#[derive(Debug, Clone, Default)]
pub struct DeleteRequest {
    /// Seconds the object may take to end; the kind's default when absent.
    pub grace_seconds: Option<i64>,
    /// What must be true of it.
    pub preconditions: Preconditions,
    /// What happens to dependents; background when absent.
    pub propagation: Option<Propagation>,
}

/// How a deletion went.
#[derive(Debug, Clone)]
pub enum Deleted {
    /// The object is gone; its last state.
    Gone(Arc<Obj>),
    /// The object is marked and waits for its grace period or finalizers.
    Lingers(Arc<Obj>),
}

impl Server {
    /// Deletes an object, or marks it as being deleted.
    ///
    /// # Errors
    /// NotFound; Conflict when a precondition fails.
    pub async fn delete(
        &self,
        target: &Target,
        request: &DeleteRequest,
        context: &WriteContext,
    ) -> Result<Deleted, StatusError> {
        let mut attempts = 0;
        loop {
            let Some(current) = self.cached(target) else {
                self.cache.wait_for(self.newest().await?).await?;
                if self.cached(target).is_some() {
                    continue;
                }
                return Err(target.not_found());
            };
            check(target, &current, &request.preconditions)?;
            let old = current.value();
            self.admission.delete(target, &context.user, &old)?;
            if self.dynamic.asks(context) {
                let old = self.value_of(&target.kind, &current).await?;
                Box::pin(self.review_delete(target, &old, request, context)).await?;
            }
            let mut new = old.clone();
            let default = default_propagation(target, &old);
            set_propagation(&mut new, request.propagation.or(default));
            target.kind.strategy.prepare_delete(&mut new);
            let grace = target.kind.strategy.graceful(&old, request.grace_seconds);
            self.mark(&mut new, &old, &target.kind, grace);
            attempts += 1;
            let gone = is_finished(target, &new);
            if !gone && new == old {
                let shown = self.in_version(&target.kind, current).await?;
                return Ok(Deleted::Lingers(shown));
            }
            let step = if gone {
                Change::Remove(&current)
            } else {
                Change::Replace(&mut new, &current)
            };
            match self.commit(target, context, step).await {
                Ok(obj) if gone => return Ok(Deleted::Gone(obj)),
                Ok(obj) => return Ok(Deleted::Lingers(obj)),
                Err(CommitFault::Refused(error)) => return Err(error),
                Err(_) if attempts >= RETRIES_MAX => {
                    let resource = target.kind.group_resource();
                    return Err(StatusError::modified(resource, &target.key.name));
                }
                Err(CommitFault::Stale | CommitFault::NumberTaken) => {}
            }
        }
    }

    /// Deletes everything that `list` selects; what vanished meanwhile counts as deleted.
    ///
    /// # Errors
    /// The first error other than NotFound.
    pub async fn delete_collection(
        &self,
        kind: &Arc<Kind>,
        list: &ListRequest,
        request: &DeleteRequest,
        context: &WriteContext,
    ) -> Result<Vec<Arc<Obj>>, StatusError> {
        let page = self.list(kind, list).await?;
        let deletion = |obj: &Arc<Obj>| -> BoxFuture<'_, Result<(), StatusError>> {
            let target = Target {
                kind: Arc::clone(kind),
                key: obj.key.clone(),
                subresource: None,
            };
            Box::pin(self.delete_if_there(target, request, context))
        };
        let deletions: Vec<_> = page.items.iter().map(deletion).collect();
        // Several at a time share a commit's wait for the disk.
        futures::stream::iter(deletions)
            .buffer_unordered(DELETIONS_AT_ONCE)
            .try_collect::<()>()
            .await?;
        Ok(page.items)
    }

    async fn delete_if_there(
        &self,
        target: Target,
        request: &DeleteRequest,
        context: &WriteContext,
    ) -> Result<(), StatusError> {
        match self.delete(&target, request, context).await {
            Ok(_) => Ok(()),
            Err(error) if error.code == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sets deletion time and grace; a second deletion can only shorten the time.
    fn mark(&self, new: &mut Value, old: &Value, kind: &Kind, grace: Graceful) {
        let seconds = match grace {
            Graceful::Now => 0,
            Graceful::After(seconds) => seconds,
        };
        let running = !tree::is_unset(tree::at(old, &["metadata", "deletionTimestamp"]));
        let left = tree::int(old, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or_default();
        if running && left <= seconds {
            return;
        }
        let at = (self.clock)() + SignedDuration::from_secs(seconds);
        let generation = tree::int(old, &["metadata", "generation"]);
        let meta = tree::object_mut(new, "metadata");
        meta.insert("deletionTimestamp".to_owned(), json!(timestamp(at)));
        meta.insert("deletionGracePeriodSeconds".to_owned(), json!(seconds));
        if let Some(generation) = generation
            && !running
        {
            meta.insert("generation".to_owned(), json!(generation + 1));
        }
        if kind.kind == "Namespace" {
            tree::object_mut(new, "status").insert("phase".to_owned(), json!("Terminating"));
        }
    }
}

pub(super) fn check(
    target: &Target,
    current: &Obj,
    wanted: &Preconditions,
) -> Result<(), StatusError> {
    // Upstream names the kind here, where others name the resource.
    let resource = GroupResource {
        group: target.kind.group,
        resource: target.kind.kind,
    };
    if let Some(uid) = &wanted.uid
        && **uid != *current.meta.uid
    {
        let why = format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object \
             might have been deleted and then recreated",
            current.meta.uid
        );
        return Err(StatusError::conflict(resource, &target.key.name, &why));
    }
    if let Some(rv) = &wanted.resource_version
        && *rv != current.rv.to_string()
    {
        let why = format!(
            "the ResourceVersion in the precondition ({rv}) does not match the ResourceVersion in \
             record ({}). The object might have been modified",
            current.rv
        );
        return Err(StatusError::conflict(resource, &target.key.name, &why));
    }
    Ok(())
}

/// What a deletion that does not say means: what the object's finalizers say already, else what
/// its kind does.
fn default_propagation(target: &Target, object: &Value) -> Option<Propagation> {
    let said = tree::list(object, &["metadata", "finalizers"])
        .iter()
        .any(|finalizer| finalizer == FOREGROUND || finalizer == ORPHAN);
    let orphans = !said && target.kind.strategy.orphans_by_default();
    orphans.then_some(Propagation::Orphan)
}

/// The propagation is told to the garbage collector by a finalizer.
fn set_propagation(object: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else {
        return;
    };
    let meta = tree::object_mut(object, "metadata");
    let mut finalizers: Vec<Value> = meta
        .get("finalizers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|finalizer| *finalizer != FOREGROUND && *finalizer != ORPHAN)
        .cloned()
        .collect();
    match propagation {
        Propagation::Orphan => finalizers.push(json!(ORPHAN)),
        Propagation::Foreground => finalizers.push(json!(FOREGROUND)),
        Propagation::Background => {}
    }
    if finalizers.is_empty() {
        meta.shift_remove("finalizers");
    } else {
        meta.insert("finalizers".to_owned(), Value::Array(finalizers));
    }
}
