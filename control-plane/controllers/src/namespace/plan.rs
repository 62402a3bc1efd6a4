//! What a terminating namespace's conditions say, and when it may go. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proto_api::types::Time;
use proto_api::types::core::v1::{Namespace, NamespaceCondition};

/// The finalizer that this controller holds on every namespace.
pub(super) const FINALIZER: &str = "kubernetes";

/// What is left of one resource after everything was told to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Left {
    /// `pods.`, `deployments.apps`: resource and group, as messages name it.
    pub(super) resource: String,
    pub(super) count: usize,
    /// Finalizers on what is left, with how many objects hold each.
    pub(super) finalizers: Vec<(String, usize)>,
}

/// Whether the controller has something to do.
pub(super) fn is_terminating(namespace: &Namespace) -> bool {
    let held = namespace.spec.as_ref().is_some_and(|spec| {
        spec.finalizers
            .iter()
            .any(|finalizer| finalizer == FINALIZER)
    });
    namespace.metadata.deletion_timestamp.is_some() && held
}

/// The conditions after a round; `failure`: some content could not be listed or deleted.
pub(super) fn conditions(
    namespace: &Namespace,
    left: &[Left],
    failure: Option<&str>,
    now: Timestamp,
) -> Vec<NamespaceCondition> {
    let deleting =
        failure.map(|text| format!("Failed to delete all resource types, 1 remaining: {text}"));
    STATES
        .iter()
        .map(|state| {
            let message = match state.kind {
                CONTENT_FAILURE => deleting.clone(),
                CONTENT_REMAINING => remaining(left),
                FINALIZERS_REMAINING => finalizers(left),
                _ => None,
            };
            condition(namespace, state, message, now)
        })
        .collect()
}

const CONTENT_FAILURE: &str = "NamespaceDeletionContentFailure";
const CONTENT_REMAINING: &str = "NamespaceContentRemaining";
const FINALIZERS_REMAINING: &str = "NamespaceFinalizersRemaining";

/// A condition's name, its reasons when true and when false, and its message when false.
struct Kind {
    kind: &'static str,
    bad: &'static str,
    good: &'static str,
    message: &'static str,
}

/// Upstream's conditions. Resources are known here, so discovery cannot fail.
const STATES: [Kind; 5] = [
    Kind {
        kind: "NamespaceDeletionDiscoveryFailure",
        bad: "DiscoveryFailed",
        good: "ResourcesDiscovered",
        message: "All resources successfully discovered",
    },
    Kind {
        kind: "NamespaceDeletionGroupVersionParsingFailure",
        bad: "GroupVersionParsingFailed",
        good: "ParsedGroupVersions",
        message: "All legacy kube types successfully parsed",
    },
    Kind {
        kind: CONTENT_FAILURE,
        bad: "ContentDeletionFailed",
        good: "ContentDeleted",
        message: "All content successfully deleted, may be waiting on finalization",
    },
    Kind {
        kind: CONTENT_REMAINING,
        bad: "SomeResourcesRemain",
        good: "ContentRemoved",
        message: "All content successfully removed",
    },
    Kind {
        kind: FINALIZERS_REMAINING,
        bad: "SomeFinalizersRemain",
        good: "ContentHasNoFinalizers",
        message: "All content-preserving finalizers finished",
    },
];

/// A condition that is true with `bad_message`, false without; its transition time stays while its
/// status does.
fn condition(
    namespace: &Namespace,
    state: &Kind,
    bad_message: Option<String>,
    now: Timestamp,
) -> NamespaceCondition {
    let mut present = namespace
        .status
        .iter()
        .flat_map(|status| &status.conditions);
    let status = if bad_message.is_some() {
        "True"
    } else {
        "False"
    };
    let since = present
        .find(|condition| condition.type_ == state.kind && condition.status == status)
        .and_then(|condition| condition.last_transition_time.clone());
    let reason = if bad_message.is_some() {
        state.bad
    } else {
        state.good
    };
    NamespaceCondition {
        type_: state.kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(bad_message.unwrap_or_else(|| state.message.to_owned())),
        last_transition_time: since.or_else(|| Some(Time::from_timestamp(now))),
    }
}

fn remaining(left: &[Left]) -> Option<String> {
    let parts: Vec<String> = left
        .iter()
        .filter(|left| left.count > 0)
        .map(|left| format!("{} has {} resource instances", left.resource, left.count))
        .collect();
    (!parts.is_empty()).then(|| format!("Some resources are remaining: {}", parts.join(", ")))
}

fn finalizers(left: &[Left]) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (finalizer, count) in left.iter().flat_map(|left| &left.finalizers) {
        *counts.entry(finalizer).or_insert(0) += count;
    }
    let parts: Vec<String> = counts
        .into_iter()
        .map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"))
        .collect();
    let text = "Some content in the namespace has finalizers remaining";
    (!parts.is_empty()).then(|| format!("{text}: {}", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_name_what_is_left_and_keep_their_transition_time() {
        let now = Timestamp::from_second(100).expect("in range");
        let left = [Left {
            resource: "pods.".to_owned(),
            count: 2,
            finalizers: vec![("example.com/hold".to_owned(), 1)],
        }];
        let mut namespace = Namespace::default();
        let first = conditions(&namespace, &left, None, now);
        let by = |all: &[NamespaceCondition], kind: &str| {
            all.iter()
                .find(|c| c.type_ == kind)
                .cloned()
                .expect("present")
        };
        let remaining = by(&first, "NamespaceContentRemaining");
        assert_eq!(remaining.status, "True");
        assert_eq!(
            remaining.message.as_deref(),
            Some("Some resources are remaining: pods. has 2 resource instances")
        );
        assert_eq!(
            by(&first, "NamespaceFinalizersRemaining")
                .message
                .as_deref(),
            Some(
                "Some content in the namespace has finalizers remaining: example.com/hold in 1 \
                 resource instances"
            )
        );
        namespace.status = Some(proto_api::types::core::v1::NamespaceStatus {
            conditions: first,
            ..Default::default()
        });
        let later = Timestamp::from_second(200).expect("in range");
        let second = conditions(&namespace, &left, None, later);
        assert_eq!(
            by(&second, "NamespaceContentRemaining").last_transition_time,
            Some(Time::from_timestamp(now))
        );
        let gone = conditions(&namespace, &[], None, later);
        let gone = by(&gone, "NamespaceContentRemaining");
        assert_eq!(
            (gone.status.as_str(), gone.last_transition_time),
            ("False", Some(later.into()))
        );
    }
}
