//! What a terminating namespace's conditions say, and when it may go. Pure.

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
    let content: Vec<String> = left
        .iter()
        .filter(|left| left.count > 0)
        .map(|left| format!("{} has {} resource instances", left.resource, left.count))
        .collect();
    let mut finalizers: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    for (finalizer, count) in left.iter().flat_map(|left| &left.finalizers) {
        *finalizers.entry(finalizer).or_insert(0) += count;
    }
    let finalizers: Vec<String> = finalizers
        .into_iter()
        .map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"))
        .collect();
    let state = |kind: &str, bad: bool, reason: (&str, &str), message: (String, &str)| {
        let present = namespace
            .status
            .iter()
            .flat_map(|status| &status.conditions);
        let present = present
            .into_iter()
            .find(|condition| condition.type_ == kind);
        let status = if bad { "True" } else { "False" };
        let since = present
            .filter(|condition| condition.status == status)
            .and_then(|condition| condition.last_transition_time.clone());
        NamespaceCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(if bad { reason.0 } else { reason.1 }.to_owned()),
            message: Some(if bad { message.0 } else { message.1.to_owned() }),
            last_transition_time: since.or_else(|| Some(Time::from_timestamp(now))),
        }
    };
    let deleting =
        failure.map(|text| format!("Failed to delete all resource types, 1 remaining: {text}"));
    vec![
        state(
            "NamespaceDeletionDiscoveryFailure",
            false,
            ("DiscoveryFailed", "ResourcesDiscovered"),
            (String::new(), "All resources successfully discovered"),
        ),
        state(
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            ("GroupVersionParsingFailed", "ParsedGroupVersions"),
            (String::new(), "All legacy kube types successfully parsed"),
        ),
        state(
            "NamespaceDeletionContentFailure",
            deleting.is_some(),
            ("ContentDeletionFailed", "ContentDeleted"),
            (
                deleting.unwrap_or_default(),
                "All content successfully deleted, may be waiting on finalization",
            ),
        ),
        state(
            "NamespaceContentRemaining",
            !content.is_empty(),
            ("SomeResourcesRemain", "ContentRemoved"),
            (
                format!("Some resources are remaining: {}", content.join(", ")),
                "All content successfully removed",
            ),
        ),
        state(
            "NamespaceFinalizersRemaining",
            !finalizers.is_empty(),
            ("SomeFinalizersRemain", "ContentHasNoFinalizers"),
            (
                format!(
                    "Some content in the namespace has finalizers remaining: {}",
                    finalizers.join(", ")
                ),
                "All content-preserving finalizers finished",
            ),
        ),
    ]
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
