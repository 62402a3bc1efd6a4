//! The Namespace controller's I/O: deletes content by live lists, then lets the namespace go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use control_plane_client::resources::{self, NAMESPACES, PODS};
use control_plane_client::{
    ApiError, Cached, Change, DeleteOptions, Informer, ObjectKey, Propagation, Resource, Scope,
    Selection, Subscription, WorkQueue,
};
use futures::StreamExt;
use futures::stream;
use proto_api::types::core::v1::{Namespace, Pod};
use serde::Deserialize;
use serde_json::json;

use super::plan::{self, Left};
use crate::context::{Context, ReconcileError, failed};
use crate::runner::{Next, Reconciler};

/// Deletions under way at once.
const AT_ONCE: usize = 32;
/// Look again while something is left; the end of a pod comes earlier as a rule.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) struct NamespaceController {
    context: Context,
    namespaces: Arc<Informer<Namespace>>,
    _subscriptions: [Subscription; 2],
}

/// What the rounds need of any object.
#[derive(Deserialize)]
struct Partial {
    metadata: PartialMeta,
}

#[derive(Deserialize)]
struct PartialMeta {
    #[serde(default, rename = "deletionTimestamp")]
    deletion_timestamp: Option<String>,
    #[serde(default)]
    finalizers: Vec<String>,
}

impl NamespaceController {
    pub(crate) async fn start(context: Context) -> (Arc<Self>, WorkQueue<ObjectKey>) {
        let namespaces = context.informers.of::<Namespace>();
        let pods = context.informers.of::<Pod>();
        namespaces.synced().await;
        let queue = WorkQueue::new();
        let wake = queue.clone();
        let on_namespace = namespaces.subscribe(move |change| {
            if change
                .new_state()
                .is_some_and(|namespace| plan::is_terminating(namespace))
            {
                wake.add(change.object().key.clone());
            }
        });
        let (wake, known) = (queue.clone(), Arc::clone(&namespaces));
        let on_pod = pods.subscribe(move |change| {
            if let Change::Deleted(pod) = change {
                let key = ObjectKey::new("", Arc::clone(&pod.key.namespace));
                if known
                    .get(&key)
                    .is_some_and(|namespace| plan::is_terminating(&namespace))
                {
                    wake.add(key);
                }
            }
        });
        let controller = Self {
            context,
            namespaces,
            _subscriptions: [on_namespace, on_pod],
        };
        (Arc::new(controller), queue)
    }

    /// Every namespaced resource, pods first: what holds addresses and mounts goes before what it uses.
    fn content() -> impl Iterator<Item = Resource> {
        let others = resources::ALL
            .iter()
            .copied()
            .filter(|resource| resource.scope == Scope::Namespaced && *resource != PODS);
        std::iter::once(PODS).chain(others)
    }

    /// Tells all objects of a resource to go and says what was there.
    async fn clear(&self, namespace: &str, resource: Resource) -> Result<Left, ApiError> {
        let api = self.context.api();
        let what = Selection {
            namespace: Some(namespace.to_owned()),
            ..Selection::default()
        };
        let list = match api.list(resource, &what).await {
            Ok(list) => list,
            // A server without the resource has none of its objects.
            Err(error) if error.is_not_found() => return Ok(nothing(resource)),
            Err(error) => return Err(error),
        };
        let mut finalizers: BTreeMap<String, usize> = BTreeMap::new();
        let mut doomed = Vec::new();
        for object in &list.items {
            let partial = object.decode::<Partial>();
            let metadata = partial.ok().map(|partial| partial.metadata);
            for finalizer in metadata.iter().flat_map(|metadata| &metadata.finalizers) {
                *finalizers.entry(finalizer.clone()).or_insert(0) += 1;
            }
            if metadata.is_none_or(|metadata| metadata.deletion_timestamp.is_none()) {
                doomed.push(object.key.clone());
            }
        }
        let options = DeleteOptions {
            propagation: Some(Propagation::Background),
            ..DeleteOptions::default()
        };
        let mut deletions = stream::iter(doomed)
            .map(|key| {
                let options = &options;
                async move { api.delete(resource, &key, options).await }
            })
            .buffer_unordered(AT_ONCE);
        let mut failure = None;
        while let Some(answer) = deletions.next().await {
            match answer {
                Ok(()) => {}
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                Err(error) => failure = Some(error),
            }
        }
        drop(deletions);
        if let Some(error) = failure {
            return Err(error);
        }
        let left = if list.items.is_empty() {
            0
        } else {
            api.list(resource, &what).await?.items.len()
        };
        let finalizers = if left == 0 {
            Vec::new()
        } else {
            finalizers.into_iter().collect()
        };
        Ok(Left {
            count: left,
            finalizers,
            ..nothing(resource)
        })
    }

