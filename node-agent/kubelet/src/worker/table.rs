//! The table of pod workers: follows the desired state, adopts what it finds, ends what is gone.
//!
//! One task owns the table. A pod without a worker gets one when it appears in the snapshot, or when
//! something of it is found at the runtime after the snapshot is complete. A pod of the same name as
//! one that still ends waits.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use node_agent_state::Snapshot;
use parking_lot::RwLock;
use proto_api::types::Object as _;
use proto_api::types::core::v1::{Pod, PodSpec, PodStatus};
use proto_api::types::meta::v1::ObjectMeta;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Context;
use super::admission::{Refusal, admit};
use super::pod_worker::{Mailbox, PodWorker};
use crate::event::Kind;
use crate::pod::model::{self, Inputs, Target, Wanted};
use crate::pod::{Verdict, terminal};
use crate::runtime::{RuntimeHint, labels};
use crate::volume::inputs_of;

/// Grace of a pod whose object is gone and whose sandbox does not say.
const ORPHAN_GRACE: Duration = Duration::from_secs(30);
const ORPHAN_SCAN_RETRY: Duration = Duration::from_secs(2);

/// A pod as log and exec handlers see it.
#[derive(Debug, Clone)]
pub(crate) struct PodSummary {
    pub(crate) pod: Arc<Pod>,
    pub(crate) status: Arc<PodStatus>,
}

struct Entry {
    target: watch::Sender<Target>,
    hint: Arc<Notify>,
    status: watch::Receiver<Arc<PodStatus>>,
    /// Refused pods do not count against the node's capacity.
    refused: bool,
}

/// Read access for others; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct PodDirectory {
    pods: Arc<RwLock<HashMap<String, PodView>>>,
}

#[derive(Clone)]
struct PodView {
    target: watch::Sender<Target>,
    status: watch::Receiver<Arc<PodStatus>>,
}

impl PodDirectory {
    /// The pod of that name; with an empty uid the newest one.
    pub(crate) fn find(&self, namespace: &str, name: &str, uid: &str) -> Option<PodSummary> {
        let pods = self.pods.read();
        pods.iter()
            .filter(|(key, _)| uid.is_empty() || key.as_str() == uid)
            .map(|(_, view)| PodSummary {
                pod: Arc::clone(&view.target.borrow().pod),
                status: Arc::clone(&view.status.borrow()),
            })
            .filter(|summary| summary.pod.namespace() == namespace && summary.pod.name() == name)
            .max_by_key(|summary| summary.pod.metadata.creation_timestamp.clone())
    }

    /// All pods.
    pub(crate) fn all(&self) -> Vec<PodSummary> {
        let pods = self.pods.read();
        pods.values()
            .map(|view| PodSummary {
                pod: Arc::clone(&view.target.borrow().pod),
                status: Arc::clone(&view.status.borrow()),
            })
            .collect()
    }
}

pub(crate) struct WorkerTable {
    context: Arc<Context>,
    entries: BTreeMap<String, Entry>,
    directory: PodDirectory,
    workers: JoinSet<String>,
    stop: CancellationToken,
}

impl WorkerTable {
    pub(crate) fn new(context: Arc<Context>, stop: CancellationToken) -> Self {
        Self {
            context,
            entries: BTreeMap::new(),
            directory: PodDirectory::default(),
            workers: JoinSet::new(),
            stop,
        }
    }

    pub(crate) fn directory(&self) -> PodDirectory {
        self.directory.clone()
    }

    /// Follows snapshots and hints until stopped; then ends the workers and leaves pods running.
    pub(crate) async fn run(mut self, mut hints: mpsc::Receiver<RuntimeHint>) {
        let mut snapshots = self.context.hub.subscribe();
        let mut relist = tokio::time::interval(self.context.config.relist_period);
        relist.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut scan_retry: Option<tokio::time::Instant> = None;
        loop {
            let snapshot = Arc::clone(&snapshots.borrow_and_update());
            self.sync(&snapshot);
            tokio::select! {
                // Every branch is cancel-safe.
                () = self.stop.cancelled() => break,
                changed = snapshots.changed() => if changed.is_err() { break },
                Some(done) = self.workers.join_next() => self.ended(done),
                Some(hint) = hints.recv() => match hint {
                    RuntimeHint::Pod(uid) => self.hint(&uid),
                    RuntimeHint::All => scan_retry = self.relist(&snapshot).await,
                },
                _ = relist.tick() => scan_retry = self.relist(&snapshot).await,
                () = retry_at(scan_retry) => scan_retry = self.relist(&snapshot).await,
            }
        }
        while let Some(done) = self.workers.join_next().await {
            self.ended(done);
        }
    }

    fn hint(&self, uid: &str) {
        if let Some(entry) = self.entries.get(uid) {
            entry.hint.notify_one();
        }
    }

    fn ended(&mut self, done: Result<String, tokio::task::JoinError>) {
        match done {
            Ok(uid) => {
                self.entries.remove(&uid);
                self.directory.pods.write().remove(&uid);
            }
            Err(error) => warn!(%error, "a pod worker died"),
        }
    }

    /// Makes targets follow the snapshot.
    fn sync(&mut self, snapshot: &Snapshot) {
        for (uid, pod) in &snapshot.pods {
            let inputs = inputs_of(pod, snapshot);
            match self.entries.get(&**uid) {
                Some(entry) => update(entry, pod, inputs),
                None if self.name_is_free(pod) => self.admit_and_start(pod, inputs),
                None => {}
            }
        }
        if !snapshot.in_sync {
            return;
        }
        for (uid, entry) in &self.entries {
            if !snapshot.pods.contains_key(uid.as_str()) {
                entry.target.send_if_modified(|target| {
                    let was_gone = matches!(target.wanted, Wanted::Gone { .. });
                    target.wanted = Wanted::Gone {
                        grace: model::grace(&target.pod),
                    };
                    !was_gone
                });
            }
        }
    }

