//! From a client to the node that runs the pod: log, exec, attach, portforward, proxy.
//!
//! Owns: the checks before a stream is opened, in the kubelet's words. `logs.rs` streams text;
//! `upgrade.rs` changes the protocol, `*_channels.rs` and `*_spdy.rs` speak the two there are.

mod channel;
mod exec;
mod exec_channels;
mod exec_spdy;
mod forward;
mod forward_channels;
mod forward_spdy;
mod logs;
mod proxy;
mod proxy_target;
mod upgrade;

use serde_json::Value;

#[cfg(feature = "fuzzing")]
pub(crate) use self::channel::read_messages;

use crate::node_streams::{ContainerRef, NodeStreamError};
use crate::server::Target;
use crate::status::{GroupResource, StatusError};
use crate::tree;

/// A pod that has a node, and one of its containers.
#[derive(Debug)]
pub(super) struct Located {
    pub(super) node: String,
    pub(super) container: ContainerRef,
}

const CONTAINER_FIELDS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Finds the container that `name` (empty: the only one) means, and its node.
///
/// # Errors
/// 400: which containers there are, or that the pod has no node yet.
pub(super) fn locate(target: &Target, pod: &Value, name: &str) -> Result<Located, StatusError> {
    let pod_name = &target.key.name;
    let names = |field: &str| -> Vec<&str> {
        tree::list(pod, &["spec", field])
            .iter()
            .map(|c| tree::text(c, &["name"]))
            .collect()
    };
    let name = match (name, names("containers").as_slice()) {
        ("", [only]) => (*only).to_owned(),
        ("", containers) => {
            let mut message = format!(
                "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                containers.join(" ")
            );
            let init = names("initContainers");
            if !init.is_empty() {
                message.push_str(&format!(
                    " or one of the init containers: [{}]",
                    init.join(" ")
                ));
            }
            return Err(StatusError::bad_request(message));
        }
        (name, _) => name.to_owned(),
    };
    if !CONTAINER_FIELDS
        .iter()
        .any(|field| names(field).contains(&name.as_str()))
    {
        let message = format!("container {name} is not valid for pod {pod_name}");
        return Err(StatusError::bad_request(message));
    }
    let node = assigned_node(target, pod)?;
    Ok(Located {
        node: node.to_owned(),
        container: ContainerRef {
            namespace: target.key.namespace.to_string(),
            pod: pod_name.to_string(),
            pod_uid: tree::text(pod, &["metadata", "uid"]).to_owned(),
            container: name,
        },
    })
}

/// The node of a pod.
///
/// # Errors
/// 400: it has none yet.
fn assigned_node<'a>(target: &Target, pod: &'a Value) -> Result<&'a str, StatusError> {
    match tree::text(pod, &["spec", "nodeName"]) {
        "" => Err(StatusError::bad_request(format!(
            "pod {} does not have a host assigned",
            target.key.name
        ))),
        node => Ok(node),
    }
}

/// Whether the container has a log yet, in the kubelet's words when not.
fn check_log(pod: &Value, container: &ContainerRef, previous: bool) -> Result<(), StatusError> {
    let ContainerRef {
        container: name,
        pod: pod_name,
        ..
    } = container;
    let statuses = [
        "containerStatuses",
        "initContainerStatuses",
        "ephemeralContainerStatuses",
    ];
    let status = statuses
        .iter()
        .flat_map(|field| tree::list(pod, &["status", field]))
        .find(|status| tree::text(status, &["name"]) == name);
    let Some(status) = status else {
        let message =
            format!("container \"{name}\" in pod \"{pod_name}\" is waiting to start - no logs yet");
        return Err(StatusError::bad_request(message));
    };
    let ended_before = tree::at(status, &["lastState", "terminated"]).is_object();
    if previous {
        if ended_before {
            return Ok(());
        }
        let message =
            format!("previous terminated container \"{name}\" in pod \"{pod_name}\" not found");
        return Err(StatusError::bad_request(message));
    }
    let waiting = tree::at(status, &["state", "waiting"]);
    if !waiting.is_object() || ended_before {
        return Ok(());
    }
    let why = match tree::text(waiting, &["reason"]) {
        "ErrImagePull" => "image can't be pulled",
        "ImagePullBackOff" => "trying and failing to pull image",
        reason => reason,
    };
    let message = format!("container \"{name}\" in pod \"{pod_name}\" is waiting to start: {why}");
    Err(StatusError::bad_request(message))
}

/// A node's refusal as a Status.
fn node_error(target: &Target, fault: &NodeStreamError) -> StatusError {
    match fault {
        NodeStreamError::NotFound { message } => {
            let gr = GroupResource {
                group: "",
                resource: "pods",
            };
            let mut error = StatusError::not_found(gr, &target.key.name);
            error.message.clone_from(message);
            error
        }
        NodeStreamError::BadRequest { message } => StatusError::bad_request(message.clone()),
        NodeStreamError::NotConnected { .. } => {
            StatusError::internal(format!("error dialing backend: {fault}"))
        }
        NodeStreamError::Failed { .. } => StatusError::internal(fault),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::Registry;

    fn target() -> Target {
        let pods = Registry::default().by_plural("", "v1", "pods").unwrap();
        Target::new(&pods, "d", "p")
    }

    #[test]
    fn a_container_must_be_named_when_there_are_several() {
        let pod = json!({"spec": {"nodeName": "n", "containers": [{"name": "a"}, {"name": "b"}]}});
        let error = locate(&target(), &pod, "").unwrap_err();
        assert_eq!(
            error.message,
            "a container name must be specified for pod p, choose one of: [a b]"
        );
        assert_eq!(
            locate(&target(), &pod, "b").unwrap().container.container,
            "b"
        );
        assert_eq!(
            locate(&target(), &pod, "c").unwrap_err().message,
            "container c is not valid for pod p"
        );
    }

    #[test]
    fn a_container_that_waits_has_no_log() {
        let pod = json!({"status": {"containerStatuses": [
            {"name": "a", "state": {"waiting": {"reason": "ContainerCreating"}}},
            {"name": "b", "state": {"running": {}}}]}});
        let container = |name: &str| ContainerRef {
            namespace: "d".to_owned(),
            pod: "p".to_owned(),
            pod_uid: String::new(),
            container: name.to_owned(),
        };
        assert_eq!(
            check_log(&pod, &container("a"), false).unwrap_err().message,
            "container \"a\" in pod \"p\" is waiting to start: ContainerCreating"
        );
        check_log(&pod, &container("b"), false).unwrap();
        assert_eq!(
            check_log(&pod, &container("b"), true).unwrap_err().message,
            "previous terminated container \"b\" in pod \"p\" not found"
        );
    }
}
