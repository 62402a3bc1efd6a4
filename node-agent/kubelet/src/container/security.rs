//! Security contexts: the pod's and the container's settings as the runtime takes them. Pure.

use proto::cri::v1 as cri;
use proto_api::types::core::v1::{Container, PodSecurityContext, PodSpec, SeccompProfile};

use super::ConfigError;

const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
];
const MASKED_SYS: [&str; 2] = ["/sys/firmware", "/sys/devices/virtual/powercap"];
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

fn int(value: i64) -> cri::Int64Value {
    cri::Int64Value { value }
}

/// Which namespaces a container has to itself.
pub(crate) fn namespaces(spec: &PodSpec) -> cri::NamespaceOption {
    let mode = |host: Option<bool>, own: cri::NamespaceMode| {
        if host.unwrap_or(false) {
            cri::NamespaceMode::Node
        } else {
            own
        }
    };
    let pid = if spec.share_process_namespace.unwrap_or(false) {
        cri::NamespaceMode::Pod
    } else {
        cri::NamespaceMode::Container
    };
    cri::NamespaceOption {
        network: mode(spec.host_network, cri::NamespaceMode::Pod).into(),
        pid: mode(spec.host_pid, pid).into(),
        ipc: mode(spec.host_ipc, cri::NamespaceMode::Pod).into(),
        ..cri::NamespaceOption::default()
    }
}

fn seccomp(profile: Option<&SeccompProfile>) -> cri::SecurityProfile {
    use cri::security_profile::ProfileType;
    let kind = match profile.map(|profile| profile.type_.as_str()) {
        Some("RuntimeDefault") => ProfileType::RuntimeDefault,
        Some("Localhost") => ProfileType::Localhost,
        _ => ProfileType::Unconfined,
    };
    let file = profile
        .and_then(|profile| profile.localhost_profile.clone())
        .unwrap_or_default();
    cri::SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: file,
    }
}

/// Security of the sandbox: privileged when any container is.
pub(crate) fn sandbox(spec: &PodSpec) -> cri::LinuxSandboxSecurityContext {
    let none = PodSecurityContext::default();
    let pod = spec.security_context.as_deref().unwrap_or(&none);
    let privileged = crate::pod::model::containers(spec)
        .filter_map(|(_, container)| container.security_context.as_ref())
        .any(|context| context.privileged.unwrap_or(false));
    cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(spec)),
        run_as_user: pod.run_as_user.map(int),
        run_as_group: pod
            .run_as_group
            .filter(|_| pod.run_as_user.is_some())
            .map(int),
        supplemental_groups: groups(pod),
        privileged,
        seccomp: Some(seccomp(Some(&SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }))),
        ..cri::LinuxSandboxSecurityContext::default()
    }
}

fn groups(pod: &PodSecurityContext) -> Vec<i64> {
    pod.fs_group
        .into_iter()
        .chain(pod.supplemental_groups.iter().copied())
        .collect()
}

/// Security of one container.
pub(crate) fn container(
    spec: &PodSpec,
    container: &Container,
) -> cri::LinuxContainerSecurityContext {
    let none = PodSecurityContext::default();
    let pod = spec.security_context.as_deref().unwrap_or(&none);
    let own = container.security_context.clone().unwrap_or_default();
    let privileged = own.privileged.unwrap_or(false);
    let capabilities = own.capabilities.unwrap_or_default();
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |list: &[&str]| -> Vec<String> {
        if unmasked {
            Vec::new()
        } else {
            list.iter().map(|path| (*path).to_owned()).collect()
        }
    };
    let profile = own
        .seccomp_profile
        .as_ref()
        .or(pod.seccomp_profile.as_ref());
    let may_gain = own.allow_privilege_escalation.unwrap_or(true) || privileged;
    let user = own.run_as_user.or(pod.run_as_user);
    let strict = pod.supplemental_groups_policy.as_deref() == Some("Strict");
    cri::LinuxContainerSecurityContext {
        capabilities: Some(cri::Capability {
            add_capabilities: capability_names(&capabilities.add),
            drop_capabilities: capability_names(&capabilities.drop),
            ..cri::Capability::default()
        }),
        privileged,
        namespace_options: Some(namespaces(spec)),
        run_as_user: user.map(int),
        run_as_group: own.run_as_group.or(pod.run_as_group).map(int),
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        supplemental_groups: groups(pod),
        supplemental_groups_policy: if strict {
            cri::SupplementalGroupsPolicy::Strict.into()
        } else {
            cri::SupplementalGroupsPolicy::Merge.into()
        },
        no_new_privs: !may_gain,
        masked_paths: paths(&[&MASKED[..], &MASKED_SYS[..]].concat()),
        readonly_paths: paths(&READ_ONLY),
        seccomp: Some(if privileged {
            seccomp(None)
        } else {
            seccomp(profile)
        }),
        ..cri::LinuxContainerSecurityContext::default()
    }
}