    /// No other pod of that name is still here.
    fn name_is_free(&self, pod: &Pod) -> bool {
        self.entries.values().all(|entry| {
            let target = entry.target.borrow();
            target.pod.name() != pod.name() || target.pod.namespace() != pod.namespace()
        })
    }

    fn admit_and_start(&mut self, pod: &Arc<Pod>, inputs: Inputs) {
        let status = pod.status.clone().unwrap_or_default();
        // What was admitted before is not judged again: it may run already.
        let known = status.start_time.is_some() || pod.metadata.deletion_timestamp.is_some();
        let refusal = if known { None } else { self.judge(pod) };
        let verdict = refusal.map(|refusal| {
            self.context.events.pod(
                pod,
                None,
                Kind::Warning,
                &refusal.reason,
                refusal.message.clone(),
            );
            Verdict {
                phase: "Failed",
                reason: Some(refusal.reason),
                message: Some(refusal.message),
            }
        });
        let wanted = model::wanted(pod);
        self.start(Arc::clone(pod), wanted, inputs, verdict);
    }

    fn judge(&self, pod: &Pod) -> Option<Refusal> {
        let admitted: Vec<Arc<Pod>> = self
            .entries
            .values()
            .filter(|entry| !entry.refused && terminal(&entry.status.borrow()).is_none())
            .map(|entry| Arc::clone(&entry.target.borrow().pod))
            .collect();
        let others: Vec<&Pod> = admitted.iter().map(AsRef::as_ref).collect();
        admit(pod, &others, &self.context.allocatable).err()
    }

    fn start(&mut self, pod: Arc<Pod>, wanted: Wanted, inputs: Inputs, verdict: Option<Verdict>) {
        let uid = pod.uid().to_owned();
        let refused = verdict.is_some();
        let status = Arc::new(pod.status.clone().unwrap_or_default());
        let (target, target_receiver) = watch::channel(Target {
            pod,
            wanted,
            inputs: Arc::new(inputs),
        });
        let (status_sender, status) = watch::channel(status);
        let hint = Arc::new(Notify::new());
        let mailbox = Mailbox {
            target: target_receiver,
            hint: Arc::clone(&hint),
            status: status_sender,
        };
        let worker = PodWorker::new(Arc::clone(&self.context), mailbox, verdict);
        let stop = self.stop.child_token();
        let key = uid.clone();
        self.workers.spawn(async move {
            worker.run(stop).await;
            key
        });
        let view = PodView {
            target: target.clone(),
            status: status.clone(),
        };
        self.directory.pods.write().insert(uid.clone(), view);
        self.entries.insert(
            uid,
            Entry {
                target,
                hint,
                status,
                refused,
            },
        );
    }

    /// Wakes every worker and finds what belongs to no pod. Answers when to try again, if it must.
    async fn relist(&mut self, snapshot: &Snapshot) -> Option<tokio::time::Instant> {
        for entry in self.entries.values() {
            entry.hint.notify_one();
        }
        if !snapshot.in_sync {
            return None;
        }
        match self.adopt_orphans(snapshot).await {
            Ok(()) => None,
            Err(error) => {
                warn!(%error, "cannot look for pods without an object");
                Some(tokio::time::Instant::now() + ORPHAN_SCAN_RETRY)
            }
        }
    }

    /// Sandboxes of ours whose pod is gone get a worker that ends them.
    async fn adopt_orphans(
        &mut self,
        snapshot: &Snapshot,
    ) -> Result<(), crate::runtime::RuntimeError> {
        let node = &self.context.config.node_name;
        let sandboxes = self
            .context
            .runtime
            .list_sandboxes(&labels::of_node(node))
            .await?;
        for sandbox in sandboxes {
            let Some(metadata) = &sandbox.metadata else {
                continue;
            };
            let known = self.entries.contains_key(&metadata.uid)
                || snapshot.pods.contains_key(metadata.uid.as_str());
            if known {
                continue;
            }
            info!(pod = %metadata.name, uid = %metadata.uid, "ending a pod whose object is gone");
            let seconds = labels::grace_of(&sandbox).and_then(|grace| u64::try_from(grace).ok());
            let grace = seconds.map_or(ORPHAN_GRACE, Duration::from_secs);
            let pod = Pod {
                metadata: ObjectMeta {
                    name: Some(metadata.name.clone()),
                    namespace: Some(metadata.namespace.clone()),
                    uid: Some(metadata.uid.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(PodSpec::default()),
                status: None,
            };
            self.start(
                Arc::new(pod),
                Wanted::Gone { grace },
                Inputs::default(),
                None,
            );
        }
        Ok(())
    }
}

async fn retry_at(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Hands a worker the newest object and inputs, if either changed.
fn update(entry: &Entry, pod: &Arc<Pod>, inputs: Inputs) {
    entry.target.send_if_modified(|target| {
        let wanted = model::wanted(pod);
        let same_inputs = target.inputs.same(&inputs);
        if Arc::ptr_eq(&target.pod, pod) && target.wanted == wanted && same_inputs {
            return false;
        }
        target.pod = Arc::clone(pod);
        target.wanted = wanted;
        if !same_inputs {
            target.inputs = Arc::new(inputs);
        }
        true
    });
}
