//! The ReplicaSet controller's I/O: what wakes it, what it reads, how it carries a plan out.

use std::cell::LazyCell;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use control_plane_client::events::reference;
use control_plane_client::resources::{PODS, REPLICA_SETS};
use control_plane_client::supervise::chain;
use control_plane_client::{
    ApiError, Cached, Change as StoreChange, DeleteOptions, EventType, Expectations, Informer,
    ObjectKey, Patch, Snapshot, Subscription, WorkQueue, selector,
};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use proto_api::types::Object as _;
use proto_api::types::apps::v1::{ReplicaSet, ReplicaSetStatus};
use proto_api::types::core::v1::Pod;
use serde_json::{Value, json};

use super::plan::{self, Change};
use crate::context::{Context, ReconcileError, count_or_null, failed, outcome_unknown};
use crate::owner::{self, Claim};
use crate::runner::{Next, Reconciler};

/// First batch of a slow start; each later one is twice as large.
const SLOW_START_FIRST: usize = 1;
/// Look again when own writes have not shown up; events come earlier as a rule.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) struct ReplicaSetController {
    context: Context,
    sets: Arc<Informer<ReplicaSet>>,
    pods: Arc<Informer<Pod>>,
    expectations: Expectations<ObjectKey>,
    _subscriptions: [Subscription; 2],
}

/// What the creation of pods came to.
struct Created {
    revision: u64,
    failure: Option<ApiError>,
}

impl ReplicaSetController {
    pub(crate) async fn start(context: Context) -> (Arc<Self>, WorkQueue<ObjectKey>) {
        let sets = context.informers.of::<ReplicaSet>();
        let pods = context.informers.of::<Pod>();
        sets.synced().await;
        pods.synced().await;
        let queue = WorkQueue::new();
        let by_set = queue.clone();
        let on_set = sets.subscribe(move |change| by_set.add(change.object().key.clone()));
        let (by_pod, known) = (queue.clone(), Arc::clone(&sets));
        let on_pod = pods.subscribe(move |change| wake_for_pod(change, &known, &by_pod));
        let controller = Self {
            context,
            sets,
            pods,
            expectations: Expectations::default(),
            _subscriptions: [on_set, on_pod],
        };
        (Arc::new(controller), queue)
    }

    /// Whether the cache can be trusted; lists live when own writes may have been lost.
    async fn trust(&self, key: &ObjectKey) -> Result<bool, ReconcileError> {
        let check = || {
            let pods = self.pods.snapshot();
            let staying = LazyCell::new(|| {
                let in_namespace = pods.in_namespace(&key.namespace);
                let staying = in_namespace.filter(|pod| !crate::pods::is_terminating(pod));
                staying.map(|pod| pod.value.uid()).collect::<HashSet<_>>()
            });
            self.expectations
                .check(key, pods.revision(), |uid| !staying.contains(uid))
        };
        self.context
            .trust::<Pod>(&self.expectations, key, check)
            .await
    }

    /// The pods that are the set's, after adoption and release.
    async fn claim(
        &self,
        rs: &Cached<ReplicaSet>,
        pods: &Snapshot<Pod>,
    ) -> Result<Vec<Arc<Cached<Pod>>>, ReconcileError> {
        let labels = selector::equalities(&rs.spec.selector.match_labels);
        let selected = pods.with_labels(&rs.key.namespace, &labels);
        let owned = pods
            .owned_by(rs.value.uid())
            .filter(|pod| pod.key.namespace == rs.key.namespace);
        let mut candidates: Vec<_> = selected.chain(owned).cloned().collect();
        candidates.sort_by(|a, b| a.key.cmp(&b.key));
        candidates.dedup_by(|a, b| a.key == b.key);

        let mut claimed = Vec::with_capacity(candidates.len());
        let mut checked_live = false;
        for pod in candidates {
            let selected = selector::matches(&rs.spec.selector, &pod.metadata.labels);
            match owner::claim(&rs.metadata, &pod.metadata, selected) {
                Claim::Keep => claimed.push(pod),
                Claim::Ignore => {}
                Claim::Release => {
                    self.patch_pod(rs, &pod, owner::release(&pod.metadata, rs.value.uid()))
                        .await?;
                }
                // An ended pod would not be a replica: nothing to gain from owning it.
                Claim::Adopt if crate::pods::is_terminal(&pod) => {}
                Claim::Adopt => {
                    if !checked_live {
                        self.check_live(rs).await?;
                        checked_live = true;
                    }
                    let reference = owner::reference_to(&rs.value);
                    self.patch_pod(rs, &pod, owner::adopt(&pod.metadata, &reference))
                        .await?;
                    claimed.push(pod);
                }
            }
        }
        Ok(claimed)
    }

