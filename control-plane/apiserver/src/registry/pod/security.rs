//! Security contexts of pods and containers, and what a pod shares with its host.

use std::collections::HashSet;

use proto_api::names;
use serde_json::Value;

use crate::field::FieldError;
use crate::validation::{Errors, Place};

const ID_MAX: i64 = i32::MAX as i64;
const PROFILE_TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
const PROFILE_PATH_BYTES_MAX: usize = 4095;
const SYSCTL_BYTES_MAX: usize = 253;
const SYSCTL_DETAIL: &str = "must have at most 253 characters and match regex \
    ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
const HOST_USERS_DETAIL: &str = "when `pod.Spec.HostUsers` is false";

/// Checks the security context of a pod, with the host namespaces beside it in the spec.
pub(super) fn validate_pod(spec: &Place<'_>, errors: &mut Errors) {
    let context = spec.get("securityContext");
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        context.get(field).in_range(0..=ID_MAX, errors);
    }
    for group in context.get("supplementalGroups").items() {
        group.in_range(0..=ID_MAX, errors);
    }
    let shared = spec.get("shareProcessNamespace");
    if shared.flag() && spec.get("hostPID").flag() {
        let path = context.path.child("shareProcessNamespace");
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(&path, true, detail));
    }
    validate_sysctls(&context.get("sysctls"), spec, errors);
    let change = context.get("fsGroupChangePolicy");
    change.one_of(&["Always", "OnRootMismatch"], errors);
    seccomp(&context.get("seccompProfile"), errors);
    windows(&context.get("windowsOptions"), errors);
    app_armor(&context.get("appArmorProfile"), errors);
    let groups = context.get("supplementalGroupsPolicy");
    groups.one_of(&["Merge", "Strict"], errors);
    let selinux = context.get("seLinuxChangePolicy");
    selinux.one_of(&["MountOption", "Recursive"], errors);
    validate_host_users(spec, errors);
}

/// A pod with users of its own shares nothing else with the host.
fn validate_host_users(spec: &Place<'_>, errors: &mut Errors) {
    if *spec.get("hostUsers").value != Value::Bool(false) {
        return;
    }
    for (field, printed) in [
        ("hostNetwork", "hostNetwork"),
        ("hostPID", "HostPID"),
        ("hostIPC", "HostIPC"),
    ] {
        if spec.get(field).flag() {
            let path = spec.path.child(printed);
            errors.push(FieldError::forbidden(&path, HOST_USERS_DETAIL));
        }
    }
}

fn validate_sysctls(sysctls: &Place<'_>, spec: &Place<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for sysctl in sysctls.items() {
        let name = sysctl.get("name");
        let text = name.text();
        if name.required_text(errors) {
            if !is_sysctl(text) {
                name.invalid(SYSCTL_DETAIL, errors);
            } else if !seen.insert(text) {
                name.duplicate(errors);
            }
        }
        match namespace_of(text) {
            Some("net") if spec.get("hostNetwork").flag() => {
                name.invalid("may not be specified when 'hostNetwork' is true", errors);
            }
            Some("ipc") if spec.get("hostIPC").flag() => {
                name.invalid("may not be specified when 'hostIPC' is true", errors);
            }
            _ => {}
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let ends = |part: &str| {
        let plain =
            |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        plain(part.chars().next()) && plain(part.chars().last())
    };
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    name.len() <= SYSCTL_BYTES_MAX
        && name
            .split(['.', '/'])
            .all(|part| ends(part) && part.chars().all(inner))
}

/// Which namespace holds a sysctl, when one does.
fn namespace_of(sysctl: &str) -> Option<&'static str> {
    let dotted = sysctl.replace('/', ".");
    let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."];
    if dotted.starts_with("net.") {
        Some("net")
    } else if dotted == "kernel.sem" || ipc.iter().any(|prefix| dotted.starts_with(prefix)) {
        Some("ipc")
    } else {
        None
    }
}

/// Checks the security context of a container.
pub(super) fn validate_container(context: &Place<'_>, host_users: bool, errors: &mut Errors) {
    if !context.is_present() {
        return;
    }
    for field in ["runAsUser", "runAsGroup"] {
        context.get(field).in_range(0..=ID_MAX, errors);
    }
    let mount = context.get("procMount");
    mount.one_of(&["Default", "Unmasked"], errors);
    if host_users && mount.text() == "Unmasked" {
        mount.invalid("`hostUsers` must be false to use `Unmasked`", errors);
    }
    seccomp(&context.get("seccompProfile"), errors);
    if *context.get("allowPrivilegeEscalation").value == Value::Bool(false) {
        if context.get("privileged").flag() {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            context.invalid(detail, errors);
        }
        let added = context.get("capabilities").get("add");
        if added.items().any(|one| one.text() == "CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            context.invalid(detail, errors);
        }
    }
    windows(&context.get("windowsOptions"), errors);
    app_armor(&context.get("appArmorProfile"), errors);
}

