//! Which old ReplicaSets are kept for rollbacks. Pure.

use proto_api::types::apps::v1::Deployment;

use super::annotations;
use super::sets::{Set, replicas};

/// The sets beyond `revisionHistoryLimit`, oldest revision first. A set that still has or wants pods,
/// or whose status is behind, stays.
pub(super) fn surplus(d: &Deployment, old: &[Set]) -> Vec<Set> {
    let limit = d.spec.revision_history_limit.unwrap_or(10);
    let Ok(limit) = usize::try_from(limit) else {
        return Vec::new();
    };
    let mut staying: Vec<&Set> = old
        .iter()
        .filter(|rs| rs.metadata.deletion_timestamp.is_none())
        .collect();
    staying.sort_by_key(|rs| annotations::revision(&rs.metadata.annotations));
    let beyond = staying.len().saturating_sub(limit);
    staying
        .into_iter()
        .take(beyond)
        .filter(|rs| is_idle(rs))
        .cloned()
        .collect()
}

fn is_idle(rs: &Set) -> bool {
    let status = rs.status.as_ref();
    let observed = status.and_then(|status| status.observed_generation);
    replicas(rs) == 0
        && status.is_none_or(|status| status.replicas == 0)
        && rs.metadata.generation <= observed.or(Some(0))
}
