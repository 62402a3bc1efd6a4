//! A Deployment resized in the middle of a rollout: every active set grows or shrinks in proportion. Pure.

use proto_api::types::apps::v1::{Deployment, ReplicaSet};

use super::sets::replicas;
use super::{annotations, rolling};

/// New size of each of `active` (any order), given in the order they were handed in.
pub(super) fn sizes(d: &Deployment, active: &[&ReplicaSet]) -> Vec<i32> {
    let all: i32 = active.iter().map(|rs| replicas(rs)).sum();
    let desired = rolling::desired(d);
    let allowed = if desired > 0 {
        desired + rolling::bounds(d).surge
    } else {
        0
    };
    let to_add = allowed - all;
    let mut order: Vec<usize> = (0..active.len()).collect();
    // The largest first; of equals the newest when growing, the oldest when shrinking.
    order.sort_by(|a, b| {
        let created = |at: &usize| &active[*at].metadata.creation_timestamp;
        let by_age = created(a).cmp(created(b));
        replicas(active[*b])
            .cmp(&replicas(active[*a]))
            .then(if to_add > 0 { by_age.reverse() } else { by_age })
    });
    let mut next: Vec<i32> = active.iter().map(|rs| replicas(rs)).collect();
    let mut added = 0;
    for at in &order {
        let share = share(d, active[*at], to_add, added);
        next[*at] += share;
        added += share;
    }
    if let Some(largest) = order.first() {
        next[*largest] = (next[*largest] + to_add - added).max(0);
    }
    next
}

fn share(d: &Deployment, rs: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    if replicas(rs) == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let fraction = fraction(d, rs);
    let left = to_add - added;
    if to_add > 0 {
        fraction.min(left)
    } else {
        fraction.max(left)
    }
}

/// How much the set changes when it keeps its share of the Deployment's greatest size.
fn fraction(d: &Deployment, rs: &ReplicaSet) -> i32 {
    let desired = rolling::desired(d);
    if desired == 0 {
        return -replicas(rs);
    }
    let greatest = desired + rolling::bounds(d).surge;
    let before = annotations::max_replicas(rs).filter(|max| *max > 0);
    let before = before
        .or_else(|| d.status.as_ref()?.replicas)
        .filter(|count| *count > 0);
    let Some(before) = before else { return 0 };
    let product = i64::from(replicas(rs)) * i64::from(greatest);
    let before = i64::from(before);
    // Rounded to the nearest, halves away from zero; both are positive here.
    let size = (2 * product + before) / (2 * before);
    i32::try_from(size).unwrap_or(i32::MAX) - replicas(rs)
}
