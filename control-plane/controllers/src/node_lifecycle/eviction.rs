//! When a pod must leave a tainted node. Pure.

use std::time::Duration;

use jiff::Timestamp;
use proto_api::types::Time;
use proto_api::types::core::v1::{Pod, Taint, Toleration};

use super::plan::{NO_EXECUTE, NOT_READY, UNREACHABLE};

/// How long a pod that says nothing about it stays on a node in trouble. The API server writes this
/// toleration into new pods; a pod without it (made before, or by other means) is treated alike.
const DEFAULT_STAY: Duration = Duration::from_secs(300);

pub(super) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if !(effect.is_empty() || effect == taint.effect) || !(key.is_empty() || key == taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "Equal" | "" => {
            !key.is_empty()
                && toleration.value.as_deref().unwrap_or_default()
                    == taint.value.as_deref().unwrap_or_default()
        }
        _ => false,
    }
}

/// When a pod must go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stay {
    /// For this much longer; zero: not at all.
    For(Duration),
    /// As long as it likes.
    Forever,
}

/// How much longer `pod` may stay with these taints.
pub(super) fn stay(pod: &Pod, taints: &[Taint], now: Timestamp) -> Stay {
    let tolerations = pod.spec.as_ref().map_or(&[][..], |spec| &spec.tolerations);
    taints
        .iter()
        .filter(|taint| taint.effect == NO_EXECUTE)
        .map(|taint| stay_with(tolerations, taint, now))
        .min()
        .unwrap_or(Stay::Forever)
}

fn stay_with(tolerations: &[Toleration], taint: &Taint, now: Timestamp) -> Stay {
    let mut tolerating = tolerations
        .iter()
        .filter(|t| tolerates(t, taint))
        .peekable();
    let by_default = taint.key == NOT_READY || taint.key == UNREACHABLE;
    if tolerating.peek().is_none() {
        return if by_default {
            left(taint, DEFAULT_STAY, now)
        } else {
            Stay::For(Duration::ZERO)
        };
    }
    // The shortest of the times given; no time given at all means forever.
    let shortest = tolerating
        .filter_map(|toleration| toleration.toleration_seconds)
        .min();
    match shortest {
        None => Stay::Forever,
        Some(seconds) => left(
            taint,
            Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
            now,
        ),
    }
}

fn left(taint: &Taint, allowed: Duration, now: Timestamp) -> Stay {
    let since = taint
        .time_added
        .as_ref()
        .and_then(Time::timestamp)
        .unwrap_or(now);
    let passed = Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO);
    Stay::For(allowed.saturating_sub(passed))
}
