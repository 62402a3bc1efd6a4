//! One pod's worker: observe, decide, act, report; then wait for something to change.
//!
//! The order is what makes it safe: an answer is absorbed first, the runtime is asked again, and only
//! then is decided, so no decision rests on a state older than the worker's own last act.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use node_agent_state::{PodRef, UpstreamError};
use proto_api::types::Quantity;
use proto_api::types::core::v1::PodStatus;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Context;
use super::execute::{self, Shared};
use super::observe::{Settled, observe};
use crate::event::Kind;
use crate::pod::action::{Action, Notice, Outcome};
use crate::pod::backoff::BackoffPolicy;
use crate::pod::model::{self, Target, Wanted};
use crate::pod::observed::{Observed, RunState};
use crate::pod::{self, Capacity, Decision, Facts, Memory, StatusInputs, StepPolicy, Verdict};
use crate::probe::ProbeSet;

/// Looks again this long after a hint, whatever was seen in between: the runtime's event may be
/// ahead of the state it tells, by seconds on a busy node.
const RECHECKS: [Duration; 5] = [
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_millis(1250),
    Duration::from_millis(5000),
];
const OBSERVE_RETRY: Duration = Duration::from_secs(1);
const REPORT_RETRY_FIRST: Duration = Duration::from_millis(200);
const REPORT_RETRY_MAX: Duration = Duration::from_secs(10);

/// What a task of the worker came back with.
enum Finished {
    Action(Outcome),
    Report {
        status: Box<PodStatus>,
        result: Result<(), UpstreamError>,
    },
    Removal(Result<(), UpstreamError>),
}

/// How a worker is told things.
pub(super) struct Mailbox {
    pub(super) target: watch::Receiver<Target>,
    /// The runtime hinted at a change.
    pub(super) hint: Arc<Notify>,
    /// The status that users see now, for the log and exec handlers.
    pub(super) status: watch::Sender<Arc<PodStatus>>,
}

pub(super) struct PodWorker {
    context: Arc<Context>,
    reference: PodRef,
    mailbox: Mailbox,
    /// Target of the last turn.
    last: Target,
    memory: Memory,
    settled: Settled,
    observed: Observed,
    probes: ProbeSet,
    shared: Arc<Shared>,
    tasks: JoinSet<Finished>,
    reported_restarts: BTreeMap<String, u32>,
    messages: BTreeMap<String, String>,
    /// Last status that was decided; carries transition times on.
    status: PodStatus,
    stored: Option<PodStatus>,
    reporting: bool,
    report_pause: Duration,
    report_after: Option<tokio::time::Instant>,
    removal_sent: bool,
    /// When to look again because of the last hint, the next first.
    rechecks: VecDeque<tokio::time::Instant>,
    wake_at: Option<tokio::time::Instant>,
}

impl PodWorker {
    pub(super) fn new(context: Arc<Context>, mailbox: Mailbox, verdict: Option<Verdict>) -> Self {
        let target = mailbox.target.borrow().clone();
        let status = target.pod.status.clone().unwrap_or_default();
        let mut memory = Memory {
            verdict,
            ..Memory::default()
        };
        // A pod that ended before this process started never runs again.
        if let (None, Some(phase)) = (&memory.verdict, pod::terminal(&status)) {
            memory.verdict = Some(Verdict {
                phase,
                reason: status.reason.clone(),
                message: status.message.clone(),
            });
        }
        let reported_restarts = reported_restarts(&status);
        Self {
            reference: target.reference(),
            probes: ProbeSet::new(Arc::clone(&context), &status),
            shared: Arc::default(),
            context,
            mailbox,
            last: target,
            memory,
            settled: Settled::default(),
            observed: Observed::default(),
            tasks: JoinSet::new(),
            reported_restarts,
            messages: BTreeMap::new(),
            status,
            stored: None,
            reporting: false,
            report_pause: REPORT_RETRY_FIRST,
            report_after: None,
            removal_sent: false,
            rechecks: VecDeque::new(),
            wake_at: None,
        }
    }

