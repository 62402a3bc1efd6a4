//! The end of a pod: containers within the grace period, then the sandbox, then everything else.
//!
//! Order: main and init containers at once; then sidecars, last one first; then sandboxes; then
//! volumes and cgroup; once the object is gone also the remains on disk and in the runtime.

use std::time::Duration;

use jiff::Timestamp;

use super::action::{Action, StopReason};
use super::memory::{Memory, Progress};
use super::model::{self, Role, Wanted};
use super::observed::{ObservedContainer, RunState};
use super::step::{Decision, Facts, remove_sandbox, stop_sandbox};

/// A container always gets this long, however late it is stopped.
pub(crate) const GRACE_MIN: Duration = Duration::from_secs(2);

pub(super) fn terminate(facts: &Facts<'_>, memory: &mut Memory, decision: &mut Decision) {
    stop_containers(facts, memory, decision);
    if any_alive(facts) || memory.creates_something() || !memory.stopping.is_empty() {
        return;
    }
    let mut all_stopped = true;
    for sandbox in &facts.observed.sandboxes {
        all_stopped &= stop_sandbox(sandbox, memory, facts.now, decision);
    }
    // A volume set-up in flight would write into what is being removed.
    if !all_stopped || memory.volumes == Progress::InFlight {
        return;
    }
    match &memory.tear_down {
        Progress::Done => {
            decision.torn_down = true;
            if let Wanted::Gone { .. } = facts.target.wanted {
                forget(facts, memory, decision);
            }
        }
        progress if progress.is_due(facts.now) => {
            memory.tear_down = Progress::InFlight;
            decision.actions.push(Action::TearDown);
        }
        progress => progress
            .retry_at()
            .into_iter()
            .for_each(|at| decision.wake(at)),
    }
}

fn forget(facts: &Facts<'_>, memory: &mut Memory, decision: &mut Decision) {
    for sandbox in &facts.observed.sandboxes {
        remove_sandbox(sandbox, memory, facts.now, decision);
    }
    if !facts.observed.sandboxes.is_empty() {
        return;
    }
    if memory.forget == Progress::Done {
        decision.forgotten = true;
    } else if memory.forget.is_due(facts.now) {
        memory.forget = Progress::InFlight;
        decision.actions.push(Action::Forget);
    } else if let Some(at) = memory.forget.retry_at() {
        decision.wake(at);
    }
}

fn is_alive(container: &ObservedContainer) -> bool {
    matches!(container.state, RunState::Running | RunState::Unknown)
}

fn any_alive(facts: &Facts<'_>) -> bool {
    facts.observed.containers.iter().any(is_alive)
}

fn stop_containers(facts: &Facts<'_>, memory: &mut Memory, decision: &mut Decision) {
    let spec = facts.target.spec();
    let is_sidecar = |container: &ObservedContainer| {
        model::container(spec, &container.name).is_some_and(|(role, _)| role == Role::Sidecar)
    };
    let alive = || {
        facts
            .observed
            .containers
            .iter()
            .filter(|container| is_alive(container))
    };
    let mut waits_for_others = false;
    for container in alive().filter(|container| !is_sidecar(container)) {
        waits_for_others = true;
        stop(facts, container, memory, decision);
    }
    if waits_for_others || memory.creates_something() {
        return;
    }
    for (_, sidecar) in model::containers(spec)
        .rev()
        .filter(|(role, _)| *role == Role::Sidecar)
    {
        let mut waits = false;
        for container in alive().filter(|container| container.name == sidecar.name) {
            waits = true;
            stop(facts, container, memory, decision);
        }
        if waits {
            return;
        }
    }
}

/// Stops one container, or shortens a stop that was given more time than is left now.
fn stop(
    facts: &Facts<'_>,
    container: &ObservedContainer,
    memory: &mut Memory,
    decision: &mut Decision,
) {
    let Some(termination) = memory.termination else {
        return;
    };
    let why = match memory.stopping.get(&container.id) {
        Some(given) if *given <= termination.deadline => return,
        Some(_longer) => StopReason::GraceShrunk,
        None => StopReason::PodEnds,
    };
    if let Some(at) = memory
        .retry_at
        .get(&container.id)
        .filter(|at| **at > facts.now)
    {
        decision.wake(*at);
        return;
    }
    memory.retry_at.remove(&container.id);
    memory
        .stopping
        .insert(container.id.clone(), termination.deadline);
    decision.actions.push(Action::StopContainer {
        id: container.id.clone(),
        container: container.name.clone(),
        grace: time_left(termination.deadline, facts.now),
        why,
    });
}

fn time_left(deadline: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(deadline.duration_since(now))
        .unwrap_or(Duration::ZERO)
        .max(GRACE_MIN)
}
