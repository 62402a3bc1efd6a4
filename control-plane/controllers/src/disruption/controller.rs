//! The disruption controller's I/O: pods, their owners' scale, the budget's status.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use control_plane_client::api::Scope;
use control_plane_client::events::reference;
use control_plane_client::resources::POD_DISRUPTION_BUDGETS;
use control_plane_client::{
    Cached, Change, EventType, Informer, ObjectKey, Resource, Subscription, WorkQueue, selector,
};
use proto_api::types::Object as _;
use proto_api::types::apps::v1::{Deployment, ReplicaSet};
use proto_api::types::core::v1::Pod;
use proto_api::types::meta::v1::OwnerReference;
use proto_api::types::policy::v1::PodDisruptionBudget;

use super::plan::{self, Scale};
use crate::context::{Context, ReconcileError, failed};
use crate::owner;
use crate::runner::{Next, Reconciler};

/// Owners that are looked up one by one, since they are few.
const SCALED: [Resource; 2] = [
    Resource {
        group: "apps",
        version: "v1",
        plural: "statefulsets",
        kind: "StatefulSet",
        scope: Scope::Namespaced,
    },
    Resource {
        group: "",
        version: "v1",
        plural: "replicationcontrollers",
        kind: "ReplicationController",
        scope: Scope::Namespaced,
    },
];

pub(crate) struct DisruptionController {
    context: Context,
    budgets: Arc<Informer<PodDisruptionBudget>>,
    pods: Arc<Informer<Pod>>,
    sets: Arc<Informer<ReplicaSet>>,
    deployments: Arc<Informer<Deployment>>,
    _subscriptions: [Subscription; 2],
}

impl DisruptionController {
    pub(crate) async fn start(context: Context) -> (Arc<Self>, WorkQueue<ObjectKey>) {
        let budgets = context.informers.of::<PodDisruptionBudget>();
        let pods = context.informers.of::<Pod>();
        let sets = context.informers.of::<ReplicaSet>();
        let deployments = context.informers.of::<Deployment>();
        budgets.synced().await;
        pods.synced().await;
        sets.synced().await;
        deployments.synced().await;
        let queue = WorkQueue::new();
        let wake = queue.clone();
        let on_budget = budgets.subscribe(move |change| wake.add(change.object().key.clone()));
        let (wake, known) = (queue.clone(), Arc::clone(&budgets));
        let on_pod = pods.subscribe(move |change| wake_for_pod(change, &known, &wake));
        let controller = Self {
            context,
            budgets,
            pods,
            sets,
            deployments,
            _subscriptions: [on_budget, on_pod],
        };
        (Arc::new(controller), queue)
    }

    /// How many replicas the owners of the pods want together. Pods without one count for nothing.
    async fn scale(&self, budget: &Cached<PodDisruptionBudget>, pods: &[&Pod]) -> Scale {
        let mut scales: BTreeMap<String, i32> = BTreeMap::new();
        let mut asked: Vec<&str> = Vec::new();
        let mut unmanaged = false;
        for pod in pods {
            let Some(owner) = owner::controller_of(&pod.metadata) else {
                unmanaged = true;
                continue;
            };
            if asked.contains(&owner.uid.as_str()) {
                continue;
            }
            asked.push(&owner.uid);
            match self.scale_of(&budget.key.namespace, owner).await {
                Ok(Some((uid, scale))) => {
                    scales.insert(uid, scale);
                }
                Ok(None) => {
                    let text = format!("found no controllers for pod \"{}\"", pod.name());
                    return Scale::Unknown(text);
                }
                Err(text) => return Scale::Unknown(text),
            }
        }
        if unmanaged {
            self.event(
                budget,
                EventType::Warning,
                "UnmanagedPods",
                UNMANAGED.to_owned(),
            );
        }
        Scale::Known(
            scales
                .values()
                .fold(0, |sum, scale| sum.saturating_add(*scale)),
        )
    }

