//! The collector's I/O: looks owners up, deletes, unlinks, takes finalizers off.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use control_plane_client::{DeleteOptions, Patch, Propagation, WorkQueue};
use parking_lot::Mutex;
use proto_api::types::meta::v1::OwnerReference;
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use super::follow;
use super::graph::{Graph, Key};
use super::plan::{self, FOREGROUND, Item, ORPHAN, Owner, Verdict};
use crate::context::{Context, ReconcileError, failed};
use crate::runner::{Next, Reconciler};

/// Uids known to be gone: they never come back, so a dependent of the same owner asks no more.
const ABSENT_MAX: usize = 8192;
/// Look again at an owner that waits for its dependents; their end comes earlier as a rule.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct GarbageCollector {
    context: Context,
    graph: Graph,
    absent: Mutex<Absent>,
    _following: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Absent {
    known: HashSet<String>,
    order: VecDeque<String>,
}

impl Absent {
    fn insert(&mut self, uid: &str) {
        if self.known.insert(uid.to_owned()) {
            self.order.push_back(uid.to_owned());
        }
        while self.order.len() > ABSENT_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }
}

impl GarbageCollector {
    pub(crate) async fn start(context: Context) -> (Arc<Self>, WorkQueue<Key>) {
        let queue = WorkQueue::new();
        let graph = Graph::new(queue.clone());
        let following = follow::start(Arc::clone(context.api()), graph.clone()).await;
        let collector = Self {
            context,
            graph,
            absent: Mutex::default(),
            _following: following,
        };
        (Arc::new(collector), queue)
    }

    async fn owner(&self, item: &Item, owner: &OwnerReference) -> Result<Owner, ReconcileError> {
        if self.absent.lock().known.contains(&owner.uid) {
            return Ok(Owner::Absent);
        }
        // An owner of a kind that is not served cannot be judged, so it keeps its dependents.
        let Some((resource, key)) = self.graph.owner_key(owner, &item.key.namespace) else {
            return Ok(Owner::Solid);
        };
        if let Some(found) = self.graph.get(resource, &key)
            && found.uid == owner.uid
        {
            return Ok(if found.holds(FOREGROUND) {
                Owner::Waiting
            } else {
                Owner::Solid
            });
        }
        let live = match self.context.api().get(resource, &key).await {
            Ok(object) => follow::metadata(&object)
                .map(|metadata| Item::of(resource, &key, object.revision, &metadata)),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(failed("get", resource, &key)(error)),
        };
        if let Some(live) = live.filter(|live| live.uid == owner.uid) {
            return Ok(if live.holds(FOREGROUND) {
                Owner::Waiting
            } else {
                Owner::Solid
            });
        }
        self.absent.lock().insert(&owner.uid);
        Ok(Owner::Absent)
    }

    async fn delete(&self, item: &Item, how: Propagation) -> Result<(), ReconcileError> {
        let options = DeleteOptions {
            uid: Some(item.uid.clone()),
            resource_version: Some(item.revision.to_string()),
            propagation: Some(how),
            ..DeleteOptions::default()
        };
        match self
            .context
            .api()
            .delete(item.resource, &item.key, &options)
            .await
        {
            Ok(()) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(failed("delete", item.resource, &item.key)(error)),
        }
    }

    async fn patch(&self, item: &Item, metadata: Value) -> Result<(), ReconcileError> {
        let mut patch = json!({"metadata": metadata});
        patch["metadata"]["uid"] = json!(item.uid);
        patch["metadata"]["resourceVersion"] = json!(item.revision.to_string());
        let patch = Patch::Merge(patch);
        match self
            .context
            .api()
            .patch(item.resource, &item.key, None, patch)
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(failed("patch", item.resource, &item.key)(error)),
        }
    }

    async fn unlink(&self, item: &Item, gone: &[String]) -> Result<(), ReconcileError> {
        let owners: Vec<_> = item
            .owners
            .iter()
            .filter(|o| !gone.contains(&o.uid))
            .collect();
        let owners = if owners.is_empty() {
            Value::Null
        } else {
            json!(owners)
        };
        self.patch(item, json!({"ownerReferences": owners})).await
    }

    async fn take_off(&self, item: &Item, finalizer: &str) -> Result<(), ReconcileError> {
        let rest: Vec<_> = item
            .finalizers
            .iter()
            .filter(|held| *held != finalizer)
            .collect();
        let rest = if rest.is_empty() {
            Value::Null
        } else {
            json!(rest)
        };
        self.patch(item, json!({"finalizers": rest})).await
    }

    /// The dependents stay and forget this owner; then it may go.
    async fn orphan(&self, item: &Item) -> Result<Next, ReconcileError> {
        let owner = [item.uid.clone()];
        for dependent in self.graph.dependents(&item.uid) {
            self.unlink(&dependent, &owner).await?;
        }
        self.take_off(item, ORPHAN).await?;
        Ok(Next::Done)
    }

    /// The dependents that block go first. Their deletion is their own verdict.
    async fn foreground(&self, item: &Item) -> Result<Next, ReconcileError> {
        let blocking: Vec<Item> = self
            .graph
            .dependents(&item.uid)
            .into_iter()
            .filter(|dependent| dependent.blocks(&item.uid))
            .collect();
        if blocking.is_empty() {
            self.take_off(item, FOREGROUND).await?;
            return Ok(Next::Done);
        }
        for dependent in blocking.iter().filter(|dependent| !dependent.deleting) {
            self.collect(dependent).await?;
        }
        Ok(Next::After(PATIENCE))
    }

    async fn collect(&self, item: &Item) -> Result<(), ReconcileError> {
        let mut owners = Vec::with_capacity(item.owners.len());
        for owner in &item.owners {
            owners.push(self.owner(item, owner).await?);
        }
        let has_dependents = !self.graph.dependents(&item.uid).is_empty();
        match plan::judge(item, &owners, has_dependents) {
            Verdict::Keep => Ok(()),
            Verdict::Unlink(gone) => self.unlink(item, &gone).await,
            Verdict::Delete(how) => self.delete(item, how).await,
        }
    }
}

#[async_trait]
impl Reconciler for GarbageCollector {
    type Key = Key;
    const NAME: &'static str = "garbagecollector";
    const WORKERS: usize = 8;

    async fn reconcile(&self, (resource, key): &Key) -> Result<Next, ReconcileError> {
        let Some(item) = self.graph.get(*resource, key) else {
            return Ok(Next::Done);
        };
        if item.holds(ORPHAN) {
            return self.orphan(&item).await;
        }
        if item.holds(FOREGROUND) {
            return self.foreground(&item).await;
        }
        if !item.deleting {
            self.collect(&item).await?;
        }
        Ok(Next::Done)
    }

    fn all_keys(&self) -> Vec<Key> {
        self.graph.held()
    }
}
