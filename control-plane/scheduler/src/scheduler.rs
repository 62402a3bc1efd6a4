//! The loop: changes in, one pod at a time placed, writes under way.
//!
//! One task owns cache and queue. Informer handlers only note keys; the loop reads the informers'
//! current state of each. A pod is placed (assumed) before its binding is written, so the next
//! decision sees the room taken; a binding that fails gives it back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use control_plane_client::supervise::TaskError;
use control_plane_client::{
    ApiHandle, Cached, Clock, EventRecorder, EventType, Informer, Informers, ObjectKey,
    Subscription, events,
};
use parking_lot::Mutex;
use proto_api::types::core::v1::{Namespace, Node, Pod};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::DEFAULT_NAME;
use crate::cache::{Cache, Freed};
use crate::decision::Decider;
use crate::default_spread::DefaultSpread;
use crate::pod_info::PodInfo;
use crate::queue::{Attempt, Queue};
use crate::writes::{self, Written};

/// Writes under way at the same time.
const WRITES_MAX: usize = 128;
/// Pods placed between two looks at the changes.
const BURST: usize = 64;
/// How often pods that have waited very long are looked for.
const FLUSH_EVERY: Duration = Duration::from_secs(30);
const GATED: &str = "Scheduling is blocked due to non-empty scheduling gates";

/// What changed since the loop looked; bounded by the number of objects.
#[derive(Debug, Default)]
struct Changes {
    pods: BTreeSet<ObjectKey>,
    nodes: BTreeSet<Arc<str>>,
    namespaces: BTreeSet<Arc<str>>,
}

#[derive(Debug, Default)]
struct Inbox {
    changes: Mutex<Changes>,
    wake: Notify,
}

/// What the scheduler has to do with a pod.
enum State {
    /// It is on this node. `counts`: it is not being deleted.
    Placed { node: Arc<str>, counts: bool },
    /// It waits for a node.
    Pending,
    /// It may not be placed yet.
    Gated,
    /// It has ended, is being deleted without a node, or is another scheduler's.
    Ignored,
}

fn state(pod: &Pod, name: &str) -> State {
    let spec = pod.spec.as_ref();
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let deleting = pod.metadata.deletion_timestamp.is_some();
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return State::Ignored;
    }
    if let Some(node) = spec
        .and_then(|spec| spec.node_name.as_deref())
        .filter(|n| !n.is_empty())
    {
        return State::Placed {
            node: Arc::from(node),
            counts: !deleting,
        };
    }
    let scheduler = spec
        .and_then(|spec| spec.scheduler_name.as_deref())
        .unwrap_or(DEFAULT_NAME);
    if deleting || scheduler != name {
        return State::Ignored;
    }
    if spec.is_some_and(|spec| !spec.scheduling_gates.is_empty()) {
        return State::Gated;
    }
    State::Pending
}

/// The scheduler's state.
pub(crate) struct Scheduler {
    name: String,
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    namespaces: Arc<Informer<Namespace>>,
    api: ApiHandle,
    events: EventRecorder,
    clock: Clock,
    cache: Cache,
    queue: Queue,
    decider: Decider,
    default_spread: DefaultSpread,
    rng: StdRng,
    inbox: Arc<Inbox>,
    writes: JoinSet<Written>,
    _subscriptions: [Subscription; 3],
}

impl Scheduler {
    /// Waits for the informers' first lists.
    pub(crate) async fn start(
        name: String,
        informers: &Informers,
        events: EventRecorder,
        clock: Clock,
    ) -> Self {
        let (pods, nodes) = (informers.of::<Pod>(), informers.of::<Node>());
        pods.synced().await;
        nodes.synced().await;
        let namespaces = informers.of::<Namespace>();
        namespaces.synced().await;
        let default_spread = DefaultSpread::open(informers).await;
        let inbox = Arc::new(Inbox::default());
        let to = Arc::clone(&inbox);
        let on_nodes = nodes.subscribe(move |change| {
            to.changes
                .lock()
                .nodes
                .insert(Arc::clone(&change.object().key.name));
            to.wake.notify_one();
        });
        let to = Arc::clone(&inbox);
        let on_namespaces = namespaces.subscribe(move |change| {
            to.changes
                .lock()
                .namespaces
                .insert(Arc::clone(&change.object().key.name));
            to.wake.notify_one();
        });
        let to = Arc::clone(&inbox);
        let on_pods = pods.subscribe(move |change| {
            to.changes.lock().pods.insert(change.object().key.clone());
            to.wake.notify_one();
        });
        Self {
            name,
            pods,
            nodes,
            namespaces,
            api: Arc::clone(informers.api()),
            events,
            clock,
            cache: Cache::new(),
            queue: Queue::new(),
            decider: Decider::new(),
            default_spread,
            rng: StdRng::from_os_rng(),
            inbox,
            writes: JoinSet::new(),
            _subscriptions: [on_pods, on_nodes, on_namespaces],
        }
    }

