//! What a budget's status must say. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proto_api::types::core::v1::Pod;
use proto_api::types::meta::v1::Condition;
use proto_api::types::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use proto_api::types::{IntOrString, Object as _, Round, Time};

use crate::pods;

/// An evicted pod that is still there after this was not deleted after all.
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_secs(120);
const ALLOWED: &str = "DisruptionAllowed";

/// The new status and what follows from it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    pub(super) status: PodDisruptionBudgetStatus,
    /// When an evicted pod must have gone.
    pub(super) look_again: Option<Duration>,
    /// Pods that were evicted and not deleted.
    pub(super) kept: Vec<String>,
}

/// How many replicas the owners of the pods want together. Asked only by budgets that need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scale {
    Known(i32),
    /// Why it is not known; the budget allows nothing then.
    Unknown(String),
}

/// Whether the budget's count rests on what the pods' owners want.
pub(super) fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    let Some(spec) = &budget.spec else {
        return false;
    };
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// Counts `pods`, all those that the budget selects.
pub(super) fn plan(
    budget: &PodDisruptionBudget,
    pods: &[&Pod],
    scale: Scale,
    now: Timestamp,
) -> Plan {
    let disrupted = disrupted_pods(budget, pods, now);
    let counted = match scale {
        Scale::Unknown(why) => Err(why),
        Scale::Known(scale) => desired(budget, pods.len(), scale),
    };
    let status = match counted {
        Err(why) => failed(budget, &why, now),
        Ok((expected, desired)) => {
            let healthy = healthy(pods, &disrupted.pods);
            // A budget without pods is safe for the first ones that come.
            let allowed = if expected > 0 {
                healthy.saturating_sub(desired).max(0)
            } else {
                0
            };
            let status = PodDisruptionBudgetStatus {
                current_healthy: Some(healthy),
                desired_healthy: Some(desired),
                expected_pods: Some(expected),
                disruptions_allowed: Some(allowed),
                disrupted_pods: disrupted.pods,
                observed_generation: budget.metadata.generation,
                conditions: Vec::new(),
            };
            let (value, reason) = if allowed > 0 {
                ("True", "SufficientPods")
            } else {
                ("False", "InsufficientPods")
            };
            with_condition(budget, status, (value, reason, ""), now)
        }
    };
    Plan {
        status,
        look_again: disrupted.look_again,
        kept: disrupted.kept,
    }
}

/// Expected pods and how many of them must be healthy.
fn desired(budget: &PodDisruptionBudget, pods: usize, scale: i32) -> Result<(i32, i32), String> {
    let spec = budget.spec.as_ref();
    let most = spec.and_then(|spec| spec.max_unavailable.as_ref());
    let least = spec.and_then(|spec| spec.min_available.as_ref());
    let unreadable =
        |value: &IntOrString| format!("invalid value for IntOrString: {value} is no percentage");
    match (most, least) {
        (Some(most), _) => {
            let away = most
                .scaled(scale, Round::Up)
                .ok_or_else(|| unreadable(most))?;
            Ok((scale, scale.saturating_sub(away).max(0)))
        }
        (None, Some(IntOrString::Int(least))) => {
            Ok((i32::try_from(pods).unwrap_or(i32::MAX), *least))
        }
        (None, Some(least)) => {
            let wanted = least.scaled(scale, Round::Up);
            Ok((scale, wanted.ok_or_else(|| unreadable(least))?))
        }
        (None, None) => Ok((0, 0)),
    }
}

#[derive(Debug, Default)]
struct Disrupted {
    pods: BTreeMap<String, Time>,
    look_again: Option<Duration>,
    kept: Vec<String>,
}

/// Of the pods that were evicted those that have not begun to go yet, and still may.
fn disrupted_pods(budget: &PodDisruptionBudget, pods: &[&Pod], now: Timestamp) -> Disrupted {
    let mut result = Disrupted::default();
    let Some(noted) = budget.status.as_ref().map(|status| &status.disrupted_pods) else {
        return result;
    };
    for pod in pods.iter().filter(|pod| !pods::is_terminating(pod)) {
        let Some(since) = noted.get(pod.name()) else {
            continue;
        };
        let left = since
            .timestamp()
            .and_then(|since| since.checked_add(DELETION_TIMEOUT).ok())
            .map(|until| until.duration_since(now))
            .and_then(|left| Duration::try_from(left).ok())
            .filter(|left| !left.is_zero());
        match left {
            Some(left) => {
                result.pods.insert(pod.name().to_owned(), since.clone());
                let earlier = result.look_again.map_or(left, |earlier| earlier.min(left));
                result.look_again = Some(earlier);
            }
            None => result.kept.push(pod.name().to_owned()),
        }
    }
    result
}

fn healthy(pods: &[&Pod], disrupted: &BTreeMap<String, Time>) -> i32 {
    let counted = pods.iter().filter(|pod| {
        !pods::is_terminating(pod) && !disrupted.contains_key(pod.name()) && pods::is_ready(pod)
    });
    i32::try_from(counted.count()).unwrap_or(i32::MAX)
}

/// What cannot be counted allows nothing.
fn failed(budget: &PodDisruptionBudget, why: &str, now: Timestamp) -> PodDisruptionBudgetStatus {
    let status = PodDisruptionBudgetStatus {
        disruptions_allowed: Some(0),
        ..budget.status.clone().unwrap_or_default()
    };
    with_condition(budget, status, ("False", "SyncFailed", why), now)
}

fn with_condition(
    budget: &PodDisruptionBudget,
    mut status: PodDisruptionBudgetStatus,
    (value, reason, message): (&str, &str, &str),
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let before = budget.status.as_ref().map(|status| &status.conditions);
    let mut conditions = before.cloned().unwrap_or_default();
    let known = conditions.iter().find(|c| c.type_ == ALLOWED);
    let since = known
        .filter(|known| known.status == value)
        .map(|known| known.last_transition_time.clone());
    let condition = Condition {
        type_: ALLOWED.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: status.observed_generation,
        last_transition_time: since.unwrap_or_else(|| Time::from(now)),
    };
    match conditions.iter_mut().find(|c| c.type_ == ALLOWED) {
        Some(place) => *place = condition,
        None => conditions.push(condition),
    }
    status.conditions = conditions;
    status
}