    /// Adopting for a set that has been deleted would leave pods without an owner.
    async fn check_live(&self, rs: &Cached<ReplicaSet>) -> Result<(), ReconcileError> {
        let live = self.context.api().get(REPLICA_SETS, &rs.key).await;
        let live = live.map_err(failed("get", REPLICA_SETS, &rs.key))?;
        let live: ReplicaSet = live.decode().map_err(|source| ReconcileError::Encode {
            what: "ReplicaSet",
            source,
        })?;
        if live.uid() != rs.value.uid() || live.metadata.deletion_timestamp.is_some() {
            let text = format!("{} is gone or going: adopts nothing", rs.key);
            return Err(ReconcileError::NotYet(text));
        }
        Ok(())
    }

    async fn patch_pod(
        &self,
        rs: &Cached<ReplicaSet>,
        pod: &Cached<Pod>,
        mut patch: Value,
    ) -> Result<(), ReconcileError> {
        patch["metadata"]["resourceVersion"] = json!(pod.revision.to_string());
        match self
            .context
            .api()
            .patch(PODS, &pod.key, None, Patch::Merge(patch))
            .await
        {
            Ok(object) => {
                self.expectations.expect_revision(&rs.key, object.revision);
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(failed("patch owner of", PODS, &pod.key)(error)),
        }
    }

    async fn act(&self, rs: &Cached<ReplicaSet>, change: Change) -> Result<(), ReconcileError> {
        match change {
            Change::Nothing => Ok(()),
            Change::Create(count) => self.create(rs, count).await,
            Change::Delete(pods) => self.delete(rs, &pods).await,
        }
    }

    async fn create(&self, rs: &Cached<ReplicaSet>, count: usize) -> Result<(), ReconcileError> {
        let body = pod_body(rs)?;
        let created = self.create_slowly(rs, &body, count).await;
        if created.revision > 0 {
            self.expectations.expect_revision(&rs.key, created.revision);
        }
        match created.failure {
            None => Ok(()),
            // The set goes with its namespace; there is nobody to tell and nothing to try again.
            Some(error) if is_namespace_terminating(&error) => Ok(()),
            Some(error) => {
                if outcome_unknown(&error) {
                    self.expectations.mark_uncertain(&rs.key);
                }
                let message = format!("Error creating: {error}");
                self.event(rs, EventType::Warning, "FailedCreate", message);
                Err(failed("create pod of", REPLICA_SETS, &rs.key)(error))
            }
        }
    }

    /// Batches of 1, 2, 4, ...: a set whose pods are all refused asks few times.
    async fn create_slowly(&self, rs: &Cached<ReplicaSet>, body: &Value, count: usize) -> Created {
        let mut done = Created {
            revision: 0,
            failure: None,
        };
        let (mut left, mut batch) = (count, SLOW_START_FIRST);
        while left > 0 && done.failure.is_none() {
            let size = batch.min(left);
            let mut requests: FuturesUnordered<_> = (0..size)
                .map(|_| {
                    self.context
                        .api()
                        .create(PODS, &rs.key.namespace, body.clone())
                })
                .collect();
            while let Some(answer) = requests.next().await {
                match answer {
                    Ok(pod) => {
                        done.revision = done.revision.max(pod.revision);
                        let message = format!("Created pod: {}", pod.key.name);
                        self.event(rs, EventType::Normal, "SuccessfulCreate", message);
                    }
                    // An unknown outcome outweighs a refusal: it must be looked into.
                    Err(error) if done.failure.as_ref().is_none_or(|e| !outcome_unknown(e)) => {
                        done.failure = Some(error);
                    }
                    Err(_) => {}
                }
            }
            left -= size;
            batch *= 2;
        }
        done
    }

    async fn delete(
        &self,
        rs: &Cached<ReplicaSet>,
        pods: &[Arc<Cached<Pod>>],
    ) -> Result<(), ReconcileError> {
        let mut requests: FuturesUnordered<_> = pods
            .iter()
            .map(|pod| async move {
                (
                    pod,
                    self.context
                        .delete_seen(pod, DeleteOptions::default())
                        .await,
                )
            })
            .collect();
        let mut failure = None;
        while let Some((pod, answer)) = requests.next().await {
            match answer {
                Ok(()) => {
                    self.expectations.expect_deletion(&rs.key, pod.value.uid());
                    let message = format!("Deleted pod: {}", pod.key.name);
                    self.event(rs, EventType::Normal, "SuccessfulDelete", message);
                }
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    fn event(
        &self,
        rs: &Cached<ReplicaSet>,
        event_type: EventType,
        reason: &'static str,
        message: String,
    ) {
        self.context
            .events
            .record(reference(&rs.value), event_type, reason, message);
    }

    async fn write_status(
        &self,
        rs: &Cached<ReplicaSet>,
        next: ReplicaSetStatus,
    ) -> Result<(), ReconcileError> {
        if rs
            .status
            .as_ref()
            .is_some_and(|present| plan::same(present, &next))
        {
            return Ok(());
        }
        let conditions = if next.conditions.is_empty() {
            Value::Null
        } else {
            json!(next.conditions)
        };
        let status = json!({
            "replicas": next.replicas,
            "fullyLabeledReplicas": count_or_null(next.fully_labeled_replicas.unwrap_or(0)),
            "readyReplicas": count_or_null(next.ready_replicas.unwrap_or(0)),
            "availableReplicas": count_or_null(next.available_replicas.unwrap_or(0)),
            "terminatingReplicas": next.terminating_replicas,
            "observedGeneration": next.observed_generation,
            "conditions": conditions,
        });
        self.context
            .patch_status::<ReplicaSet>(&rs.key, rs.revision, status)
            .await?;
        Ok(())
    }
}

#[async_trait]
impl Reconciler for ReplicaSetController {
    type Key = ObjectKey;
    const NAME: &'static str = "replicaset";
    const WORKERS: usize = 5;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let Some(rs) = self.sets.get(key) else {
            self.expectations.forget(key);
            return Ok(Next::Done);
        };
        let trusted = self.trust(key).await?;
        let pods = self.pods.snapshot();
        let claimed = self.claim(&rs, &pods).await?;
        let now = self.context.clock.now();
        let mut outcome = Ok(());
        if trusted {
            let sets = self.sets.snapshot();
            let related = plan::related_by_node(&rs, &sets, &pods);
            outcome = self
                .act(&rs, plan::change(&rs, &claimed, &related, now))
                .await;
        }
        let failure = outcome.as_ref().err().map(|error| chain(error));
        let (status, wake) = plan::status(&rs, &claimed, failure.as_deref(), now);
        self.write_status(&rs, status).await?;
        outcome?;
        let patience = if trusted {
            Next::Done
        } else {
            Next::After(PATIENCE)
        };
        Ok(Next::after(wake).min(patience))
    }

    fn all_keys(&self) -> Vec<ObjectKey> {
        self.sets
            .snapshot()
            .iter()
            .map(|rs| rs.key.clone())
            .collect()
    }
}

/// Upstream's sentence; the status cause that says the same does not pass the client.
fn is_namespace_terminating(error: &ApiError) -> bool {
    error.code == 403 && error.message.ends_with("because it is being terminated")
}

/// A pod as the template says, owned by the set.
fn pod_body(rs: &Cached<ReplicaSet>) -> Result<Value, ReconcileError> {
    let template = rs.spec.template.clone().unwrap_or_default();
    let mut pod = Pod {
        spec: template.spec,
        ..Pod::default()
    };
    pod.metadata.labels = template.metadata.labels;
    pod.metadata.annotations = template.metadata.annotations;
    pod.metadata.finalizers = template.metadata.finalizers;
    pod.metadata.generate_name = Some(format!("{}-", rs.key.name));
    pod.metadata.owner_references = vec![owner::reference_to(&rs.value)];
    serde_json::to_value(&pod).map_err(|source| ReconcileError::Encode {
        what: "Pod",
        source,
    })
}

/// Wakes the set that controls the pod, before and after; for a pod without a controller, every set
/// that would adopt it.
fn wake_for_pod(
    change: &StoreChange<Pod>,
    sets: &Informer<ReplicaSet>,
    queue: &WorkQueue<ObjectKey>,
) {
    let namespace = &change.object().key.namespace;
    for pod in [change.old(), change.new_state()].into_iter().flatten() {
        match owner::controller_of(&pod.metadata) {
            Some(owner) if owner.kind == REPLICA_SETS.kind => {
                queue.add(ObjectKey::new(Arc::clone(namespace), owner.name.as_str()));
            }
            Some(_) => {}
            None => {
                for rs in sets.snapshot().in_namespace(namespace) {
                    if selector::matches(&rs.spec.selector, &pod.metadata.labels) {
                        queue.add(rs.key.clone());
                    }
                }
            }
        }
    }
}
