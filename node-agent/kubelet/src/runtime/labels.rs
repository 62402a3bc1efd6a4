//! The labels and annotations by which the agent finds again what it created.
//!
//! Kubernetes' own keys where there are some, so that crictl and log collectors read them; one key
//! of ours marks ownership: nothing without it is ever touched.

use std::collections::BTreeMap;

use proto::cri::v1 as cri;

pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Name of the node whose agent created the object.
pub(crate) const OWNER: &str = "skep.io/node";

/// Annotation: hash of what a change of which restarts the container.
pub(crate) const SPEC_HASH: &str = "io.kubernetes.container.hash";
/// Annotation: how often the container was restarted before this run.
pub(crate) const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub(crate) const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub(crate) const TERMINATION_MESSAGE_POLICY: &str =
    "io.kubernetes.container.terminationMessagePolicy";
/// Annotation on the sandbox: the pod's grace period in seconds, for pods whose object is gone.
pub(crate) const POD_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";

/// Labels of a pod's sandbox.
pub(crate) fn sandbox(
    node: &str,
    namespace: &str,
    name: &str,
    uid: &str,
) -> BTreeMap<String, String> {
    BTreeMap::from([
        (OWNER.to_owned(), node.to_owned()),
        (POD_NAMESPACE.to_owned(), namespace.to_owned()),
        (POD_NAME.to_owned(), name.to_owned()),
        (POD_UID.to_owned(), uid.to_owned()),
    ])
}

/// Selects everything that this node's agent created for one pod.
pub(crate) fn of_pod(node: &str, uid: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (OWNER.to_owned(), node.to_owned()),
        (POD_UID.to_owned(), uid.to_owned()),
    ])
}

/// Selects everything that this node's agent created.
pub(crate) fn of_node(node: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(OWNER.to_owned(), node.to_owned())])
}

/// The grace period noted on a sandbox, seconds.
pub(crate) fn grace_of(sandbox: &cri::PodSandbox) -> Option<i64> {
    sandbox.annotations.get(POD_GRACE)?.parse().ok()
}