    /// Uid and scale of an owner; of a replica set's deployment when it has one.
    async fn scale_of(
        &self,
        namespace: &str,
        owner: &OwnerReference,
    ) -> Result<Option<(String, i32)>, String> {
        let key = ObjectKey::new(namespace, owner.name.as_str());
        let group = owner
            .api_version
            .rsplit_once('/')
            .map_or("", |(group, _)| group);
        if (group, owner.kind.as_str()) == ("apps", "ReplicaSet") {
            let set = self.sets.get(&key);
            let set = set.filter(|set| set.value.uid() == owner.uid);
            return Ok(set.and_then(|set| self.scale_of_set(namespace, &set)));
        }
        let known = SCALED
            .iter()
            .find(|resource| (resource.group, resource.kind) == (group, owner.kind.as_str()));
        let Some(resource) = known else {
            let kind = owner.kind.to_lowercase();
            return Err(format!(
                "{kind}s.{group} does not implement the scale subresource"
            ));
        };
        match self.context.api().get(*resource, &key).await {
            Ok(object) => {
                let value: serde_json::Value =
                    object.decode().map_err(|error| error.to_string())?;
                let replicas = value["spec"]["replicas"].as_i64().unwrap_or(1);
                let same = value["metadata"]["uid"] == owner.uid;
                let replicas = i32::try_from(replicas).unwrap_or(i32::MAX);
                Ok(same.then(|| (owner.uid.clone(), replicas)))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    fn scale_of_set(&self, namespace: &str, set: &Cached<ReplicaSet>) -> Option<(String, i32)> {
        let owner = owner::controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment");
        let Some(owner) = owner else {
            let replicas = set.spec.replicas;
            return Some((set.value.uid().to_owned(), replicas.unwrap_or(1)));
        };
        let key = ObjectKey::new(namespace, owner.name.as_str());
        let deployment = self.deployments.get(&key);
        let deployment = deployment.filter(|found| found.value.uid() == owner.uid)?;
        let replicas = deployment.spec.replicas;
        Some((owner.uid.clone(), replicas.unwrap_or(1)))
    }

    async fn write(
        &self,
        budget: &Cached<PodDisruptionBudget>,
        plan: &plan::Plan,
    ) -> Result<(), ReconcileError> {
        let mut next = budget.value.clone();
        next.status = Some(plan.status.clone());
        next.metadata.resource_version = Some(budget.revision.to_string());
        let body = serde_json::to_value(&next).map_err(|source| ReconcileError::Encode {
            what: "PodDisruptionBudget",
            source,
        })?;
        let (resource, key) = (POD_DISRUPTION_BUDGETS, &budget.key);
        let written = self
            .context
            .api()
            .update(resource, key, Some("status"), body)
            .await;
        match written {
            Err(error) if error.is_not_found() => Ok(()),
            other => other
                .map(|_object| ())
                .map_err(failed("update status of", resource, key)),
        }
    }

    fn event(
        &self,
        budget: &Cached<PodDisruptionBudget>,
        event_type: EventType,
        reason: &'static str,
        message: String,
    ) {
        let events = &self.context.events;
        events.record(reference(&budget.value), event_type, reason, message);
    }
}

const UNMANAGED: &str = "Pods selected by this PodDisruptionBudget were found to be unmanaged. As a \
    result, the status of the PDB cannot be calculated correctly, which may result in undefined \
    behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB to an \
    integer value.";

/// Budgets that select the pod, as it is or as it was.
fn wake_for_pod(
    change: &Change<Pod>,
    budgets: &Informer<PodDisruptionBudget>,
    queue: &WorkQueue<ObjectKey>,
) {
    let states = [change.old(), Some(change.object())];
    let budgets = budgets.snapshot();
    for budget in budgets.in_namespace(&change.object().key.namespace) {
        let touched = states
            .iter()
            .flatten()
            .any(|pod| selects(budget, &pod.value));
        if touched {
            queue.add(budget.key.clone());
        }
    }
}

/// No selector means no pod, an empty one all.
fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| selector::matches(selector, &pod.metadata.labels))
}

#[async_trait]
impl Reconciler for DisruptionController {
    type Key = ObjectKey;
    const NAME: &'static str = "disruption";
    const WORKERS: usize = 2;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let Some(budget) = self.budgets.get(key) else {
            return Ok(Next::Done);
        };
        let snapshot = self.pods.snapshot();
        let selected: Vec<&Pod> = snapshot
            .in_namespace(&key.namespace)
            .map(|pod| &pod.value)
            .filter(|pod| selects(&budget, pod))
            .collect();
        let scale = if plan::needs_scale(&budget) {
            self.scale(&budget, &selected).await
        } else {
            Scale::Known(0)
        };
        let plan = plan::plan(&budget, &selected, scale, self.context.clock.now());
        for pod in &plan.kept {
            let place = format!("{}/{}", key.namespace, key.name);
            let message =
                format!("Pod {pod} was expected by PDB {place} to be deleted but it wasn't");
            self.event(&budget, EventType::Warning, "NotDeleted", message);
        }
        if budget.status.as_ref() != Some(&plan.status) {
            self.write(&budget, &plan).await?;
        }
        Ok(Next::after(plan.look_again))
    }

    fn all_keys(&self) -> Vec<ObjectKey> {
        let budgets = self.budgets.snapshot();
        budgets.iter().map(|budget| budget.key.clone()).collect()
    }
}
