//! How many pods a ReplicaSet adds or removes, which ones, and what its status says. Pure.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::time::Duration;

use control_plane_client::{Cached, Snapshot};
use jiff::Timestamp;
use proto_api::types::Time;
use proto_api::types::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use proto_api::types::core::v1::Pod;
use std::sync::Arc;

use crate::{owner, pods};

/// Pods created or deleted in one sync at most.
pub(super) const BURST: usize = 500;
/// Orders pods of equal rank: a lower cost goes first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What to do about the number of pods.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Nothing,
    Create(usize),
    Delete(Vec<Arc<Cached<Pod>>>),
}

pub(super) fn desired(rs: &ReplicaSet) -> usize {
    usize::try_from(rs.spec.replicas.unwrap_or(1)).unwrap_or(0)
}

/// Compares the active pods among `claimed` with what is asked for. `related` counts, by node, the
/// active pods of this set and its siblings (sets of the same owner).
pub(super) fn change(
    rs: &ReplicaSet,
    claimed: &[Arc<Cached<Pod>>],
    related: &HashMap<String, usize>,
    now: Timestamp,
) -> Change {
    if rs.metadata.deletion_timestamp.is_some() {
        return Change::Nothing;
    }
    let active: Vec<_> = claimed.iter().filter(|pod| pods::is_active(pod)).collect();
    let desired = desired(rs);
    match active.len().cmp(&desired) {
        Ordering::Equal => Change::Nothing,
        Ordering::Less => Change::Create((desired - active.len()).min(BURST)),
        Ordering::Greater => {
            let surplus = active.len() - desired;
            let mut ranked: Vec<_> = active
                .into_iter()
                .map(|pod| (Rank::of(pod, related, now), pod))
                .collect();
            ranked.sort_by(|(a, _), (b, _)| a.cmp(b));
            let goes = ranked.into_iter().take(surplus.min(BURST));
            Change::Delete(goes.map(|(_, pod)| Arc::clone(pod)).collect())
        }
    }
}

/// The order in which pods go: the smallest first. Fields in order of weight.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    assigned: bool,
    phase: u8,
    ready: bool,
    cost: i32,
    doubled_up: Reverse<usize>,
    /// Ready for less long goes first, in steps of doubling age.
    ready_age: u32,
    restarts: Reverse<i32>,
    /// Younger goes first, in steps of doubling age.
    age: u32,
    uid: String,
}

impl Rank {
    fn of(pod: &Pod, related: &HashMap<String, usize>, now: Timestamp) -> Self {
        let node = pods::node_name(pod);
        let status = pod.status.as_ref();
        let cost = pod.metadata.annotations.get(DELETION_COST);
        let created = pod
            .metadata
            .creation_timestamp
            .as_ref()
            .and_then(Time::timestamp);
        Self {
            assigned: !node.is_empty(),
            phase: match pods::phase(pod) {
                "Pending" => 0,
                "Running" => 2,
                _ => 1,
            },
            ready: pods::is_ready(pod),
            cost: cost.and_then(|cost| cost.parse().ok()).unwrap_or(0),
            doubled_up: Reverse(related.get(node).copied().unwrap_or(0)),
            ready_age: log2_age(pods::ready_since(pod), now),
            restarts: Reverse(status.map_or(0, |status| {
                status
                    .container_statuses
                    .iter()
                    .map(|c| c.restart_count)
                    .max()
                    .unwrap_or(0)
            })),
            age: log2_age(created, now),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
        }
    }
}

/// Bucket of an age: pods of about the same age count as equally old, so that scaling down does not
/// always take the same failure domain.
fn log2_age(since: Option<Timestamp>, now: Timestamp) -> u32 {
    let age = since.map_or(0, |since| now.duration_since(since).as_nanos());
    u128::try_from(age)
        .ok()
        .filter(|age| *age > 0)
        .map_or(0, u128::ilog2)
}

/// Active pods by node of every set that shares this set's controller, itself included.
pub(super) fn related_by_node(
    rs: &Cached<ReplicaSet>,
    sets: &Snapshot<ReplicaSet>,
    pods: &Snapshot<Pod>,
) -> HashMap<String, usize> {
    let mut by_node = HashMap::new();
    let mut count = |uid: &str| {
        for pod in pods.owned_by(uid).filter(|pod| pods::is_active(pod)) {
            *by_node.entry(pods::node_name(pod).to_owned()).or_insert(0) += 1;
        }
    };
    match owner::controller_uid(&rs.metadata) {
        "" => count(rs.metadata.uid.as_deref().unwrap_or_default()),
        owner_uid => sets
            .owned_by(owner_uid)
            .for_each(|sibling| count(sibling.metadata.uid.as_deref().unwrap_or_default())),
    }
    by_node
}

/// The status that `claimed` gives, and when it changes by time alone.
pub(super) fn status(
    rs: &ReplicaSet,
    claimed: &[Arc<Cached<Pod>>],
    failure: Option<&str>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    let template_labels = rs
        .spec
        .template
        .as_ref()
        .map(|template| &template.metadata.labels);
    let min_ready = rs.spec.min_ready_seconds.unwrap_or(0);
    let mut next = ReplicaSetStatus {
        observed_generation: rs.metadata.generation,
        conditions: conditions(rs, failure, now),
        ..ReplicaSetStatus::default()
    };
    let (mut labeled, mut ready, mut available, mut terminating) = (0, 0, 0, 0);
    let mut wake: Option<Duration> = None;
    for pod in claimed {
        if pods::is_terminating(pod) {
            terminating += i32::from(!pods::is_terminal(pod));
            continue;
        }
        if pods::is_terminal(pod) {
            continue;
        }
        next.replicas += 1;
        labeled += i32::from(template_labels.is_some_and(|labels| {
            labels
                .iter()
                .all(|(key, value)| pod.metadata.labels.get(key) == Some(value))
        }));
        match pods::until_available(pod, min_ready, now) {
            None => {}
            Some(Duration::ZERO) => {
                ready += 1;
                available += 1;
            }
            Some(left) => {
                ready += 1;
                wake = Some(wake.map_or(left, |wake| wake.min(left)));
            }
        }
    }
    next.fully_labeled_replicas = Some(labeled);
    next.ready_replicas = Some(ready);
    next.available_replicas = Some(available);
    next.terminating_replicas = Some(terminating);
    (next, wake)
}

fn conditions(rs: &ReplicaSet, failure: Option<&str>, now: Timestamp) -> Vec<ReplicaSetCondition> {
    let present = rs.status.iter().flat_map(|status| &status.conditions);
    let (mut failures, mut others): (Vec<_>, Vec<_>) = present
        .cloned()
        .partition(|condition| condition.type_.as_deref() == Some("ReplicaFailure"));
    if let Some(message) = failure {
        let since = failures
            .pop()
            .and_then(|condition| condition.last_transition_time);
        others.push(ReplicaSetCondition {
            type_: Some("ReplicaFailure".to_owned()),
            status: Some("True".to_owned()),
            reason: Some("FailedCreate".to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: since.or_else(|| Some(Time::from_timestamp(now))),
        });
    }
    others
}

/// Whether two statuses say the same.
pub(super) fn same(a: &ReplicaSetStatus, b: &ReplicaSetStatus) -> bool {
    let counts = |s: &ReplicaSetStatus| {
        [
            Some(s.replicas),
            s.fully_labeled_replicas,
            s.ready_replicas,
            s.available_replicas,
            s.terminating_replicas,
        ]
        .map(|count| count.unwrap_or(0))
    };
    counts(a) == counts(b)
        && a.observed_generation == b.observed_generation
        && a.conditions == b.conditions
}
