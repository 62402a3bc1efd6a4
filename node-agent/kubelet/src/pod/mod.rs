//! One worker a pod: a pure decision ([`step`]), a status ([`status`]) and a thin executor.

pub(crate) mod action;
pub(crate) mod backoff;
mod conditions;
mod keep;
mod memory;
pub(crate) mod model;
pub(crate) mod observed;
mod resize;
mod status;
mod step;
mod terminate;

#[cfg(test)]
mod simulator;
#[cfg(test)]
mod tests;

use proto_api::types::core::v1::PodStatus;

use self::action::Notice;
pub(crate) use self::memory::{Memory, Verdict};
pub(crate) use self::status::StatusInputs;
pub(crate) use self::step::{Capacity, Decision, Facts, ProbeFacts, Probes, StepPolicy};
pub(crate) use self::terminate::GRACE_MIN;

/// Decides and describes: the actions of one step and the status to report. A pod that has come
/// to its end by itself starts to end in the same step.
pub(crate) fn advance(
    facts: &Facts<'_>,
    memory: &mut Memory,
    inputs: StatusInputs<'_>,
) -> (Decision, PodStatus) {
    let expired = judge_deadline(facts, memory, inputs.previous);
    let mut decision = step::step(facts, memory);
    resize::resize(facts, memory, inputs.previous, &mut decision);
    let mut status = status::pod_status(facts, memory, inputs);
    if memory.verdict.is_none()
        && let Some(phase) = terminal(&status)
    {
        memory.verdict = Some(Verdict {
            phase,
            reason: None,
            message: None,
        });
        let next = step::step(facts, memory);
        decision.actions.extend(next.actions);
        decision.notices.extend(next.notices);
        decision.wake_at = next.wake_at;
        decision.torn_down = next.torn_down;
        decision.forgotten = next.forgotten;
        status = status::pod_status(facts, memory, inputs);
    }
    if let Some(at) = expired {
        decision.wake(at);
    } else if memory
        .verdict
        .as_ref()
        .is_some_and(|v| v.reason.as_deref() == Some(DEADLINE))
        && memory
            .termination
            .is_some_and(|termination| termination.since == facts.now)
    {
        decision.notices.push(Notice::DeadlineExceeded);
    }
    (decision, status)
}

const DEADLINE: &str = "DeadlineExceeded";

/// Fails a pod that was active for too long; answers when that will be, if it lies ahead.
fn judge_deadline(
    facts: &Facts<'_>,
    memory: &mut Memory,
    previous: &PodStatus,
) -> Option<jiff::Timestamp> {
    let start = previous.start_time.as_ref()?.timestamp()?;
    let until = model::active_until(facts.target.spec(), start)?;
    if memory.verdict.is_some() || memory.termination.is_some() {
        return None;
    }
    if until > facts.now {
        return Some(until);
    }
    memory.verdict = Some(Verdict {
        phase: "Failed",
        reason: Some(DEADLINE.to_owned()),
        message: Some("Pod was active on the node longer than the specified deadline".to_owned()),
    });
    None
}

/// The phase, if it is one that never changes again.
pub(crate) fn terminal(status: &PodStatus) -> Option<&'static str> {
    match status.phase.as_deref() {
        Some("Succeeded") => Some("Succeeded"),
        Some("Failed") => Some("Failed"),
        _ => None,
    }
}