    /// Runs until the pod is forgotten or the agent stops. A stop leaves containers running.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        debug!(pod = %self.reference.name, uid = %self.reference.uid, "pod worker started");
        loop {
            if self.turn().await {
                break;
            }
            let next_look = self.next_look();
            tokio::select! {
                // Every branch is cancel-safe: watch, notify, join_next and sleep lose nothing.
                () = stop.cancelled() => break,
                changed = self.mailbox.target.changed() => if changed.is_err() { break },
                () = self.mailbox.hint.notified() => self.plan_rechecks(),
                () = self.probes.changed() => {}
                Some(done) = self.tasks.join_next() => self.finish(done),
                () = sleep_until(next_look) => {}
            }
            while let Some(done) = self.tasks.try_join_next() {
                self.finish(done);
            }
        }
        self.probes.shutdown().await;
        self.tasks.shutdown().await;
        debug!(pod = %self.reference.name, uid = %self.reference.uid, "pod worker ended");
    }

    /// One round; answers whether the worker is done.
    async fn turn(&mut self) -> bool {
        let target = self.mailbox.target.borrow_and_update().clone();
        self.note_new_content(&target);
        if !self.look().await {
            return false;
        }
        self.probes
            .sync(&target, &self.observed, self.memory.termination.is_some());
        self.read_messages(&target).await;
        let decision = self.decide(&target);
        self.wake_at = decision.wake_at.map(|at| self.instant(at));
        for notice in &decision.notices {
            self.announce(&target, notice);
        }
        for action in decision.actions {
            self.begin(&target, action);
        }
        self.report(&target, decision.torn_down);
        decision.forgotten
    }

    /// Volumes show config maps, secrets, labels and annotations: they follow a change of any.
    fn note_new_content(&mut self, target: &Target) {
        let (old, new) = (&self.last.pod.metadata, &target.pod.metadata);
        let same = Arc::ptr_eq(&self.last.inputs, &target.inputs)
            && old.labels == new.labels
            && old.annotations == new.annotations;
        if !same {
            self.memory.volumes_stale = true;
        }
        let news = !Arc::ptr_eq(&self.last.pod, &target.pod);
        if news && !self.reporting && is_misjudged(&self.status, &target.pod) {
            self.stored = None;
        }
        self.last = target.clone();
    }

    /// Asks the runtime; answers whether it told.
    async fn look(&mut self) -> bool {
        let runtime = Arc::clone(&self.context.runtime);
        let node = &self.context.config.node_name;
        let uid = &self.reference.uid;
        let now = tokio::time::Instant::now();
        while self.rechecks.front().is_some_and(|at| *at <= now) {
            self.rechecks.pop_front();
        }
        match observe(&*runtime, node, uid, &mut self.settled).await {
            Ok(observed) => {
                self.observed = observed;
                true
            }
            Err(error) => {
                warn!(pod = %self.reference.name, %error, "cannot observe pod");
                self.wake_at = Some(tokio::time::Instant::now() + OBSERVE_RETRY);
                false
            }
        }
    }

    fn decide(&mut self, target: &Target) -> Decision {
        let cap = self.context.config.crash_backoff_max;
        let cap = jiff::SignedDuration::try_from(cap).unwrap_or(jiff::SignedDuration::MAX);
        let facts = Facts {
            target,
            observed: &self.observed,
            probes: &self.probes.facts(),
            policy: StepPolicy {
                restart_backoff: BackoffPolicy::restarts(cap),
                capacity: capacity(&self.context.allocatable),
            },
            reported_restarts: &self.reported_restarts,
            now: self.context.clock.now(),
        };
        let inputs = StatusInputs {
            previous: &self.status,
            host_ips: self.context.host_ips(),
            termination_messages: &self.messages,
        };
        let (decision, status) = pod::advance(&facts, &mut self.memory, inputs);
        self.status = status;
        self.mailbox
            .status
            .send_replace(Arc::new(self.status.clone()));
        decision
    }

    fn begin(&mut self, target: &Target, action: Action) {
        debug!(pod = %self.reference.name, ?action, "begin");
        let context = Arc::clone(&self.context);
        let shared = Arc::clone(&self.shared);
        let target = target.clone();
        let ips = self.status.pod_ips.iter().map(|ip| ip.ip.clone()).collect();
        self.tasks.spawn(async move {
            Finished::Action(execute::execute(&context, &shared, &target, ips, action).await)
        });
    }

    fn finish(&mut self, done: Result<Finished, tokio::task::JoinError>) {
        match done {
            Ok(Finished::Action(outcome)) => {
                debug!(pod = %self.reference.name, ?outcome, "done");
                self.memory.absorb(outcome, self.context.clock.now());
            }
            Ok(Finished::Report { status, result }) => self.reported(*status, result),
            Ok(Finished::Removal(result)) => match result {
                Ok(()) | Err(UpstreamError::Gone { .. }) => {}
                Err(error) => {
                    warn!(pod = %self.reference.name, %error, "cannot remove the pod's object");
                    self.removal_sent = false;
                    self.delay_report();
                }
            },
            // A task of ours that panicked: its action stays in flight, which is safe; say so.
            Err(error) => warn!(pod = %self.reference.name, %error, "action of a pod worker died"),
        }
    }

    fn reported(&mut self, status: PodStatus, result: Result<(), UpstreamError>) {
        self.reporting = false;
        match result {
            Ok(()) => {
                self.stored = Some(status);
                self.report_pause = REPORT_RETRY_FIRST;
            }
            Err(UpstreamError::Gone { .. }) => self.stored = Some(status),
            Err(UpstreamError::Rejected { what, reason }) => {
                warn!(%what, %reason, "pod status refused");
                self.stored = Some(status);
            }
            Err(UpstreamError::Unavailable { reason }) => {
                debug!(pod = %self.reference.name, %reason, "pod status not taken yet");
                self.delay_report();
            }
        }
    }

    fn delay_report(&mut self) {
        self.report_after = Some(tokio::time::Instant::now() + self.report_pause);
        self.report_pause = (self.report_pause * 2).min(REPORT_RETRY_MAX);
    }

    /// Sends the newest status if the stored one differs; one report at a time. After the last
    /// status of a deleted pod is stored, the object may go.
    fn report(&mut self, target: &Target, torn_down: bool) {
        if let Wanted::Gone { .. } = target.wanted {
            return;
        }
        if self.reporting
            || self
                .report_after
                .is_some_and(|at| at > tokio::time::Instant::now())
        {
            return;
        }
        self.report_after = None;
        let upstream = Arc::clone(&self.context.upstream);
        let reference = self.reference.clone();
        if self.stored.as_ref() != Some(&self.status) {
            self.reporting = true;
            let status = Box::new(self.status.clone());
            self.tasks.spawn(async move {
                let result = upstream.pod_status(&reference, &status).await;
                Finished::Report { status, result }
            });
        } else if torn_down && matches!(target.wanted, Wanted::Delete { .. }) && !self.removal_sent
        {
            self.removal_sent = true;
            info!(pod = %self.reference.name, uid = %self.reference.uid, "pod finished");
            self.tasks
                .spawn(async move { Finished::Removal(upstream.pod_finished(&reference).await) });
        }
    }

    fn announce(&self, target: &Target, notice: &Notice) {
        let pod = &*target.pod;
        let events = &self.context.events;
        match notice {
            Notice::CrashLoop { container } => {
                let message = format!(
                    "Back-off restarting failed container {container} in pod {}",
                    model::display(pod)
                );
                events.pod(pod, Some(container), Kind::Warning, "BackOff", message);
            }
            Notice::ImageBackOff { container } => {
                let image = target
                    .container(container)
                    .and_then(|(_, container)| container.image.clone())
                    .unwrap_or_default();
                let message = format!("Back-off pulling image \"{image}\"");
                events.pod(pod, Some(container), Kind::Normal, "BackOff", message);
            }
            Notice::SandboxChanged => {
                let message = "Pod sandbox changed, it will be killed and re-created.";
                events.pod(pod, None, Kind::Normal, "SandboxChanged", message);
            }
            Notice::DeadlineExceeded => {
                let message = "Pod was active on the node longer than the specified deadline";
                events.pod(pod, None, Kind::Normal, "DeadlineExceeded", message);
            }
        }
    }

    /// Last words of containers that ended.
    async fn read_messages(&mut self, target: &Target) {
        let observed = &self.observed.containers;
        self.messages
            .retain(|id, _| observed.iter().any(|container| &container.id == id));
        let ended: Vec<_> = observed
            .iter()
            .filter(|c| c.state == RunState::Exited && !self.messages.contains_key(&c.id))
            .cloned()
            .collect();
        for container in ended {
            let message = execute::termination_message(&self.context, target, &container).await;
            let message = if message.is_empty() {
                container.message
            } else {
                message
            };
            self.messages.insert(container.id, message);
        }
    }

    fn plan_rechecks(&mut self) {
        let now = tokio::time::Instant::now();
        self.rechecks = RECHECKS.iter().map(|wait| now + *wait).collect();
    }

    fn next_look(&self) -> Option<tokio::time::Instant> {
        let recheck = self.rechecks.front().copied();
        [self.wake_at, recheck, self.report_after]
            .into_iter()
            .flatten()
            .min()
    }

    fn instant(&self, at: Timestamp) -> tokio::time::Instant {
        let wait = at.duration_since(self.context.clock.now());
        let wait = Duration::try_from(wait).unwrap_or_default();
        // A little late rather than a little early, so that the step finds the time passed.
        tokio::time::Instant::now() + wait + Duration::from_millis(1)
    }
}

/// Somebody else changed what this agent reports: readiness of a pod whose node was out of reach.
fn is_misjudged(own: &PodStatus, pod: &proto_api::types::core::v1::Pod) -> bool {
    let ready = |status: &PodStatus| {
        let found = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == "Ready");
        found.map(|condition| condition.status.clone())
    };
    let stored = pod.status.as_ref().and_then(ready);
    stored.is_some() && stored != ready(own)
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn capacity(allocatable: &BTreeMap<String, Quantity>) -> Capacity {
    let cpu = allocatable.get("cpu").and_then(Quantity::milli_value);
    let memory = allocatable.get("memory").and_then(Quantity::value);
    Capacity {
        cpu_milli: cpu.unwrap_or(i64::MAX),
        memory_bytes: memory.unwrap_or(i64::MAX),
    }
}

fn reported_restarts(status: &PodStatus) -> BTreeMap<String, u32> {
    let statuses = status
        .container_statuses
        .iter()
        .chain(&status.init_container_statuses)
        .chain(&status.ephemeral_container_statuses);
    statuses
        .filter(|status| status.container_id.is_some())
        .map(|status| {
            (
                status.name.clone(),
                u32::try_from(status.restart_count).unwrap_or(0),
            )
        })
        .collect()
}
