//! In-place resize: what running containers have, what they should have, and what users read of it.
//! Pure.

use std::collections::BTreeMap;

use proto_api::types::Quantity;
use proto_api::types::core::v1::{Container, PodStatus, ResourceRequirements};

use super::action::{Action, StopReason};
use super::keep::stop;
use super::memory::Memory;
use super::model;
use super::observed::{ObservedContainer, RunState};
use super::step::{Decision, Facts, call};

const PENDING: &str = "PodResizePending";
const IN_PROGRESS: &str = "PodResizeInProgress";
/// Conditions that hold only while they have something to say.
pub(super) const CONDITIONS: [&str; 2] = [PENDING, IN_PROGRESS];

/// A condition that holds: type, reason, message.
pub(super) type Told = (&'static str, Option<&'static str>, Option<String>);

/// CPU (thousandths) and memory (bytes) of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Amounts {
    cpu_request: Option<i64>,
    cpu_limit: Option<i64>,
    memory_request: Option<i64>,
    memory_limit: Option<i64>,
}

impl Amounts {
    fn of(resources: Option<&ResourceRequirements>) -> Self {
        let milli = |map: &BTreeMap<String, Quantity>| {
            let quantity = map.get("cpu");
            quantity.and_then(Quantity::milli_value)
        };
        let bytes = |map: &BTreeMap<String, Quantity>| {
            let quantity = map.get("memory");
            quantity.and_then(Quantity::value)
        };
        resources.map_or_else(Self::default, |resources| Self {
            cpu_request: milli(&resources.requests),
            cpu_limit: milli(&resources.limits),
            memory_request: bytes(&resources.requests),
            memory_limit: bytes(&resources.limits),
        })
    }

    /// Whether going from `self` to `to` needs a new start, by the container's policy.
    fn restarts(self, to: Self, container: &Container) -> bool {
        let policy = |name: &str| {
            let mut policies = container.resize_policy.iter();
            let found = policies.find(|policy| policy.resource_name == name);
            found.is_some_and(|policy| policy.restart_policy == "RestartContainer")
        };
        let cpu = (self.cpu_request, self.cpu_limit) != (to.cpu_request, to.cpu_limit);
        let memory =
            (self.memory_request, self.memory_limit) != (to.memory_request, to.memory_limit);
        (cpu && policy("cpu")) || (memory && policy("memory"))
    }
}

/// Brings what running containers have closer to their spec.
pub(super) fn resize(
    facts: &Facts<'_>,
    memory: &mut Memory,
    previous: &PodStatus,
    decision: &mut Decision,
) {
    forget_gone(facts, memory);
    if memory.termination.is_some() {
        return;
    }
    let excess = infeasible(facts).is_some();
    for (_, container) in model::containers(facts.target.spec()) {
        let newest = facts.observed.newest(&container.name);
        let Some(active) = newest.filter(|active| active.state == RunState::Running) else {
            continue;
        };
        let wanted = Amounts::of(container.resources.as_deref());
        let given = *memory
            .amounts
            .entry(active.id.clone())
            .or_insert_with(|| reported(previous, &active.id).unwrap_or(wanted));
        let busy = memory.is_starting(&container.name) || memory.stopping.contains_key(&active.id);
        if given == wanted || excess || busy {
            continue;
        }
        if given.restarts(wanted, container) {
            let why = StopReason::Resized;
            stop(facts, container, active, why, memory, decision);
            continue;
        }
        let action = Action::ResizeContainer {
            id: active.id.clone(),
            container: container.name.clone(),
            amounts: wanted,
        };
        call(&active.id, action, memory, facts.now, decision);
    }
}

fn forget_gone(facts: &Facts<'_>, memory: &mut Memory) {
    let known = |id: &String| facts.observed.containers.iter().any(|c| c.id == *id);
    memory.amounts.retain(|id, _| known(id));
    memory.resize_errors.retain(|id, _| known(id));
}

/// What an earlier life of this agent reported of a container.
fn reported(previous: &PodStatus, id: &str) -> Option<Amounts> {
    let resources = reported_resources(previous, id)?;
    Some(Amounts::of(Some(resources)))
}

