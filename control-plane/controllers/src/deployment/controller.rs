//! The Deployment controller's I/O: what wakes it, what it reads, how it carries a step out.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use control_plane_client::events::reference;
use control_plane_client::resources::{DEPLOYMENTS, REPLICA_SETS};
use control_plane_client::{
    Cached, Change, DeleteOptions, EventType, Expectations, Informer, ObjectKey, Snapshot,
    Subscription, WorkQueue, selector,
};
use proto_api::types::Object as _;
use proto_api::types::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use proto_api::types::core::v1::Pod;
use serde_json::{Value, json};

use super::conditions::{self, Happened};
use super::plan::{self, Resize, Step};
use super::sets::{Set, Sets, replicas};
use super::{annotations, rolling};
use crate::context::{Context, ReconcileError, count_or_null, failed, outcome_unknown};
use crate::owner::{self, Claim};
use crate::runner::{Next, Reconciler};

/// Look again when own writes have not shown up; events come earlier as a rule.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) struct DeploymentController {
    context: Context,
    deployments: Arc<Informer<Deployment>>,
    sets: Arc<Informer<ReplicaSet>>,
    pods: Arc<Informer<Pod>>,
    expectations: Expectations<ObjectKey>,
    _subscriptions: [Subscription; 3],
}

impl DeploymentController {
    pub(crate) async fn start(context: Context) -> (Arc<Self>, WorkQueue<ObjectKey>) {
        let deployments = context.informers.of::<Deployment>();
        let sets = context.informers.of::<ReplicaSet>();
        let pods = context.informers.of::<Pod>();
        deployments.synced().await;
        sets.synced().await;
        pods.synced().await;
        let queue = WorkQueue::new();
        let wake = queue.clone();
        let on_deployment =
            deployments.subscribe(move |change| wake.add(change.object().key.clone()));
        let (wake, known) = (queue.clone(), Arc::clone(&deployments));
        let on_set = sets.subscribe(move |change| wake_for_set(change, &known, &wake));
        let (wake, known, owners) = (queue.clone(), Arc::clone(&deployments), Arc::clone(&sets));
        let on_pod = pods.subscribe(move |change| wake_for_pod(change, &known, &owners, &wake));
        let controller = Self {
            context,
            deployments,
            sets,
            pods,
            expectations: Expectations::default(),
            _subscriptions: [on_deployment, on_set, on_pod],
        };
        (Arc::new(controller), queue)
    }

    async fn trust(&self, key: &ObjectKey) -> Result<bool, ReconcileError> {
        let check = || {
            let sets = self.sets.snapshot();
            let gone = |uid: &str| {
                !sets
                    .in_namespace(&key.namespace)
                    .any(|rs| rs.value.uid() == uid && rs.metadata.deletion_timestamp.is_none())
            };
            self.expectations.check(key, sets.revision(), gone)
        };
        self.context
            .trust::<ReplicaSet>(&self.expectations, key, check)
            .await
    }

    /// The sets that are the Deployment's, after adoption and release.
    async fn claim(
        &self,
        d: &Cached<Deployment>,
        sets: &Snapshot<ReplicaSet>,
    ) -> Result<Vec<Set>, ReconcileError> {
        let mut claimed = Vec::new();
        for rs in sets.in_namespace(&d.key.namespace) {
            let selected = selector::matches(&d.spec.selector, &rs.metadata.labels);
            match owner::claim(&d.metadata, &rs.metadata, selected) {
                Claim::Keep => claimed.push(Arc::clone(rs)),
                Claim::Ignore => {}
                Claim::Release => {
                    let patch = owner::release(&rs.metadata, d.value.uid());
                    let written = self.context.patch_seen(rs, patch).await?;
                    self.expectations.expect_revision(&d.key, written.revision);
                }
                Claim::Adopt => {
                    self.check_live(d).await?;
                    let patch = owner::adopt(&rs.metadata, &owner::reference_to(&d.value));
                    let written = self.context.patch_seen(rs, patch).await?;
                    self.expectations.expect_revision(&d.key, written.revision);
                    // The copy is out of date now: the event of the write brings the next try.
                    let text = format!("{} has adopted {}", d.key, rs.key);
                    return Err(ReconcileError::NotYet(text));
                }
            }
        }
        Ok(claimed)
    }

    async fn check_live(&self, d: &Cached<Deployment>) -> Result<(), ReconcileError> {
        let live = self.context.api().get(DEPLOYMENTS, &d.key).await;
        let live: Deployment = live
            .map_err(failed("get", DEPLOYMENTS, &d.key))?
            .decode()
            .map_err(|source| ReconcileError::Encode {
                what: "Deployment",
                source,
            })?;
        if live.uid() != d.value.uid() || live.metadata.deletion_timestamp.is_some() {
            let text = format!("{} is gone or going: adopts nothing", d.key);
            return Err(ReconcileError::NotYet(text));
        }
        Ok(())
    }

