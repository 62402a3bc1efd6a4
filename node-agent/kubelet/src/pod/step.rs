//! The decision: desired and observed state in, actions out. Pure and synchronous.
//!
//! Rules that keep it safe whatever is lost, late or doubled: nothing is started while a start of
//! the same name has no answer, or while any container of that name may run; attempt numbers never
//! repeat; a pod that began to end never starts anything again; its deadline only moves closer.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use proto_api::types::core::v1::Container;

use super::action::{Action, Failure, Notice, StartContainer, StopReason};
use super::backoff::BackoffPolicy;
use super::memory::{ImageProgress, Memory, Progress, Termination};
use super::model::{self, Role, Target, Wanted};
use super::observed::{Observed, ObservedContainer, ObservedSandbox, RunState};
use super::terminate::terminate;

/// A failed pull shows itself this long before it shows that the next one waits.
const FAILURE_SHOWN: SignedDuration = SignedDuration::from_secs(2);

/// What the probes of one running container say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ProbeFacts {
    /// The startup probe passed (or there is none).
    pub(crate) started: bool,
    /// The readiness probe's last result (or there is none).
    pub(crate) ready: bool,
    pub(crate) liveness_failed: bool,
    pub(crate) startup_failed: bool,
}

/// Probe facts by container id.
pub(crate) type Probes = BTreeMap<String, ProbeFacts>;

/// Node-wide settings of the decision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepPolicy {
    pub(crate) restart_backoff: BackoffPolicy,
}

/// Everything a step reads.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) target: &'a Target,
    pub(crate) observed: &'a Observed,
    pub(crate) probes: &'a Probes,
    pub(crate) policy: StepPolicy,
    /// Restart counts of containers that the runtime no longer knows, from the last report.
    pub(crate) reported_restarts: &'a BTreeMap<String, u32>,
    pub(crate) now: Timestamp,
}

/// What a step decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) actions: Vec<Action>,
    pub(crate) notices: Vec<Notice>,
    /// When to look again even if nothing happens.
    pub(crate) wake_at: Option<Timestamp>,
    /// Nothing runs and everything is given back; the object may be deleted.
    pub(crate) torn_down: bool,
    /// Nothing is left; the worker may end.
    pub(crate) forgotten: bool,
}

impl Decision {
    pub(super) fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// One step. `memory` takes in what the step started.
pub(crate) fn step(facts: &Facts<'_>, memory: &mut Memory) -> Decision {
    let mut decision = Decision::default();
    memory.learn(facts.observed);
    enter_termination(facts, memory);
    if memory.termination.is_some() {
        terminate(facts, memory, &mut decision);
    } else {
        sync(facts, memory, &mut decision);
        drop_old_containers(facts, memory, &mut decision);
    }
    decision
}

fn enter_termination(facts: &Facts<'_>, memory: &mut Memory) {
    let grace = match facts.target.wanted {
        Wanted::Delete { grace } | Wanted::Gone { grace } => grace,
        Wanted::Run if memory.verdict.is_some() => model::grace(&facts.target.pod),
        Wanted::Run => return,
    };
    let grace = SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX);
    match &mut memory.termination {
        None => {
            let deadline = facts.now.checked_add(grace).unwrap_or(Timestamp::MAX);
            memory.termination = Some(Termination {
                since: facts.now,
                deadline,
            });
        }
        Some(termination) => {
            // Measured from the first moment: repeating the same period changes nothing.
            let deadline = termination
                .since
                .checked_add(grace)
                .unwrap_or(Timestamp::MAX);
            termination.deadline = termination.deadline.min(deadline);
        }
    }
}

fn sync(facts: &Facts<'_>, memory: &mut Memory, decision: &mut Decision) {
    prepare_volumes(facts, memory, decision);
    stop_surplus_sandboxes(facts, memory, decision);
    match facts.observed.sandbox() {
        Some(sandbox) => sync_containers(facts, sandbox, memory, decision),
        None => {
            for (_, container) in model::containers(facts.target.spec()) {
                if facts.observed.newest(&container.name).is_none() {
                    ensure_image(facts, container, memory, decision);
                }
            }
            make_sandbox(facts, memory, decision);
        }
    }
}

fn prepare_volumes(facts: &Facts<'_>, memory: &mut Memory, decision: &mut Decision) {
    let old = memory.volumes_refresh_at.is_some_and(|at| at <= facts.now);
    let renew = memory.volumes_stale || (memory.volumes == Progress::Done && old);
    if renew && memory.volumes != Progress::InFlight {
        memory.volumes = Progress::Idle;
        memory.volumes_stale = false;
    }
    if memory.volumes.is_due(facts.now) {
        memory.volumes = Progress::InFlight;
        decision.actions.push(Action::PrepareVolumes);
    }
    let wake = memory.volumes.retry_at().or(memory.volumes_refresh_at);
    if let Some(at) = wake.filter(|at| *at > facts.now) {
        decision.wake(at);
    }
}