    /// Schedules until `stop`; writes under way end first.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), TaskError> {
        let mut flush = tokio::time::interval(FLUSH_EVERY);
        while !stop.is_cancelled() {
            self.take_in_changes();
            while let Some(written) = self.writes.try_join_next() {
                self.written(written)?;
            }
            if self.place_some() == BURST {
                tokio::task::yield_now().await;
                continue;
            }
            let room_to_write = self.writes.len() < WRITES_MAX;
            let next = self.queue.next_due().filter(|_| room_to_write);
            // Cancel-safe: all only wait.
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.inbox.wake.notified() => {}
                Some(written) = self.writes.join_next() => self.written(written)?,
                () = sleep_until(next) => {}
                _ = flush.tick() => self.queue.flush(Instant::now()),
            }
        }
        // Bindings under way are left to their end; what only asks or explains is not waited for.
        let orderly = async {
            while let Some(written) = self.writes.join_next().await {
                drop(written);
            }
        };
        if tokio::time::timeout(Duration::from_secs(5), orderly)
            .await
            .is_err()
        {
            warn!("bindings were under way at the end");
        }
        Ok(())
    }

    /// Places ready pods; how many it looked at.
    fn place_some(&mut self) -> usize {
        let (mut looked_at, mut freed) = (0, Freed::default());
        while looked_at < BURST && self.writes.len() < WRITES_MAX {
            let Some(attempt) = self.queue.pop(Instant::now()) else {
                break;
            };
            freed.pods |= self.place(attempt);
            looked_at += 1;
        }
        self.queue.changed(freed, Instant::now());
        looked_at
    }

    /// Whether there is a node for the pod.
    fn place(&mut self, attempt: Attempt) -> bool {
        let info = &attempt.info;
        let by_default = self.default_spread.selector(info);
        let decided =
            self.decider
                .choose(&mut self.cache, info, by_default.as_ref(), &mut self.rng);
        match decided {
            Ok(id) => {
                self.cache.assume(info, id);
                let node = Arc::clone(self.cache.nodes().name(id));
                self.writes
                    .spawn(writes::bind(Arc::clone(&self.api), attempt, node));
                true
            }
            Err(reason) => {
                self.queue
                    .unschedulable(&attempt, reason.plugins, Instant::now());
                debug!(pod = %info.key, reason = %reason.message, "unschedulable");
                let about = events::reference(&info.pod.value);
                let message = reason.message;
                self.events.record(
                    about,
                    EventType::Warning,
                    "FailedScheduling",
                    message.clone(),
                );
                self.explain(Arc::clone(info), "Unschedulable", message);
                false
            }
        }
    }

    fn explain(&mut self, info: Arc<PodInfo>, reason: &'static str, message: String) {
        let api = Arc::clone(&self.api);
        self.writes
            .spawn(writes::explain(api, info, reason, message, self.clock));
    }

    fn take_in_changes(&mut self) {
        let Changes {
            pods,
            nodes,
            namespaces,
        } = std::mem::take(&mut *self.inbox.changes.lock());
        let mut freed = Freed::default();
        for name in namespaces {
            match self.namespaces.get(&ObjectKey::new("", Arc::clone(&name))) {
                Some(namespace) => {
                    let labels = &namespace.metadata.labels;
                    freed.add(self.cache.put_namespace(&name, labels));
                }
                None => self.cache.remove_namespace(&name),
            }
        }
        for name in nodes {
            match self.nodes.get(&ObjectKey::new("", Arc::clone(&name))) {
                Some(node) => freed.add(self.cache.put_node(&node)),
                None => self.cache.remove_node(&name),
            }
        }
        for key in pods {
            freed.add(self.take_in_pod(&key));
        }
        self.queue.changed(freed, Instant::now());
    }

    /// Takes in one pod as it is now. What others may gain by it.
    fn take_in_pod(&mut self, key: &ObjectKey) -> Freed {
        let Some(pod) = self.pods.get(key) else {
            self.queue.remove(key);
            return Freed::room_if(self.cache.remove_pod(key));
        };
        match state(&pod, &self.name) {
            State::Placed { node, counts } => {
                self.queue.remove(key);
                let info = Arc::new(PodInfo::of(&pod));
                return self.cache.put_pod(&info, &node, counts);
            }
            State::Pending => {
                if !self.cache.is_assumed(key) {
                    self.queue.put(&Arc::new(PodInfo::of(&pod)), Instant::now());
                }
            }
            State::Gated => {
                self.queue.remove(key);
                self.gated(&pod);
            }
            State::Ignored => {
                self.queue.remove(key);
                // A binding under way decides about the room itself.
                let ours = self.cache.is_assumed(key);
                return Freed::room_if(!ours && self.cache.remove_pod(key));
            }
        }
        Freed::default()
    }

    fn gated(&mut self, pod: &Arc<Cached<Pod>>) {
        let info = Arc::new(PodInfo::of(pod));
        self.explain(info, "SchedulingGated", GATED.to_owned());
    }

    /// A write ended. An error only when its task panicked: then the room it holds is unknown, and the
    /// scheduler starts afresh from the informers.
    fn written(&mut self, written: Result<Written, JoinError>) -> Result<(), TaskError> {
        match written? {
            Written::Explained => {}
            Written::Bound { attempt, node } => {
                let key = &attempt.info.key;
                info!(pod = %key, node = %node, attempts = attempt.attempts, "bound");
                self.queue.remove(key);
                let about = events::reference(&attempt.info.pod.value);
                let message = format!("Successfully assigned {key} to {node}");
                self.events
                    .record(about, EventType::Normal, "Scheduled", message);
            }
            Written::NotBound {
                attempt,
                node,
                error,
            } => {
                let key = &attempt.info.key;
                if error.is_not_found() || error.code == 409 {
                    debug!(pod = %key, node = %node, %error, "not bound");
                } else {
                    warn!(pod = %key, node = %node, %error, "not bound, tries again");
                }
                self.cache.forget(key);
                self.queue.failed(&attempt, Instant::now());
                // What the informer has learnt meanwhile is right.
                self.take_in_pod(key);
                self.queue.changed(Freed::room_if(true), Instant::now());
            }
        }
        Ok(())
    }
}

async fn sleep_until(next: Option<Instant>) {
    match next {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
