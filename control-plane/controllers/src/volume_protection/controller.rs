//! Holds the finalizers of claims and volumes.

use std::sync::Arc;

use async_trait::async_trait;
use control_plane_client::resources::PODS;
use control_plane_client::{
    Cached, Change, Informer, Kind, ObjectKey, Selection, Subscription, WorkQueue,
};
use proto_api::types::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use proto_api::types::meta::v1::ObjectMeta;
use serde_json::json;

use super::plan::{self, CLAIM_FINALIZER, Step, VOLUME_FINALIZER};
use crate::context::{Context, ReconcileError, failed};
use crate::runner::{Next, Reconciler};

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Storage {
    Claim(ObjectKey),
    Volume(ObjectKey),
}

pub(crate) struct VolumeProtectionController {
    context: Context,
    pods: Arc<Informer<Pod>>,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    volumes: Arc<Informer<PersistentVolume>>,
    _subscriptions: (Subscription, Subscription, Subscription),
}

impl VolumeProtectionController {
    pub(crate) async fn start(context: Context) -> (Arc<Self>, WorkQueue<Storage>) {
        let pods = context.informers.of::<Pod>();
        let claims = context.informers.of::<PersistentVolumeClaim>();
        let volumes = context.informers.of::<PersistentVolume>();
        pods.synced().await;
        claims.synced().await;
        volumes.synced().await;
        let queue = WorkQueue::new();
        let wake = queue.clone();
        let on_claim = claims.subscribe(move |change| {
            if let Some(claim) = change.new_state() {
                wake_for(&claim.metadata, CLAIM_FINALIZER, || {
                    wake.add(Storage::Claim(claim.key.clone()));
                });
            }
        });
        let wake = queue.clone();
        let on_volume = volumes.subscribe(move |change| {
            if let Some(volume) = change.new_state() {
                wake_for(&volume.metadata, VOLUME_FINALIZER, || {
                    wake.add(Storage::Volume(volume.key.clone()));
                });
            }
        });
        let (wake, known) = (queue.clone(), Arc::clone(&claims));
        let on_pod = pods.subscribe(move |change| wake_for_pod(change, &known, &wake));
        let controller = Self {
            context,
            pods,
            claims,
            volumes,
            _subscriptions: (on_claim, on_volume, on_pod),
        };
        for key in controller.all_keys() {
            queue.add(key);
        }
        (Arc::new(controller), queue)
    }

    /// Whether a pod uses the claim; asked live before the answer is no.
    async fn is_used(&self, claim: &Cached<PersistentVolumeClaim>) -> Result<bool, ReconcileError> {
        let pods = self.pods.snapshot();
        let namespace = &claim.key.namespace;
        if pods
            .in_namespace(namespace)
            .any(|pod| plan::uses(pod, claim))
        {
            return Ok(true);
        }
        let what = Selection {
            namespace: Some(namespace.to_string()),
            ..Selection::default()
        };
        let live = self.context.api().list(PODS, &what).await;
        let live = live.map_err(failed("list", PODS, &claim.key))?;
        let is_user = |pod: &control_plane_client::Object| {
            // One that cannot be read may use it.
            pod.decode::<Pod>()
                .map_or(true, |pod| plan::uses(&pod, claim))
        };
        Ok(live.items.iter().any(is_user))
    }

    async fn write<K: Kind>(
        &self,
        seen: &Cached<K>,
        metadata: &ObjectMeta,
        finalizer: &str,
        step: Step,
    ) -> Result<(), ReconcileError> {
        let finalizers = plan::finalizers(metadata, finalizer, step);
        let change = json!({"metadata": {"finalizers": finalizers}});
        match self.context.patch_seen(seen, change).await {
            Err(ReconcileError::Api { source, .. }) if source.is_not_found() => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

fn wake_for(metadata: &ObjectMeta, finalizer: &str, wake: impl FnOnce()) {
    if plan::step(metadata, finalizer) != Step::Nothing {
        wake();
    }
}

fn wake_for_pod(
    change: &Change<Pod>,
    claims: &Informer<PersistentVolumeClaim>,
    queue: &WorkQueue<Storage>,
) {
    let pod = change.object();
    if change.new_state().is_some() && !plan::may_release(pod) {
        return;
    }
    for name in plan::claims(pod) {
        let key = ObjectKey::new(Arc::clone(&pod.key.namespace), name);
        let goes = |claim: &Arc<Cached<PersistentVolumeClaim>>| {
            plan::step(&claim.metadata, CLAIM_FINALIZER) == Step::Release
        };
        if claims.get(&key).as_ref().is_some_and(goes) {
            queue.add(Storage::Claim(key));
        }
    }
}

#[async_trait]
impl Reconciler for VolumeProtectionController {
    type Key = Storage;
    const NAME: &'static str = "volume-protection";
    const WORKERS: usize = 2;

    async fn reconcile(&self, key: &Storage) -> Result<Next, ReconcileError> {
        match key {
            Storage::Claim(key) => {
                let Some(claim) = self.claims.get(key) else {
                    return Ok(Next::Done);
                };
                let step = plan::step(&claim.metadata, CLAIM_FINALIZER);
                let waits = step == Step::Release && self.is_used(&claim).await?;
                if step != Step::Nothing && !waits {
                    self.write(&claim, &claim.metadata, CLAIM_FINALIZER, step)
                        .await?;
                }
            }
            Storage::Volume(key) => {
                let Some(volume) = self.volumes.get(key) else {
                    return Ok(Next::Done);
                };
                let step = plan::step(&volume.metadata, VOLUME_FINALIZER);
                let waits = step == Step::Release && plan::is_bound(&volume);
                if step != Step::Nothing && !waits {
                    self.write(&volume, &volume.metadata, VOLUME_FINALIZER, step)
                        .await?;
                }
            }
        }
        Ok(Next::Done)
    }

    fn all_keys(&self) -> Vec<Storage> {
        let claims = self.claims.snapshot();
        let claims = claims.iter().map(|claim| Storage::Claim(claim.key.clone()));
        let volumes = self.volumes.snapshot();
        let volumes = volumes
            .iter()
            .map(|volume| Storage::Volume(volume.key.clone()));
        claims.chain(volumes).collect()
    }
}