fn reported_resources<'a>(previous: &'a PodStatus, id: &str) -> Option<&'a ResourceRequirements> {
    let mut all = previous
        .container_statuses
        .iter()
        .chain(&previous.init_container_statuses);
    let status = all.find(|status| {
        let reported = status.container_id.as_deref().unwrap_or_default();
        reported.strip_prefix("containerd://") == Some(id)
    })?;
    status.resources.as_deref()
}

/// Why the node can never give what the pod asks for.
fn infeasible(facts: &Facts<'_>) -> Option<String> {
    let mut cpu = 0_i64;
    let mut bytes = 0_i64;
    for container in &facts.target.spec().containers {
        let amounts = Amounts::of(container.resources.as_deref());
        cpu = cpu.saturating_add(amounts.cpu_request.unwrap_or(0));
        bytes = bytes.saturating_add(amounts.memory_request.unwrap_or(0));
    }
    let capacity = facts.policy.capacity;
    for (name, asked, there) in [
        ("cpu", cpu, capacity.cpu_milli),
        ("memory", bytes, capacity.memory_bytes),
    ] {
        if asked > there {
            return Some(format!(
                "Node didn't have enough capacity: {name}, requested: {asked}, capacity: {there}"
            ));
        }
    }
    None
}

/// The condition about a resize that is not done.
pub(super) fn told(facts: &Facts<'_>, memory: &Memory) -> Option<Told> {
    let mut behind = model::containers(facts.target.spec()).filter_map(|(_, container)| {
        let newest = facts.observed.newest(&container.name)?;
        let given = memory.amounts.get(&newest.id)?;
        let wanted = Amounts::of(container.resources.as_deref());
        (newest.state == RunState::Running && *given != wanted).then_some(newest)
    });
    let first = behind.next()?;
    if let Some(message) = infeasible(facts) {
        return Some((PENDING, Some("Infeasible"), Some(message)));
    }
    match memory.resize_errors.get(&first.id) {
        Some(error) => Some((IN_PROGRESS, Some("Error"), Some(error.clone()))),
        None => Some((IN_PROGRESS, None, None)),
    }
}

/// What a container's status shows: what it was promised, and what it has.
pub(super) fn shown(
    memory: &Memory,
    previous: &PodStatus,
    container: &ObservedContainer,
    wanted: Option<Box<ResourceRequirements>>,
) -> (
    BTreeMap<String, Quantity>,
    Option<Box<ResourceRequirements>>,
) {
    let requests = |resources: Option<&ResourceRequirements>| {
        resources
            .map(|resources| resources.requests.clone())
            .unwrap_or_default()
    };
    let given = memory.amounts.get(&container.id);
    let has = match given {
        Some(given) if *given != Amounts::of(wanted.as_deref()) => {
            reported_resources(previous, &container.id)
                .cloned()
                .map(Box::new)
        }
        _ => wanted,
    };
    (requests(has.as_deref()), has)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(
        clippy::needless_pass_by_value,
        reason = "what json! makes is given away"
    )]
    fn container(resources: serde_json::Value, policy: &str) -> Container {
        serde_json::from_value(
            json!({"name": "a", "resources": resources, "resizePolicy": [
            {"resourceName": "memory", "restartPolicy": policy}]}),
        )
        .unwrap()
    }

    #[test]
    fn a_policy_decides_which_change_needs_a_start() {
        let amounts = |cpu: &str, memory: &str| {
            let resources = json!({"requests": {"cpu": cpu, "memory": memory}});
            Amounts::of(container(resources, "").resources.as_deref())
        };
        let before = amounts("100m", "1Mi");
        let restarts = |to, policy| before.restarts(to, &container(json!({}), policy));
        assert!(!restarts(amounts("200m", "1Mi"), "RestartContainer"));
        assert!(restarts(amounts("100m", "2Mi"), "RestartContainer"));
        assert!(!restarts(amounts("100m", "2Mi"), "NotRequired"));
    }

    #[test]
    fn amounts_compare_by_value() {
        let of = |cpu: &str| {
            Amounts::of(
                container(json!({"limits": {"cpu": cpu}}), "")
                    .resources
                    .as_deref(),
            )
        };
        assert_eq!(of("1"), of("1000m"));
        assert_ne!(of("1"), of("1001m"));
        assert_eq!(Amounts::of(None), Amounts::default());
    }
}
