//! What every controller gets: informers, clock, events; and the few writes they all make.

use std::sync::Arc;

use control_plane_client::{
    ApiError, ApiHandle, Cached, Clock, DeleteOptions, EventRecorder, Expectations, Informers,
    Kind, Object, ObjectKey, Patch, Resource, Selection, Trust,
};
use serde_json::{Value, json};

use crate::config::Config;

/// Shared by all controllers of a process.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) informers: Informers,
    pub(crate) clock: Clock,
    pub(crate) events: EventRecorder,
    pub(crate) config: Arc<Config>,
}

/// Why a reconciliation did not reach its end; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    /// The API refused.
    #[error("{action} {resource} {key}")]
    Api {
        /// `create`, `patch`, ...
        action: &'static str,
        /// Plural name.
        resource: &'static str,
        /// Which object.
        key: String,
        /// What it said.
        #[source]
        source: ApiError,
    },
    /// An object of ours did not become JSON.
    #[error("encode {what}")]
    Encode {
        /// Which object.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Something outside this controller must change first.
    #[error("{0}")]
    NotYet(String),
}

impl ReconcileError {
    /// Whether somebody else changed the object: nothing to tell anybody, the next try reads again.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Api { source, .. } if source.is_conflict())
    }
}

pub(crate) fn failed(
    action: &'static str,
    resource: Resource,
    key: &ObjectKey,
) -> impl FnOnce(ApiError) -> ReconcileError {
    let key = key.to_string();
    move |source| ReconcileError::Api {
        action,
        resource: resource.plural,
        key,
        source,
    }
}

/// Whether a refused write may have been done nevertheless.
pub(crate) fn outcome_unknown(error: &ApiError) -> bool {
    error.code >= 500 || error.code < 400
}

impl Context {
    pub(crate) fn api(&self) -> &ApiHandle {
        self.informers.api()
    }

    /// Writes `status` unless somebody changed the object since `revision`.
    pub(crate) async fn patch_status<K: Kind>(
        &self,
        key: &ObjectKey,
        revision: u64,
        status: Value,
    ) -> Result<Object, ReconcileError> {
        let patch = Patch::Merge(json!({
            "metadata": {"resourceVersion": revision.to_string()},
            "status": status,
        }));
        self.api()
            .patch(K::RESOURCE, key, Some("status"), patch)
            .await
            .map_err(failed("patch status of", K::RESOURCE, key))
    }

    /// Merges `change` unless somebody changed the object since `seen`.
    pub(crate) async fn patch_seen<K: Kind>(
        &self,
        seen: &Cached<K>,
        mut change: Value,
    ) -> Result<Object, ReconcileError> {
        change["metadata"]["resourceVersion"] = json!(seen.revision.to_string());
        self.api()
            .patch(K::RESOURCE, &seen.key, None, Patch::Merge(change))
            .await
            .map_err(failed("patch", K::RESOURCE, &seen.key))
    }

    /// Whether informers show what a controller wrote about `key`, as `check` finds; when writes may have
    /// been lost, the objects `K` of its namespace are listed live first.
    pub(crate) async fn trust<K: Kind>(
        &self,
        expectations: &Expectations<ObjectKey>,
        key: &ObjectKey,
        check: impl Fn() -> Trust,
    ) -> Result<bool, ReconcileError> {
        match check() {
            Trust::Trusted => Ok(true),
            Trust::Waiting => Ok(false),
            Trust::Uncertain => {
                let what = Selection {
                    namespace: Some(key.namespace.to_string()),
                    ..Selection::default()
                };
                let list = self.api().list(K::RESOURCE, &what).await;
                let list = list.map_err(failed("list", K::RESOURCE, key))?;
                expectations.expect_revision(key, list.revision);
                Ok(check() == Trust::Trusted)
            }
        }
    }

    /// Deletes exactly this object; gone already is well.
    pub(crate) async fn delete_seen<K: Kind>(
        &self,
        seen: &Cached<K>,
        options: DeleteOptions,
    ) -> Result<(), ReconcileError> {
        let options = DeleteOptions {
            uid: Some(seen.value.uid().to_owned()),
            ..options
        };
        match self.api().delete(K::RESOURCE, &seen.key, &options).await {
            Ok(()) => Ok(()),
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(source) => Err(failed("delete", K::RESOURCE, &seen.key)(source)),
        }
    }
}

/// A count as statuses hold it: left out when zero, so `null` in a merge patch.
pub(crate) fn count_or_null(count: i32) -> Value {
    if count == 0 {
        Value::Null
    } else {
        json!(count)
    }
}