/// The runtime wants names without `CAP_`.
fn capability_names(names: &[String]) -> Vec<String> {
    names
        .iter()
        .map(|name| name.strip_prefix("CAP_").unwrap_or(name).to_owned())
        .collect()
}

/// Refuses a container that must not run as root but would.
pub(crate) fn check_non_root(
    pod: &str,
    spec: &PodSpec,
    container: &Container,
    image: Option<&cri::Image>,
) -> Result<(), ConfigError> {
    let of_pod = spec.security_context.as_ref();
    let own = container.security_context.as_ref();
    let demanded = own
        .and_then(|context| context.run_as_non_root)
        .or_else(|| of_pod.and_then(|context| context.run_as_non_root))
        .unwrap_or(false);
    if !demanded {
        return Ok(());
    }
    let user = own
        .and_then(|context| context.run_as_user)
        .or_else(|| of_pod.and_then(|context| context.run_as_user));
    let whose = format!("(pod: \"{pod}\", container: {})", container.name);
    match (user, image) {
        (Some(0), _) => Err(ConfigError(format!(
            "container's runAsUser breaks non-root policy {whose}"
        ))),
        (Some(_), _) | (None, None) => Ok(()),
        (None, Some(image)) => match (&image.uid, image.username.as_str()) {
            (Some(uid), _) if uid.value == 0 => Err(ConfigError(format!(
                "container has runAsNonRoot and image will run as root {whose}"
            ))),
            (None, "") => Err(ConfigError(format!(
                "container has runAsNonRoot and image will run as root {whose}"
            ))),
            (None, name) if name.parse::<u32>().is_err() => Err(ConfigError(format!(
                "container has runAsNonRoot and image has non-numeric user ({name}), \
                 cannot verify user is non-root {whose}"
            ))),
            (Some(_) | None, _) => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "literals at every call")]
    fn spec(pod: serde_json::Value, own: serde_json::Value) -> PodSpec {
        serde_json::from_value(
            json!({"securityContext": pod, "containers": [{"name": "c", "securityContext": own}]}),
        )
        .unwrap()
    }

    #[test]
    fn the_containers_settings_win_over_the_pods() {
        let spec = spec(
            json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 7, "supplementalGroups": [8],
                   "seccompProfile": {"type": "RuntimeDefault"}}),
            json!({"runAsUser": 5, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                   "capabilities": {"add": ["NET_ADMIN", "CAP_SYS_TIME"], "drop": ["ALL"]}}),
        );
        let context = container(&spec, &spec.containers[0]);
        assert_eq!(context.run_as_user.unwrap().value, 5);
        assert_eq!(context.run_as_group.unwrap().value, 2);
        assert_eq!(context.supplemental_groups, [7, 8]);
        assert!(context.no_new_privs && context.readonly_rootfs && !context.privileged);
        let capabilities = context.capabilities.unwrap();
        assert_eq!(capabilities.add_capabilities, ["NET_ADMIN", "SYS_TIME"]);
        assert_eq!(capabilities.drop_capabilities, ["ALL"]);
        assert_eq!(
            context.seccomp.unwrap().profile_type(),
            cri::security_profile::ProfileType::RuntimeDefault
        );
        assert!(!context.masked_paths.is_empty());
    }

    #[test]
    fn privileged_means_unconfined_and_unmasked_also_for_the_sandbox() {
        let spec = spec(
            json!({"seccompProfile": {"type": "RuntimeDefault"}}),
            json!({"privileged": true, "allowPrivilegeEscalation": false}),
        );
        let context = container(&spec, &spec.containers[0]);
        assert!(context.privileged && !context.no_new_privs);
        assert!(context.masked_paths.is_empty() && context.readonly_paths.is_empty());
        assert!(sandbox(&spec).privileged);
    }

    #[test]
    fn non_root_is_checked_against_spec_and_image() {
        let image = |uid: Option<i64>, username: &str| cri::Image {
            uid: uid.map(int),
            username: username.to_owned(),
            ..cri::Image::default()
        };
        let check = |pod: serde_json::Value, image: cri::Image| {
            let spec = spec(pod, json!({}));
            check_non_root("p", &spec, &spec.containers[0], Some(&image)).is_ok()
        };
        let demand = json!({"runAsNonRoot": true});
        assert!(check(json!({}), image(Some(0), "")));
        assert!(!check(demand.clone(), image(Some(0), "")));
        assert!(!check(demand.clone(), image(None, "")));
        assert!(!check(demand.clone(), image(None, "app")));
        assert!(check(demand, image(Some(9), "")));
        assert!(check(
            json!({"runAsNonRoot": true, "runAsUser": 9}),
            image(Some(0), "")
        ));
        assert!(!check(
            json!({"runAsNonRoot": true, "runAsUser": 0}),
            image(Some(9), "")
        ));
    }
}