/// Every sandbox but the newest ready one is stopped; dead ones without containers are removed.
fn stop_surplus_sandboxes(facts: &Facts<'_>, memory: &mut Memory, decision: &mut Decision) {
    let chosen = facts.observed.sandbox().map(|sandbox| sandbox.id.as_str());
    for sandbox in &facts.observed.sandboxes {
        if Some(sandbox.id.as_str()) == chosen {
            continue;
        }
        let occupied = facts
            .observed
            .containers
            .iter()
            .any(|c| c.sandbox_id == sandbox.id);
        if stop_sandbox(sandbox, memory, facts.now, decision) && !occupied && chosen.is_some() {
            remove_sandbox(sandbox, memory, facts.now, decision);
        }
    }
}

/// Stops a sandbox unless it is known to be stopped; answers whether it is.
pub(super) fn stop_sandbox(
    sandbox: &ObservedSandbox,
    memory: &mut Memory,
    now: Timestamp,
    decision: &mut Decision,
) -> bool {
    if !sandbox.ready && memory.stopped_sandboxes.contains(&sandbox.id) {
        return true;
    }
    call(
        &sandbox.id,
        Action::StopSandbox {
            id: sandbox.id.clone(),
        },
        memory,
        now,
        decision,
    );
    false
}

pub(super) fn remove_sandbox(
    sandbox: &ObservedSandbox,
    memory: &mut Memory,
    now: Timestamp,
    decision: &mut Decision,
) {
    call(
        &sandbox.id,
        Action::RemoveSandbox {
            id: sandbox.id.clone(),
        },
        memory,
        now,
        decision,
    );
}

/// Emits an action on `id` unless one is in flight or has just failed.
fn call(id: &str, action: Action, memory: &mut Memory, now: Timestamp, decision: &mut Decision) {
    if memory.may_call(id, now) {
        memory.busy.insert(id.to_owned());
        memory.retry_at.remove(id);
        decision.actions.push(action);
    } else if let Some(at) = memory.retry_at.get(id) {
        decision.wake(*at);
    }
}

fn make_sandbox(facts: &Facts<'_>, memory: &mut Memory, decision: &mut Decision) {
    // What ran in the old sandbox must be known dead before a new one is made.
    let alive = facts
        .observed
        .containers
        .iter()
        .any(|container| matches!(container.state, RunState::Running | RunState::Unknown));
    let stopped = facts
        .observed
        .sandboxes
        .iter()
        .all(|s| memory.stopped_sandboxes.contains(&s.id));
    if alive || !stopped || memory.creates_something() || !anything_to_start(facts) {
        return;
    }
    if memory.sandbox.is_due(facts.now) {
        if !facts.observed.sandboxes.is_empty() && memory.sandbox == Progress::Idle {
            decision.notices.push(Notice::SandboxChanged);
        }
        memory.sandbox = Progress::InFlight;
        decision.actions.push(Action::RunSandbox {
            attempt: memory.next_sandbox_attempt,
        });
    } else if let Some(at) = memory.sandbox.retry_at() {
        decision.wake(at);
    }
}

/// Whether a new sandbox would have something to run.
fn anything_to_start(facts: &Facts<'_>) -> bool {
    let spec = facts.target.spec();
    spec.containers.iter().any(|container| {
        facts.observed.newest(&container.name).is_none_or(|newest| {
            newest.state != RunState::Exited
                || model::restarts(spec, Role::Main, container, newest.exit_code)
        })
    })
}

fn sync_containers(
    facts: &Facts<'_>,
    sandbox: &ObservedSandbox,
    memory: &mut Memory,
    decision: &mut Decision,
) {
    let spec = facts.target.spec();
    let past_init = spec.containers.iter().any(|container| {
        facts
            .observed
            .active(&sandbox.id, &container.name)
            .is_some()
    });
    // Images of everything not yet created are fetched side by side, ahead of their turn.
    for (role, container) in model::containers(spec) {
        let needed = !(past_init && role == Role::Init);
        if needed
            && facts
                .observed
                .active(&sandbox.id, &container.name)
                .is_none()
        {
            ensure_image(facts, container, memory, decision);
        }
    }
    for (role, container) in model::containers(spec) {
        let active = facts.observed.active(&sandbox.id, &container.name);
        if role == Role::Init && past_init && !memory.is_starting(&container.name) {
            continue;
        }
        keep_container(facts, sandbox, (role, container), active, memory, decision);
        let passed = match role {
            Role::Init => active.is_some_and(|c| c.state == RunState::Exited && c.exit_code == 0),
            Role::Sidecar => past_init || active.is_some_and(|c| is_started(facts, memory, c)),
            Role::Main => true,
        };
        if !passed {
            return;
        }
    }
}

