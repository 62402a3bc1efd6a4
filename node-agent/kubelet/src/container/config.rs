//! One container's configuration: command, environment, mounts, resources, security. Pure.

use std::collections::HashMap;

use proto::cri::v1 as cri;
use proto_api::types::Object as _;
use proto_api::types::core::v1::{Container, Pod, VolumeMount};

use super::env::{Environment, expand, expand_all};
use super::{ConfigError, resources, security};
use crate::pod::action::StartContainer;
use crate::pod::model;
use crate::runtime::labels;

const TERMINATION_LOG: &str = "/dev/termination-log";

/// What a container needs beside its spec.
#[derive(Debug)]
pub(crate) struct ContainerContext<'a> {
    pub(crate) node: &'a str,
    pub(crate) environment: Environment,
    /// Host path of each volume, and whether its content is read-only.
    pub(crate) mounts: Vec<cri::Mount>,
    /// Bytes of memory of the node.
    pub(crate) memory_capacity: i64,
    /// Path of the container's log, relative to the pod's log directory.
    pub(crate) log_path: String,
}

/// The configuration of one start.
pub(crate) fn container_config(
    pod: &Pod,
    container: &Container,
    start: &StartContainer,
    context: ContainerContext<'_>,
) -> cri::ContainerConfig {
    let spec = model::spec(pod);
    let annotations = HashMap::from([
        (labels::SPEC_HASH.to_owned(), model::spec_hash(container)),
        (
            labels::RESTART_COUNT.to_owned(),
            start.restart_count.to_string(),
        ),
        (
            labels::TERMINATION_MESSAGE_PATH.to_owned(),
            termination_path(container).to_owned(),
        ),
        (
            labels::TERMINATION_MESSAGE_POLICY.to_owned(),
            container
                .termination_message_policy
                .clone()
                .unwrap_or_default(),
        ),
    ]);
    let mut own = labels::sandbox(context.node, pod.namespace(), pod.name(), pod.uid());
    own.insert(labels::CONTAINER_NAME.to_owned(), container.name.clone());
    let environment = &context.environment;
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata {
            name: container.name.clone(),
            attempt: start.attempt,
        }),
        image: Some(cri::ImageSpec {
            image: start.image_ref.clone(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..cri::ImageSpec::default()
        }),
        command: expand_all(&container.command, environment),
        args: expand_all(&container.args, environment),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: environment
            .iter()
            .map(|(key, value)| cri::KeyValue {
                key: key.clone(),
                value: value.clone(),
            })
            .collect(),
        mounts: context.mounts,
        labels: own.into_iter().collect(),
        annotations,
        log_path: context.log_path,
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources::container_resources(
                spec,
                container,
                context.memory_capacity,
            )),
            security_context: Some(security::container(spec, container)),
        }),
        ..cri::ContainerConfig::default()
    }
}

/// Where the container may leave a last word.
pub(crate) fn termination_path(container: &Container) -> &str {
    container
        .termination_message_path
        .as_deref()
        .filter(|p| !p.is_empty())
        .unwrap_or(TERMINATION_LOG)
}

/// The sub path of a mount with variables expanded, checked to stay inside the volume.
pub(crate) fn sub_path(
    mount: &VolumeMount,
    environment: &Environment,
) -> Result<Option<String>, ConfigError> {
    let path = match (&mount.sub_path_expr, &mount.sub_path) {
        (Some(template), _) if !template.is_empty() => expand(template, |name| {
            environment
                .iter()
                .find(|(other, _)| other == name)
                .map(|(_, value)| value.as_str())
        }),
        (_, Some(path)) if !path.is_empty() => path.clone(),
        _ => return Ok(None),
    };
    let inside = !path.starts_with('/') && path.split('/').all(|part| part != "..");
    if inside {
        Ok(Some(path))
    } else {
        Err(ConfigError(format!(
            "error SubPath `{path}` must not be absolute or contain '..'"
        )))
    }
}

/// One mount of a volume into the container.
pub(crate) fn volume_mount(mount: &VolumeMount, host_path: &str) -> cri::Mount {
    let propagation = match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => cri::MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => cri::MountPropagation::PropagationBidirectional,
        _ => cri::MountPropagation::PropagationPrivate,
    };
    cri::Mount {
        container_path: absolute(&mount.mount_path),
        host_path: host_path.to_owned(),
        readonly: mount.read_only.unwrap_or(false),
        propagation: propagation.into(),
        ..cri::Mount::default()
    }
}

/// A mount of one of the agent's own files.
pub(crate) fn file_mount(container_path: &str, host_path: &str) -> cri::Mount {
    cri::Mount {
        container_path: container_path.to_owned(),
        host_path: host_path.to_owned(),
        ..cri::Mount::default()
    }
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn command_and_arguments_see_the_environment() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [{"name": "c", "image": "i", "command": ["echo", "$(WHO)"],
                                     "args": ["$(NOBODY)", "$$(WHO)"], "workingDir": "/w"}]}}))
        .unwrap();
        let container = &model::spec(&pod).containers[0];
        let start = StartContainer {
            container: "c".to_owned(),
            sandbox_id: "s".to_owned(),
            attempt: 3,
            restart_count: 2,
            image_ref: "sha256:1".to_owned(),
        };
        let context = ContainerContext {
            node: "node",
            environment: vec![("WHO".to_owned(), "me".to_owned())],
            mounts: Vec::new(),
            memory_capacity: 1,
            log_path: "c/3.log".to_owned(),
        };
        let config = container_config(&pod, container, &start, context);
        assert_eq!(config.command, ["echo", "me"]);
        assert_eq!(config.args, ["$(NOBODY)", "$(WHO)"]);
        assert_eq!(config.metadata.unwrap().attempt, 3);
        assert_eq!(config.annotations[labels::RESTART_COUNT], "2");
        assert_eq!(config.image.unwrap().image, "sha256:1");
    }

    #[test]
    fn sub_paths_stay_inside_their_volume() {
        let mount = |path: &str, template: Option<&str>| VolumeMount {
            sub_path: Some(path.to_owned()),
            sub_path_expr: template.map(ToOwned::to_owned),
            ..VolumeMount::default()
        };
        let environment = vec![
            ("D".to_owned(), "a/b".to_owned()),
            ("E".to_owned(), "..".to_owned()),
        ];
        let read = |mount: VolumeMount| sub_path(&mount, &environment);
        assert_eq!(read(mount("", None)).unwrap(), None);
        assert_eq!(read(mount("x/y", None)).unwrap().as_deref(), Some("x/y"));
        assert_eq!(
            read(mount("", Some("$(D)/c"))).unwrap().as_deref(),
            Some("a/b/c")
        );
        read(mount("", Some("$(E)/c"))).unwrap_err();
        read(mount("../x", None)).unwrap_err();
        read(mount("/x", None)).unwrap_err();
    }
}