    async fn write_status(
        &self,
        namespace: &Cached<Namespace>,
        left: &[Left],
        failure: Option<&str>,
    ) -> Result<u64, ReconcileError> {
        let now = self.context.clock.now();
        let conditions = plan::conditions(namespace, left, failure, now);
        let present = namespace.status.as_ref();
        if present.is_some_and(|present| present.conditions == conditions) {
            return Ok(namespace.revision);
        }
        let status = json!({"phase": "Terminating", "conditions": conditions});
        let written = self
            .context
            .patch_status::<Namespace>(&namespace.key, namespace.revision, status)
            .await?;
        Ok(written.revision)
    }

    async fn finalize(
        &self,
        namespace: &Cached<Namespace>,
        revision: u64,
    ) -> Result<(), ReconcileError> {
        let mut body = namespace.value.clone();
        body.metadata.resource_version = Some(revision.to_string());
        if let Some(spec) = &mut body.spec {
            spec.finalizers
                .retain(|finalizer| finalizer != plan::FINALIZER);
        }
        let body = serde_json::to_value(&body).map_err(|source| ReconcileError::Encode {
            what: "Namespace",
            source,
        })?;
        let done = self
            .context
            .api()
            .update(NAMESPACES, &namespace.key, Some("finalize"), body)
            .await;
        match done {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(failed("finalize", NAMESPACES, &namespace.key)(error)),
        }
    }
}

#[async_trait]
impl Reconciler for NamespaceController {
    type Key = ObjectKey;
    const NAME: &'static str = "namespace";
    const WORKERS: usize = 4;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let Some(namespace) = self.namespaces.get(key) else {
            return Ok(Next::Done);
        };
        if !plan::is_terminating(&namespace) {
            return Ok(Next::Done);
        }
        let mut left = Vec::new();
        let mut failure = None;
        for resource in Self::content() {
            match self.clear(&key.name, resource).await {
                Ok(rest) => left.push(rest),
                Err(error) => failure = Some((resource, error)),
            }
        }
        left.retain(|left| left.count > 0);
        let text = failure.as_ref().map(|(_, error)| error.to_string());
        let revision = self
            .write_status(&namespace, &left, text.as_deref())
            .await?;
        if let Some((resource, error)) = failure {
            return Err(failed("delete", resource, key)(error));
        }
        if !left.is_empty() {
            return Ok(Next::After(PATIENCE));
        }
        self.finalize(&namespace, revision).await?;
        Ok(Next::Done)
    }

    fn all_keys(&self) -> Vec<ObjectKey> {
        let namespaces = self.namespaces.snapshot();
        let going = namespaces
            .iter()
            .filter(|namespace| plan::is_terminating(namespace));
        going.map(|namespace| namespace.key.clone()).collect()
    }
}

fn nothing(resource: Resource) -> Left {
    let resource = format!("{}.{}", resource.plural, resource.group);
    Left {
        resource,
        count: 0,
        finalizers: Vec::new(),
    }
}