    /// Whether a pod of an old set has not ended.
    fn old_pods_run(&self, sets: &Sets) -> bool {
        let pods = self.pods.snapshot();
        sets.old.iter().any(|rs| {
            pods.owned_by(rs.value.uid())
                .any(|pod| !crate::pods::is_terminal(pod))
        })
    }

    /// Gives back the Deployment's revision afterwards.
    async fn act(
        &self,
        d: &Cached<Deployment>,
        step: Step,
        happened: &mut Happened,
    ) -> Result<u64, ReconcileError> {
        let Step {
            create,
            resize,
            delete,
            revision,
        } = step;
        if let Some(rs) = create {
            self.create(d, &rs, happened).await?;
        }
        if happened.collided {
            return Ok(d.revision);
        }
        for change in resize {
            self.resize(d, change).await?;
        }
        for rs in delete {
            self.context
                .delete_seen(&rs, DeleteOptions::default())
                .await?;
            self.expectations.expect_deletion(&d.key, rs.value.uid());
        }
        if let Some(revision) = revision {
            let change =
                json!({"metadata": {"annotations": {annotations::REVISION: revision.to_string()}}});
            return Ok(self.context.patch_seen(d, change).await?.revision);
        }
        Ok(d.revision)
    }

    async fn create(
        &self,
        d: &Cached<Deployment>,
        rs: &ReplicaSet,
        happened: &mut Happened,
    ) -> Result<(), ReconcileError> {
        let body = serde_json::to_value(rs).map_err(|source| ReconcileError::Encode {
            what: "ReplicaSet",
            source,
        })?;
        let key = ObjectKey::new(Arc::clone(&d.key.namespace), rs.name());
        match self
            .context
            .api()
            .create(REPLICA_SETS, &key.namespace, body)
            .await
        {
            Ok(created) => {
                self.expectations.expect_revision(&d.key, created.revision);
                happened.created = Some(rs.name().to_owned());
                if replicas(rs) > 0 {
                    self.tell_scaled(d, "up", rs.name(), 0, replicas(rs));
                }
                Ok(())
            }
            Err(error) if error.is_already_exists() => self.examine(d, rs, &key, happened).await,
            Err(error) => {
                if outcome_unknown(&error) {
                    self.expectations.mark_uncertain(&d.key);
                } else {
                    happened.refused = Some(error.to_string());
                    self.context.events.record(
                        reference(&d.value),
                        EventType::Warning,
                        "ReplicaSetCreateError",
                        format!(
                            "Failed to create new replica set \"{}\": {error}",
                            rs.name()
                        ),
                    );
                }
                Err(failed("create", REPLICA_SETS, &key)(error))
            }
        }
    }

    /// The name is taken: by the very set we meant (the cache is behind), or by something else.
    async fn examine(
        &self,
        d: &Cached<Deployment>,
        rs: &ReplicaSet,
        key: &ObjectKey,
        happened: &mut Happened,
    ) -> Result<(), ReconcileError> {
        let object = self.context.api().get(REPLICA_SETS, key).await;
        let object = object.map_err(failed("get", REPLICA_SETS, key))?;
        let present: ReplicaSet = object.decode().map_err(|source| ReconcileError::Encode {
            what: "ReplicaSet",
            source,
        })?;
        let ours = owner::controller_uid(&present.metadata) == d.value.uid();
        if ours && present.spec.template == rs.spec.template {
            self.expectations.expect_revision(&d.key, object.revision);
        } else {
            happened.collided = true;
        }
        Ok(())
    }

    async fn resize(&self, d: &Cached<Deployment>, change: Resize) -> Result<(), ReconcileError> {
        let Resize {
            set,
            size,
            annotations,
            min_ready_s,
        } = change;
        let mut patch = json!({"metadata": {"annotations": annotations}});
        if let Some(size) = size {
            patch["spec"]["replicas"] = json!(size);
        }
        if let Some(min_ready_s) = min_ready_s {
            patch["spec"]["minReadySeconds"] = json!(min_ready_s);
        }
        let written = self.context.patch_seen(&set, patch).await?;
        self.expectations.expect_revision(&d.key, written.revision);
        if let Some(size) = size {
            let before = replicas(&set);
            let direction = if size > before { "up" } else { "down" };
            self.tell_scaled(d, direction, &set.key.name, before, size);
        }
        Ok(())
    }

    fn tell_scaled(
        &self,
        d: &Cached<Deployment>,
        direction: &str,
        name: &str,
        before: i32,
        after: i32,
    ) {
        let text = format!("Scaled {direction} replica set {name} from {before} to {after}");
        self.context.events.record(
            reference(&d.value),
            EventType::Normal,
            "ScalingReplicaSet",
            text,
        );
    }

