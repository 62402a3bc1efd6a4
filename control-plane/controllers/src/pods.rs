//! What controllers ask of a pod: is it active, ready, available.

use std::time::Duration;

use jiff::Timestamp;
use proto_api::types::core::v1::{Pod, PodCondition};

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("Pending")
}

/// Whether its containers have ended for good.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

pub(crate) fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether it counts as a replica.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_terminating(pod)
}

pub(crate) fn condition<'a>(pod: &'a Pod, name: &str) -> Option<&'a PodCondition> {
    pod.status
        .as_ref()?
        .conditions
        .iter()
        .find(|condition| condition.type_ == name)
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// When it became ready; `None` when it is not.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "True")?;
    ready.last_transition_time.as_ref()?.timestamp()
}

/// How much longer a ready pod must stay ready to be available; zero when it is. `None`: not ready.
pub(crate) fn until_available(pod: &Pod, min_ready_s: i32, now: Timestamp) -> Option<Duration> {
    if !is_ready(pod) {
        return None;
    }
    let min_ready = Duration::from_secs(u64::try_from(min_ready_s).unwrap_or(0));
    if min_ready.is_zero() {
        return Some(Duration::ZERO);
    }
    let since = ready_since(pod)?;
    let ready_for = Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO);
    Some(min_ready.saturating_sub(ready_for))
}

pub(crate) fn node_name(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .unwrap_or_default()
}