/// Running, its postStart over and its startup probe passed.
fn is_started(facts: &Facts<'_>, memory: &Memory, container: &ObservedContainer) -> bool {
    container.state == RunState::Running
        && !memory.is_starting(&container.name)
        && facts
            .probes
            .get(&container.id)
            .is_some_and(|probes| probes.started)
}

/// Brings one container closer to what its role asks for.
fn keep_container(
    facts: &Facts<'_>,
    sandbox: &ObservedSandbox,
    (role, container): (Role, &Container),
    active: Option<&ObservedContainer>,
    memory: &mut Memory,
    decision: &mut Decision,
) {
    if memory.is_starting(&container.name) {
        return;
    }
    // The same name may still run, from an older start or in an older sandbox: that one goes first.
    let elsewhere = facts.observed.containers.iter().find(|other| {
        other.name == container.name
            && active.is_none_or(|active| active.id != other.id)
            && matches!(other.state, RunState::Running | RunState::Unknown)
    });
    if let Some(other) = elsewhere {
        stop(
            facts,
            container,
            other,
            StopReason::StateUnknown,
            memory,
            decision,
        );
        return;
    }
    let Some(active) = active else {
        start(facts, sandbox, container, memory, decision);
        return;
    };
    match active.state {
        // Left by a start that was never answered; it is not known how it was configured.
        RunState::Created => {
            let action = Action::RemoveContainer {
                id: active.id.clone(),
            };
            call(&active.id, action, memory, facts.now, decision);
        }
        RunState::Running => stop_if_unfit(facts, container, active, memory, decision),
        RunState::Unknown => {
            stop(
                facts,
                container,
                active,
                StopReason::StateUnknown,
                memory,
                decision,
            );
        }
        RunState::Exited => {
            restart(facts, sandbox, (role, container), active, memory, decision);
        }
    }
}

fn stop_if_unfit(
    facts: &Facts<'_>,
    container: &Container,
    active: &ObservedContainer,
    memory: &mut Memory,
    decision: &mut Decision,
) {
    let probes = facts.probes.get(&active.id).copied().unwrap_or_default();
    let why = if probes.startup_failed {
        StopReason::StartupFailed
    } else if probes.liveness_failed {
        StopReason::LivenessFailed
    } else if !active.spec_hash.is_empty() && active.spec_hash != model::spec_hash(container) {
        StopReason::SpecChanged
    } else {
        return;
    };
    stop(facts, container, active, why, memory, decision);
}

fn stop(
    facts: &Facts<'_>,
    container: &Container,
    active: &ObservedContainer,
    why: StopReason,
    memory: &mut Memory,
    decision: &mut Decision,
) {
    if memory.stopping.contains_key(&active.id) || !memory.may_call(&active.id, facts.now) {
        memory
            .retry_at
            .get(&active.id)
            .into_iter()
            .for_each(|at| decision.wake(*at));
        return;
    }
    let probe = match why {
        StopReason::LivenessFailed => container.liveness_probe.as_ref(),
        StopReason::StartupFailed => container.startup_probe.as_ref(),
        StopReason::PodEnds
        | StopReason::GraceShrunk
        | StopReason::SpecChanged
        | StopReason::StateUnknown => None,
    };
    let grace = probe
        .and_then(|probe| probe.termination_grace_period_seconds)
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map_or_else(
            || model::grace(&facts.target.pod),
            std::time::Duration::from_secs,
        );
    memory.stopping.insert(active.id.clone(), Timestamp::MAX);
    decision.actions.push(Action::StopContainer {
        id: active.id.clone(),
        container: container.name.clone(),
        grace,
        why,
    });
}