fn seccomp(profile: &Place<'_>, errors: &mut Errors) {
    if !profile.is_present() {
        return;
    }
    let kind = profile.get("type");
    if kind.text().is_empty() {
        kind.required("type is required when seccompProfile is set", errors);
    } else {
        kind.one_of(PROFILE_TYPES, errors);
    }
    let file = profile.get("localhostProfile");
    match (kind.text() == "Localhost", file.is_present()) {
        (true, true) => file.descending_path(errors),
        (true, false) => file.required("must be set when seccomp type is Localhost", errors),
        (false, true) => {
            let detail = "can only be set when seccomp type is Localhost";
            errors.push(FieldError::invalid(
                &file.path,
                profile.value.clone(),
                detail,
            ));
        }
        (false, false) => {}
    }
}

fn app_armor(profile: &Place<'_>, errors: &mut Errors) {
    const UNSET: &str = "must be set when AppArmor type is Localhost";
    if !profile.is_present() {
        return;
    }
    let file = profile.get("localhostProfile");
    let kind = profile.get("type");
    match kind.text() {
        "Localhost" => {
            let text = file.text();
            if text.trim() != text {
                file.invalid("must not be padded with whitespace", errors);
            } else if text.is_empty() {
                file.required(UNSET, errors);
            }
            if text.len() > PROFILE_PATH_BYTES_MAX {
                errors.push(FieldError::too_long(&file.path, PROFILE_PATH_BYTES_MAX));
            }
        }
        "" => kind.required("type is required when appArmorProfile is set", errors),
        "RuntimeDefault" | "Unconfined" => {
            if file.is_present() {
                let detail = "can only be set when AppArmor type is Localhost";
                file.invalid(detail, errors);
            }
        }
        _ => kind.one_of(PROFILE_TYPES, errors),
    }
}

fn windows(options: &Place<'_>, errors: &mut Errors) {
    const CREDENTIAL_BYTES_MAX: usize = 64 * 1024;
    let name = options.get("gmsaCredentialSpecName");
    if name.is_present() {
        name.named(names::dns_subdomain, errors);
    }
    let spec = options.get("gmsaCredentialSpec");
    if spec.is_present() && spec.text().is_empty() {
        spec.invalid("gmsaCredentialSpec cannot be an empty string", errors);
    } else if spec.text().len() > CREDENTIAL_BYTES_MAX {
        spec.invalid("gmsaCredentialSpec size must be under 64 KiB", errors);
    }
    let user = options.get("runAsUserName");
    if !user.is_present() {
        return;
    }
    let text = user.text();
    if text.is_empty() {
        user.invalid("runAsUserName cannot be an empty string", errors);
    } else if text.chars().any(char::is_control) {
        user.invalid("runAsUserName cannot contain control characters", errors);
    } else if text.matches('\\').count() > 1 {
        let detail = "runAsUserName cannot contain more than one backslash";
        user.invalid(detail, errors);
    } else if text.ends_with('\\') {
        user.invalid("runAsUserName's User cannot be empty", errors);
    }
}

/// Fields of a security context that the named operating system does not know.
pub(super) fn validate_os(spec: &Place<'_>, errors: &mut Errors) {
    let os = spec.get("os");
    if !os.is_present() {
        return;
    }
    let name = os.get("name");
    match name.text() {
        "" => return name.required("cannot be empty", errors),
        "linux" | "windows" => {}
        other => {
            let known = &["linux", "windows"];
            errors.push(FieldError::not_supported(&os.path, other, known));
            return;
        }
    }
    let containers = ["initContainers", "containers", "ephemeralContainers"];
    let contexts = containers
        .into_iter()
        .flat_map(|field| spec.get(field).items())
        .map(|container| container.get("securityContext"));
    let pod = spec.get("securityContext");
    if name.text() == "linux" {
        for context in std::iter::once(pod).chain(contexts) {
            let detail = "windows options cannot be set for a linux pod";
            context.get("windowsOptions").forbid(detail, errors);
        }
        return;
    }
    let detail = "cannot be set for a windows pod";
    for field in POD_LINUX_FIELDS {
        pod.get(field).forbid(detail, errors);
    }
    for field in ["hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"] {
        spec.get(field).forbid(detail, errors);
    }
    for context in contexts {
        for field in CONTAINER_LINUX_FIELDS {
            context.get(field).forbid(detail, errors);
        }
    }
}

const POD_LINUX_FIELDS: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
];
const CONTAINER_LINUX_FIELDS: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];
