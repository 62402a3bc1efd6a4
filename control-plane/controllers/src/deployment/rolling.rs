//! The arithmetic of a rolling update: how much the new set may grow, how much the old may shrink. Pure.

use proto_api::types::Round;
use proto_api::types::apps::v1::{Deployment, ReplicaSet};

use super::sets::{available, replicas};

/// What a rollout may add and take away at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) surge: i32,
    pub(super) unavailable: i32,
}

pub(super) fn desired(d: &Deployment) -> i32 {
    d.spec.replicas.unwrap_or(1)
}

pub(super) fn is_recreate(d: &Deployment) -> bool {
    d.spec.strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("Recreate")
}

/// maxSurge rounded up, maxUnavailable rounded down; both zero would stand still, so one may be
/// unavailable. Recreate has neither.
pub(super) fn bounds(d: &Deployment) -> Bounds {
    let desired = desired(d);
    if is_recreate(d) {
        return Bounds {
            surge: 0,
            unavailable: 0,
        };
    }
    let rolling = d
        .spec
        .strategy
        .as_ref()
        .and_then(|s| s.rolling_update.as_ref());
    let scaled = |value: Option<&proto_api::types::IntOrString>, round| {
        let quarter = proto_api::types::IntOrString::String("25%".to_owned());
        value
            .unwrap_or(&quarter)
            .scaled(desired, round)
            .unwrap_or(0)
            .max(0)
    };
    let surge = scaled(rolling.and_then(|r| r.max_surge.as_ref()), Round::Up);
    let unavailable = scaled(
        rolling.and_then(|r| r.max_unavailable.as_ref()),
        Round::Down,
    );
    let unavailable = if surge == 0 && unavailable == 0 {
        1
    } else {
        unavailable
    };
    Bounds {
        surge,
        unavailable: unavailable.min(desired.max(0)),
    }
}

/// The size of the new set in this step.
pub(super) fn new_set_size(d: &Deployment, new_size: i32, all_sizes: i32) -> i32 {
    let desired = desired(d);
    if is_recreate(d) || new_size >= desired {
        return desired;
    }
    let max_total = desired + bounds(d).surge;
    if all_sizes >= max_total {
        return new_size;
    }
    new_size + (max_total - all_sizes).min(desired - new_size)
}

/// New sizes of the old sets (in order of creation, as given): unhealthy pods go first, then as many
/// as keep the minimum available. Only sets that change are named, by index.
pub(super) fn shrink_old(
    d: &Deployment,
    new_set: &ReplicaSet,
    old_sets: &[&ReplicaSet],
) -> Vec<(usize, i32)> {
    let mut sizes: Vec<i32> = old_sets.iter().map(|rs| replicas(rs)).collect();
    let min_available = desired(d) - bounds(d).unavailable;
    let all = sizes.iter().sum::<i32>() + replicas(new_set);
    let new_unavailable = (replicas(new_set) - available(new_set)).max(0);
    let budget = all - min_available - new_unavailable;
    if budget <= 0 {
        return Vec::new();
    }
    let mut cleaned = 0;
    for (size, rs) in sizes.iter_mut().zip(old_sets) {
        let unhealthy = (*size - available(rs)).max(0).min(budget - cleaned);
        *size -= unhealthy;
        cleaned += unhealthy;
    }
    let available_now = available(new_set) + old_sets.iter().map(|rs| available(rs)).sum::<i32>();
    let mut left = (available_now - min_available).max(0);
    for size in &mut sizes {
        let goes = (*size).min(left);
        *size -= goes;
        left -= goes;
    }
    sizes
        .into_iter()
        .enumerate()
        .filter(|(at, size)| *size != replicas(old_sets[*at]))
        .collect()
}