fn restart(
    facts: &Facts<'_>,
    sandbox: &ObservedSandbox,
    (role, container): (Role, &Container),
    dead: &ObservedContainer,
    memory: &mut Memory,
    decision: &mut Decision,
) {
    if !model::restarts(facts.target.spec(), role, container, dead.exit_code) {
        return;
    }
    let policy = facts.policy.restart_backoff;
    let failed_at = dead.finished_at.unwrap_or(dead.created_at);
    let remembered = memory.container(&container.name);
    let ready_at = remembered.crash.ready_at(policy, failed_at, facts.now);
    if ready_at <= facts.now {
        start(facts, sandbox, container, memory, decision);
        return;
    }
    decision.wake(ready_at);
    let delay = remembered.crash.delay(policy, facts.now);
    if remembered.crash_announced != Some(failed_at) {
        remembered.crash_announced = Some(failed_at);
        decision.notices.push(Notice::CrashLoop {
            container: container.name.clone(),
        });
    }
    remembered.waiting = Some(Failure {
        reason: "CrashLoopBackOff",
        message: format!(
            "back-off {} restarting failed container={} pod={}",
            go_duration(delay),
            container.name,
            model::display(&facts.target.pod)
        ),
    });
}

fn start(
    facts: &Facts<'_>,
    sandbox: &ObservedSandbox,
    container: &Container,
    memory: &mut Memory,
    decision: &mut Decision,
) {
    let now = facts.now;
    let volumes_ready = memory.volumes_mounted;
    if let Some(at) = memory
        .container(&container.name)
        .start_retry_at
        .filter(|retry_at| *retry_at > now)
    {
        decision.wake(at);
        return;
    }
    ensure_image(facts, container, memory, decision);
    let newest = facts.observed.newest(&container.name);
    let reported = facts.reported_restarts.get(&container.name);
    let remembered = memory.container(&container.name);
    let ImageProgress::Ready(image_ref) = &remembered.image else {
        return;
    };
    if !volumes_ready {
        return;
    }
    let image_ref = image_ref.clone();
    if newest.is_some() {
        remembered.crash.advance(facts.policy.restart_backoff, now);
    }
    let restart_count = newest
        .map(|newest| newest.restart_count.saturating_add(1))
        .or_else(|| reported.map(|count| count.saturating_add(1)))
        .unwrap_or(0);
    let attempt = remembered.next_attempt.max(restart_count);
    remembered.next_attempt = attempt.saturating_add(1);
    remembered.starting = true;
    remembered.waiting = None;
    // The next start asks the image policy anew.
    remembered.image = ImageProgress::Idle;
    decision
        .actions
        .push(Action::StartContainer(StartContainer {
            container: container.name.clone(),
            sandbox_id: sandbox.id.clone(),
            attempt,
            restart_count,
            image_ref,
        }));
}

fn ensure_image(
    facts: &Facts<'_>,
    container: &Container,
    memory: &mut Memory,
    decision: &mut Decision,
) {
    let remembered = memory.container(&container.name);
    if remembered.starting {
        return;
    }
    match &remembered.image {
        ImageProgress::InFlight | ImageProgress::Ready(_) => return,
        ImageProgress::Failed { at, retry_at } if *retry_at > facts.now => {
            decision.wake(*retry_at);
            let shown_until = at.checked_add(FAILURE_SHOWN).unwrap_or(*retry_at);
            if shown_until > facts.now {
                decision.wake(shown_until);
                return;
            }
            let image = container.image.as_deref().unwrap_or_default();
            if let Some(waiting) = &mut remembered.waiting
                && waiting.reason == "ErrImagePull"
            {
                let cause = std::mem::take(&mut waiting.message);
                waiting.reason = "ImagePullBackOff";
                waiting.message =
                    format!("Back-off pulling image \"{image}\": ErrImagePull: {cause}");
                let container = container.name.clone();
                decision.notices.push(Notice::ImageBackOff { container });
            }
            return;
        }
        ImageProgress::Failed { .. } | ImageProgress::Idle => {}
    }
    remembered.image = ImageProgress::InFlight;
    decision.actions.push(Action::EnsureImage {
        container: container.name.clone(),
    });
}

/// Of the dead containers of a name only the newest two are kept: one for the state, one for logs
/// of the run before. A container behind a newer one that was never started goes at once.
fn drop_old_containers(facts: &Facts<'_>, memory: &mut Memory, decision: &mut Decision) {
    let mut kept: BTreeMap<&str, usize> = BTreeMap::new();
    for container in &facts.observed.containers {
        let count = kept.entry(container.name.as_str()).or_default();
        *count += 1;
        let is_left = *count > 1 && container.state == RunState::Created;
        if is_left || (*count > 2 && container.state == RunState::Exited) {
            let action = Action::RemoveContainer {
                id: container.id.clone(),
            };
            call(&container.id, action, memory, facts.now, decision);
        }
    }
}

/// Whole seconds as Go prints a duration: `10s`, `1m20s`, `5m0s`.
pub(crate) fn go_duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!("{}h{}m{}s", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}
