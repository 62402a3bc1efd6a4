//! One container closer to what its role asks for: start, restart, stop, image, clean-up. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use proto_api::types::core::v1::Container;

use super::action::{Action, Failure, Notice, StartContainer, StopReason};
use super::memory::{ImageProgress, Memory};
use super::model::{self, Role};
use super::observed::{ObservedContainer, ObservedSandbox, RunState};
use super::step::{Decision, Facts, call};

/// A failed pull shows itself this long before it shows that the next one waits.
const FAILURE_SHOWN: SignedDuration = SignedDuration::from_secs(2);

/// Brings one container closer to what its role asks for.
pub(super) fn keep_container(
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

pub(super) fn stop(
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
        | StopReason::Resized
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

pub(super) fn ensure_image(
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
pub(super) fn drop_old_containers(facts: &Facts<'_>, memory: &mut Memory, decision: &mut Decision) {
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
fn go_duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!("{}h{}m{}s", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}
