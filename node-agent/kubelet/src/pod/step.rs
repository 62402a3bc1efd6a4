//! The decision: desired and observed state in, actions out. Pure and synchronous.
//!
//! Rules that keep it safe whatever is lost, late or doubled: nothing is started while a start of
//! the same name has no answer, or while any container of that name may run; attempt numbers never
//! repeat; a pod that began to end never starts anything again; its deadline only moves closer.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::action::{Action, Notice};
use super::backoff::BackoffPolicy;
use super::keep::{drop_old_containers, ensure_image, keep_container};
use super::memory::{Memory, Progress, Termination};
use super::model::{self, Role, Target, Wanted};
use super::observed::{Observed, ObservedContainer, ObservedSandbox, RunState};
use super::terminate::terminate;

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
    pub(crate) capacity: Capacity,
}

/// What pods may ask for on this node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capacity {
    pub(crate) cpu_milli: i64,
    pub(crate) memory_bytes: i64,
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
pub(super) fn call(
    id: &str,
    action: Action,
    memory: &mut Memory,
    now: Timestamp,
    decision: &mut Decision,
) {
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
    for container in model::ephemeral(spec) {
        // Once only: not again in a new sandbox, nor after its remains were swept away.
        let seen = facts.observed.newest(&container.name).is_some()
            || facts.reported_restarts.contains_key(&container.name);
        if !seen || memory.is_starting(&container.name) {
            let role = Role::Ephemeral;
            keep_container(facts, sandbox, (role, &container), None, memory, decision);
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
            Role::Main | Role::Ephemeral => true,
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
