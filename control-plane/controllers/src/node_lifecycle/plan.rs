//! What a node's silence and conditions mean: new conditions, taints. Pure.

use jiff::Timestamp;
use proto_api::types::Time;
use proto_api::types::core::v1::{Node, NodeCondition, Taint};

pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(super) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const NO_SCHEDULE: &str = "NoSchedule";
pub(super) const NO_EXECUTE: &str = "NoExecute";

/// Conditions that a silent node can no longer vouch for.
const VOUCHED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// Condition, its bad status, and the taint that keeps pods away.
const BY_CONDITION: [(&str, &str, &str); 4] = [
    (
        "MemoryPressure",
        "True",
        "node.kubernetes.io/memory-pressure",
    ),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    (
        "NetworkUnavailable",
        "True",
        "node.kubernetes.io/network-unavailable",
    ),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

pub(super) fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status
        .as_ref()?
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind)
}

/// How the node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    NotReady,
    Unknown,
}

pub(super) fn state(node: &Node) -> State {
    match condition(node, "Ready").map(|ready| ready.status.as_str()) {
        Some("True") => State::Ready,
        Some("Unknown") => State::Unknown,
        Some(_) | None => State::NotReady,
    }
}

/// The conditions of a node that has been silent too long; `None` when they say so already.
pub(super) fn silenced(node: &Node, now: Timestamp) -> Option<Vec<NodeCondition>> {
    let present = node
        .status
        .as_ref()
        .map(|status| status.conditions.clone())
        .unwrap_or_default();
    let mut next = present.clone();
    let at = Some(Time::from_timestamp(now));
    for kind in VOUCHED {
        let Some(known) = next.iter_mut().find(|condition| condition.type_ == kind) else {
            next.push(NodeCondition {
                type_: kind.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_transition_time: at.clone(),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
            });
            continue;
        };
        if known.status != "Unknown" {
            "Unknown".clone_into(&mut known.status);
            known.reason = Some("NodeStatusUnknown".to_owned());
            known.message = Some("Kubelet stopped posting node status.".to_owned());
            known.last_transition_time.clone_from(&at);
        }
    }
    (next != present).then_some(next)
}

fn taint(key: &str, effect: &str) -> Taint {
    Taint {
        key: key.to_owned(),
        effect: effect.to_owned(),
        ..Taint::default()
    }
}

/// Taints that follow from the node's conditions. `execute`: pods may be driven off now.
fn wanted(node: &Node, execute: Execute) -> Vec<Taint> {
    let mut taints = Vec::new();
    let trouble = match state(node) {
        State::Ready => None,
        State::NotReady => Some(NOT_READY),
        State::Unknown => Some(UNREACHABLE),
    };
    if let Some(key) = trouble {
        taints.push(taint(key, NO_SCHEDULE));
        let has = |other: &str| {
            present(node)
                .iter()
                .any(|taint| taint.key == other && taint.effect == NO_EXECUTE)
        };
        // Changing from one trouble to the other drives no further pods off.
        if execute == Execute::Allowed || has(NOT_READY) || has(UNREACHABLE) {
            taints.push(taint(key, NO_EXECUTE));
        }
    }
    for (kind, bad, key) in BY_CONDITION {
        if condition(node, kind).is_some_and(|condition| condition.status == bad) {
            taints.push(taint(key, NO_SCHEDULE));
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        taints.push(taint(UNSCHEDULABLE, NO_SCHEDULE));
    }
    taints
}

/// Whether a NoExecute taint may be added now; a zone's budget decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Execute {
    Allowed,
    Deferred,
}

fn present(node: &Node) -> &[Taint] {
    node.spec.as_ref().map_or(&[], |spec| &spec.taints)
}

fn is_managed(taint: &Taint) -> bool {
    let by_condition =
        BY_CONDITION
            .iter()
            .map(|(_, _, key)| *key)
            .chain([NOT_READY, UNREACHABLE, UNSCHEDULABLE]);
    match taint.effect.as_str() {
        NO_SCHEDULE => by_condition.into_iter().any(|key| key == taint.key),
        NO_EXECUTE => taint.key == NOT_READY || taint.key == UNREACHABLE,
        _ => false,
    }
}

/// Whether the node should get a NoExecute taint that it does not have.
pub(super) fn wants_execute(node: &Node) -> bool {
    let has = |key: &str| {
        present(node)
            .iter()
            .any(|taint| taint.key == key && taint.effect == NO_EXECUTE)
    };
    state(node) != State::Ready && !has(NOT_READY) && !has(UNREACHABLE)
}

/// The node's taints after this look; `None` when they are right. Taints of others stay as they are.
pub(super) fn taints(node: &Node, execute: Execute, now: Timestamp) -> Option<Vec<Taint>> {
    let present = present(node);
    let wanted = wanted(node, execute);
    let same = |a: &Taint, b: &Taint| a.key == b.key && a.effect == b.effect;
    let mut next: Vec<Taint> = present
        .iter()
        .filter(|taint| !is_managed(taint) || wanted.iter().any(|other| same(taint, other)))
        .cloned()
        .collect();
    for mut taint in wanted {
        if !next.iter().any(|other| same(other, &taint)) {
            taint.time_added = Some(Time::from_timestamp(now));
            next.push(taint);
        }
    }
    (next != present).then_some(next)
}
