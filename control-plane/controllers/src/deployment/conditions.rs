//! What a Deployment's status says: counts, Available, Progressing and its deadline. Pure.

use std::time::Duration;

use jiff::Timestamp;
use proto_api::types::Time;
use proto_api::types::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};

use super::rolling;
use super::sets::{Sets, available};

const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";
const RESUMED: &str = "DeploymentResumed";
/// `progressDeadlineSeconds` that means "none".
const NO_DEADLINE: i32 = i32::MAX;

fn condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: Some(kind.to_owned()),
        status: Some(status.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: Some(Time::from_timestamp(now)),
        last_update_time: Some(Time::from_timestamp(now)),
    }
}

fn find<'a>(all: &'a [DeploymentCondition], kind: &str) -> Option<&'a DeploymentCondition> {
    all.iter()
        .find(|condition| condition.type_.as_deref() == Some(kind))
}

/// Sets a condition; one that says the same already stays as it is, and the transition time moves only
/// when `status` does.
fn set(all: &mut Vec<DeploymentCondition>, mut next: DeploymentCondition) {
    if let Some(present) = find(all, next.type_.as_deref().unwrap_or_default()) {
        if present.status == next.status && present.reason == next.reason {
            return;
        }
        if present.status == next.status {
            next.last_transition_time
                .clone_from(&present.last_transition_time);
        }
    }
    remove(all, next.type_.as_deref().unwrap_or_default());
    all.push(next);
}

fn remove(all: &mut Vec<DeploymentCondition>, kind: &str) {
    all.retain(|condition| condition.type_.as_deref() != Some(kind));
}

fn deadline(d: &Deployment) -> Option<i32> {
    let deadline = d.spec.progress_deadline_seconds.unwrap_or(600);
    (deadline != NO_DEADLINE).then_some(deadline)
}

/// What else happened in the sync that the status tells.
#[derive(Debug, Clone, Default)]
pub(super) struct Happened {
    /// A set of this name has just been created.
    pub(super) created: Option<String>,
    /// The creation of the new set was refused with this message.
    pub(super) refused: Option<String>,
    /// The name of a new set is taken by something else.
    pub(super) collided: bool,
}

/// The status, and when it changes by time alone (the progress deadline).
pub(super) fn status(
    d: &Deployment,
    sets: &Sets,
    happened: &Happened,
    now: Timestamp,
) -> (DeploymentStatus, Option<Duration>) {
    let before = d.status.clone().unwrap_or_default();
    let mut next = counts(d, sets, &before);
    if happened.collided {
        next.collision_count = Some(before.collision_count.unwrap_or(0).saturating_add(1));
    }
    availability(d, &mut next, now);
    failures(sets, happened, &mut next, now);
    let Some(deadline) = deadline(d) else {
        remove(&mut next.conditions, PROGRESSING);
        return (next, None);
    };
    if d.spec.paused == Some(true) {
        pause(&mut next, now);
        return (next, None);
    }
    resume(&mut next, now);
    progress(d, sets, happened, &before, &mut next, deadline, now);
    let wake = wake(&next, deadline, now);
    (next, wake)
}

fn counts(d: &Deployment, sets: &Sets, before: &DeploymentStatus) -> DeploymentStatus {
    let sum = |count: fn(&proto_api::types::apps::v1::ReplicaSetStatus) -> i32| -> i32 {
        sets.all()
            .filter_map(|rs| rs.status.as_ref().map(count))
            .sum()
    };
    let total = sum(|status| status.replicas);
    let available: i32 = sets.all().map(|rs| available(rs)).sum();
    let updated = sets
        .new
        .iter()
        .filter_map(|rs| rs.status.as_ref())
        .map(|s| s.replicas)
        .sum();
    DeploymentStatus {
        observed_generation: d.metadata.generation,
        replicas: Some(total),
        updated_replicas: Some(updated),
        ready_replicas: Some(sum(|status| status.ready_replicas.unwrap_or(0))),
        available_replicas: Some(available),
        unavailable_replicas: Some((total - available).max(0)),
        terminating_replicas: Some(sum(|status| status.terminating_replicas.unwrap_or(0))),
        collision_count: before.collision_count,
        conditions: before.conditions.clone(),
    }
}