    async fn write_status(
        &self,
        d: &Cached<Deployment>,
        revision: u64,
        next: DeploymentStatus,
    ) -> Result<(), ReconcileError> {
        if is_same(&d.status.clone().unwrap_or_default(), &next) {
            return Ok(());
        }
        let count = |count: Option<i32>| count_or_null(count.unwrap_or(0));
        let status = json!({
            "observedGeneration": next.observed_generation,
            "replicas": count(next.replicas),
            "updatedReplicas": count(next.updated_replicas),
            "readyReplicas": count(next.ready_replicas),
            "availableReplicas": count(next.available_replicas),
            "unavailableReplicas": count(next.unavailable_replicas),
            "terminatingReplicas": next.terminating_replicas,
            "collisionCount": next.collision_count.map_or(Value::Null, |count| json!(count)),
            "conditions": next.conditions,
        });
        self.context
            .patch_status::<Deployment>(&d.key, revision, status)
            .await?;
        Ok(())
    }

    async fn sync(&self, d: &Cached<Deployment>) -> Result<Next, ReconcileError> {
        if selector::is_empty(&d.spec.selector) {
            let text = "This deployment is selecting all pods. A non-empty selector is required.";
            let about = reference(&d.value);
            self.context
                .events
                .record(about, EventType::Warning, "SelectingAll", text.to_owned());
            return Ok(Next::Done);
        }
        let sets = Sets::of(d, self.claim(d, &self.sets.snapshot()).await?);
        let old_pods_run = rolling::is_recreate(d) && self.old_pods_run(&sets);
        let mut happened = Happened::default();
        let outcome = self
            .act(d, plan::step(d, &sets, old_pods_run), &mut happened)
            .await;
        let revision = *outcome.as_ref().unwrap_or(&d.revision);
        let now = self.context.clock.now();
        let (status, wake) = conditions::status(d, &sets, &happened, now);
        let written = self.write_status(d, revision, status).await;
        outcome?;
        written?;
        Ok(Next::after(wake))
    }
}

#[async_trait]
impl Reconciler for DeploymentController {
    type Key = ObjectKey;
    const NAME: &'static str = "deployment";
    const WORKERS: usize = 5;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let Some(d) = self.deployments.get(key) else {
            self.expectations.forget(key);
            return Ok(Next::Done);
        };
        if !self.trust(key).await? {
            return Ok(Next::After(PATIENCE));
        }
        self.sync(&d).await
    }

    fn all_keys(&self) -> Vec<ObjectKey> {
        self.deployments
            .snapshot()
            .iter()
            .map(|d| d.key.clone())
            .collect()
    }
}

fn is_same(a: &DeploymentStatus, b: &DeploymentStatus) -> bool {
    let counts = |s: &DeploymentStatus| {
        [
            s.replicas,
            s.updated_replicas,
            s.ready_replicas,
            s.available_replicas,
            s.unavailable_replicas,
            s.terminating_replicas,
            s.collision_count,
        ]
        .map(|count| count.unwrap_or(0))
    };
    counts(a) == counts(b)
        && a.observed_generation == b.observed_generation
        && a.conditions == b.conditions
}

fn wake_for_set(
    change: &Change<ReplicaSet>,
    deployments: &Informer<Deployment>,
    queue: &WorkQueue<ObjectKey>,
) {
    let namespace = &change.object().key.namespace;
    for rs in [change.old(), change.new_state()].into_iter().flatten() {
        match owner::controller_of(&rs.metadata) {
            Some(owner) if owner.kind == DEPLOYMENTS.kind => {
                queue.add(ObjectKey::new(Arc::clone(namespace), owner.name.as_str()));
            }
            Some(_) => {}
            None => {
                for d in deployments.snapshot().in_namespace(namespace) {
                    if selector::matches(&d.spec.selector, &rs.metadata.labels) {
                        queue.add(d.key.clone());
                    }
                }
            }
        }
    }
}

/// Recreate waits for old pods to be gone, which no ReplicaSet's spec shows.
fn wake_for_pod(
    change: &Change<Pod>,
    deployments: &Informer<Deployment>,
    sets: &Informer<ReplicaSet>,
    queue: &WorkQueue<ObjectKey>,
) {
    let ended = match change {
        Change::Deleted(_) => true,
        Change::Modified { old, new } => {
            !crate::pods::is_terminal(old) && crate::pods::is_terminal(new)
        }
        Change::Added(_) => false,
    };
    if !ended {
        return;
    }
    let pod = change.object();
    let Some(owner) = owner::controller_of(&pod.metadata) else {
        return;
    };
    let set = ObjectKey::new(Arc::clone(&pod.key.namespace), owner.name.as_str());
    let Some(set) = sets.get(&set) else { return };
    let Some(owner) = owner::controller_of(&set.metadata) else {
        return;
    };
    let key = ObjectKey::new(Arc::clone(&pod.key.namespace), owner.name.as_str());
    if deployments
        .get(&key)
        .is_some_and(|d| rolling::is_recreate(&d))
    {
        queue.add(key);
    }
}
