//! The annotations by which a rollout remembers: revision, history, desired and greatest size.

use std::collections::BTreeMap;

use proto_api::types::apps::v1::{Deployment, ReplicaSet};

use super::rolling;

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Longest history kept, in bytes.
const HISTORY_MAX: usize = 2000;

/// Annotations of a Deployment that are not its sets' business.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

type Annotations = BTreeMap<String, String>;

pub(super) fn revision(annotations: &Annotations) -> i64 {
    annotations
        .get(REVISION)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// The Deployment's size when the set was last written; differs after a scaling.
pub(super) fn desired_replicas(rs: &ReplicaSet) -> Option<i32> {
    rs.metadata.annotations.get(DESIRED_REPLICAS)?.parse().ok()
}

/// The Deployment's size with surge when the set was last written.
pub(super) fn max_replicas(rs: &ReplicaSet) -> Option<i32> {
    rs.metadata.annotations.get(MAX_REPLICAS)?.parse().ok()
}

/// The sizes that a set of `d` must remember now.
pub(super) fn sizes(d: &Deployment) -> [(&'static str, String); 2] {
    let desired = rolling::desired(d);
    let max = desired + rolling::bounds(d).surge;
    [
        (DESIRED_REPLICAS, desired.to_string()),
        (MAX_REPLICAS, max.to_string()),
    ]
}

/// The annotations of the newest set: the Deployment's, its revision, and the revisions it had before
/// (a rollback brings an old set back under a new number).
pub(super) fn of_new_set(d: &Deployment, present: &Annotations, new_revision: i64) -> Annotations {
    let mut next = present.clone();
    for (key, value) in &d.metadata.annotations {
        if !NOT_COPIED.contains(&key.as_str()) {
            next.insert(key.clone(), value.clone());
        }
    }
    let old_revision = revision(present);
    if old_revision < new_revision {
        next.insert(REVISION.to_owned(), new_revision.to_string());
        if old_revision > 0 {
            let history = history(present.get(REVISION_HISTORY), old_revision);
            next.insert(REVISION_HISTORY.to_owned(), history);
        }
    }
    for (key, value) in sizes(d) {
        next.insert(key.to_owned(), value);
    }
    next
}

fn history(present: Option<&String>, old_revision: i64) -> String {
    let mut all: Vec<String> = present
        .into_iter()
        .flat_map(|history| history.split(','))
        .filter(|entry| !entry.is_empty())
        .map(str::to_owned)
        .collect();
    all.push(old_revision.to_string());
    while all.iter().map(|entry| entry.len() + 1).sum::<usize>() > HISTORY_MAX {
        all.remove(0);
    }
    all.join(",")
}