fn availability(d: &Deployment, next: &mut DeploymentStatus, now: Timestamp) {
    let minimum = rolling::desired(d) - rolling::bounds(d).unavailable;
    let (status, reason, text) = if next.available_replicas.unwrap_or(0) >= minimum {
        (
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        )
    } else {
        (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    };
    set(
        &mut next.conditions,
        condition(AVAILABLE, status, reason, text.to_owned(), now),
    );
}

/// The newest set's trouble with creating pods, or, without one, an old set's.
fn failures(sets: &Sets, happened: &Happened, next: &mut DeploymentStatus, now: Timestamp) {
    let failing = sets.new.iter().chain(&sets.old).find_map(|rs| {
        let conditions = &rs.status.as_ref()?.conditions;
        let found = conditions
            .iter()
            .find(|c| c.type_.as_deref() == Some(REPLICA_FAILURE))?;
        Some((
            found.reason.clone().unwrap_or_default(),
            found.message.clone().unwrap_or_default(),
        ))
    });
    let refused = happened
        .refused
        .clone()
        .map(|text| ("FailedCreate".to_owned(), text));
    match refused.or(failing) {
        Some((reason, message)) => {
            set(
                &mut next.conditions,
                condition(REPLICA_FAILURE, "True", &reason, message, now),
            );
        }
        None => remove(&mut next.conditions, REPLICA_FAILURE),
    }
}

fn pause(next: &mut DeploymentStatus, now: Timestamp) {
    let timed_out = reason(next) == Some(TIMED_OUT);
    if !timed_out && reason(next) != Some(PAUSED) {
        let text = "Deployment is paused".to_owned();
        set(
            &mut next.conditions,
            condition(PROGRESSING, "Unknown", PAUSED, text, now),
        );
    }
}

fn resume(next: &mut DeploymentStatus, now: Timestamp) {
    if reason(next) == Some(PAUSED) {
        let text = "Deployment is resumed".to_owned();
        set(
            &mut next.conditions,
            condition(PROGRESSING, "Unknown", RESUMED, text, now),
        );
    }
}

fn reason(status: &DeploymentStatus) -> Option<&str> {
    find(&status.conditions, PROGRESSING)?.reason.as_deref()
}

fn is_complete(d: &Deployment, next: &DeploymentStatus) -> bool {
    let desired = Some(rolling::desired(d));
    next.updated_replicas == desired
        && next.replicas == desired
        && next.available_replicas == desired
}

fn has_progressed(before: &DeploymentStatus, next: &DeploymentStatus) -> bool {
    let old = |s: &DeploymentStatus| s.replicas.unwrap_or(0) - s.updated_replicas.unwrap_or(0);
    next.updated_replicas.unwrap_or(0) > before.updated_replicas.unwrap_or(0)
        || old(next) < old(before)
        || next.ready_replicas.unwrap_or(0) > before.ready_replicas.unwrap_or(0)
        || next.available_replicas.unwrap_or(0) > before.available_replicas.unwrap_or(0)
}

fn progress(
    d: &Deployment,
    sets: &Sets,
    happened: &Happened,
    before: &DeploymentStatus,
    next: &mut DeploymentStatus,
    deadline: i32,
    now: Timestamp,
) {
    let what = match &sets.new {
        Some(rs) => format!("ReplicaSet \"{}\"", rs.key.name),
        None => format!(
            "Deployment \"{}\"",
            d.metadata.name.as_deref().unwrap_or_default()
        ),
    };
    let put = |next: &mut DeploymentStatus, status: &str, reason: &str, text: String| {
        set(
            &mut next.conditions,
            condition(PROGRESSING, status, reason, text, now),
        );
    };
    if let Some(text) = &happened.refused {
        return put(next, "False", "ReplicaSetCreateError", text.clone());
    }
    if let Some(name) = &happened.created {
        let text = format!("Created new replica set \"{name}\"");
        return put(next, "True", "NewReplicaSetCreated", text);
    }
    if let (Some(rs), None) = (&sets.new, find(&next.conditions, PROGRESSING)) {
        let text = format!("Found new replica set \"{}\"", rs.key.name);
        put(next, "True", "FoundNewReplicaSet", text);
    }
    let done = next.replicas == next.updated_replicas && reason(next) == Some(COMPLETE);
    if done {
        return;
    }
    if is_complete(d, next) {
        put(
            next,
            "True",
            COMPLETE,
            format!("{what} has successfully progressed."),
        );
    } else if has_progressed(before, next) {
        let text = format!("{what} is progressing.");
        let mut fresh = condition(PROGRESSING, "True", "ReplicaSetUpdated", text, now);
        if let Some(present) = find(&next.conditions, PROGRESSING)
            && present.status.as_deref() == Some("True")
        {
            fresh
                .last_transition_time
                .clone_from(&present.last_transition_time);
        }
        remove(&mut next.conditions, PROGRESSING);
        next.conditions.push(fresh);
    } else if has_timed_out(next, deadline, now) {
        put(
            next,
            "False",
            TIMED_OUT,
            format!("{what} has timed out progressing."),
        );
    }
}

fn has_timed_out(status: &DeploymentStatus, deadline: i32, now: Timestamp) -> bool {
    match find(&status.conditions, PROGRESSING) {
        None => false,
        Some(present) => match present.reason.as_deref() {
            Some(COMPLETE) => false,
            Some(TIMED_OUT) => true,
            Some(_) | None => left(present, deadline, now).is_some_and(|left| left.is_zero()),
        },
    }
}

/// Time until the deadline; zero when it has passed.
fn left(present: &DeploymentCondition, deadline: i32, now: Timestamp) -> Option<Duration> {
    let since = present.last_update_time.as_ref()?.timestamp()?;
    let waited = Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO);
    let deadline = Duration::from_secs(u64::try_from(deadline).unwrap_or(0));
    Some(deadline.saturating_sub(waited))
}

fn wake(next: &DeploymentStatus, deadline: i32, now: Timestamp) -> Option<Duration> {
    let present = find(&next.conditions, PROGRESSING)?;
    match present.reason.as_deref() {
        Some(COMPLETE | TIMED_OUT) => None,
        // A second more, since times in conditions are whole seconds.
        Some(_) | None => Some(left(present, deadline, now)? + Duration::from_secs(1)),
    }
}
