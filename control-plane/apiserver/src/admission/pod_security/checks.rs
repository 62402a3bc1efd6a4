//! The rules of PodSecurity: each says what is wrong with a pod, in upstream's words.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Level, Version};
use crate::tree;

const CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
const SYSCTLS: &[(&str, u32)] = &[
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];
const SELINUX_TYPES: &[(&str, u32)] = &[
    ("", 0),
    ("container_t", 0),
    ("container_init_t", 0),
    ("container_kvm_t", 0),
    ("container_engine_t", 31),
];
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_VERSION: u32 = 19;
const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

type Check = fn(&Pod<'_>) -> Option<String>;

/// Rules of the baseline; a second group holds only where no stricter rule replaces it.
const BASELINE: &[Check] = &[
    app_armor,
    host_namespaces,
    host_paths,
    host_ports,
    probe_hosts,
    privileged,
    proc_mount,
    selinux,
    sysctls,
    host_process,
];
const BASELINE_ONLY: &[Check] = &[capabilities, seccomp];
const RESTRICTED: &[Check] = &[
    escalation,
    capabilities_dropped,
    restricted_volumes,
    non_root,
    root_user,
    seccomp_required,
];

/// What is wrong with a pod at a level, as `reason (detail)`.
pub(super) fn evaluate(level: Level, version: Version, pod: &Value) -> Vec<String> {
    let pod = Pod {
        version,
        object: pod,
        spec: tree::at(pod, &["spec"]),
    };
    let (first, second): (&[Check], &[Check]) = match level {
        Level::Privileged => (&[], &[]),
        Level::Baseline => (BASELINE, BASELINE_ONLY),
        Level::Restricted => (BASELINE, RESTRICTED),
    };
    let all = first.iter().chain(second);
    all.filter_map(|check| check(&pod)).collect()
}

struct Pod<'a> {
    version: Version,
    object: &'a Value,
    spec: &'a Value,
}

impl<'a> Pod<'a> {
    fn containers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let spec = self.spec;
        CONTAINER_LISTS
            .into_iter()
            .flat_map(move |list| tree::list(spec, &[list]))
    }

    /// Names of the containers that `bad` is true of.
    fn bad(&self, bad: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        self.containers()
            .filter(|container| bad(container))
            .map(|container| tree::text(container, &["name"]))
            .collect()
    }

    fn since(&self, minor: u32) -> bool {
        self.version >= Version::Minor(minor)
    }

    /// Whether the rules about users are moot because the pod's are not the host's.
    fn has_own_users(&self) -> bool {
        self.since(35) && *tree::at(self.spec, &["hostUsers"]) == Value::Bool(false)
    }
}

fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let all: Vec<String> = names
        .into_iter()
        .map(|name| format!("\"{name}\""))
        .collect();
    all.join(", ")
}

fn plural(one: &'static str, many: &'static str, count: usize) -> &'static str {
    if count == 1 { one } else { many }
}

/// `container "a"` or `containers "a", "b"`.
fn named(containers: &[&str]) -> String {
    let word = plural("container", "containers", containers.len());
    format!("{word} {}", quoted(containers.iter().copied()))
}

/// `pod and container "a"`, of those that are bad.
fn setters(pod: bool, containers: &[&str]) -> Option<String> {
    match (pod, containers.is_empty()) {
        (false, true) => None,
        (true, true) => Some("pod".to_owned()),
        (true, false) => Some(format!("pod and {}", named(containers))),
        (false, false) => Some(named(containers)),
    }
}

fn simple(reason: &str, containers: &[&str], must: &str) -> Option<String> {
    (!containers.is_empty()).then(|| format!("{reason} ({} {must})", named(containers)))
}

fn app_armor(pod: &Pod<'_>) -> Option<String> {
    let bad_type = |context: &Value| {
        let kind = tree::text(context, &["appArmorProfile", "type"]);
        !matches!(kind, "" | "RuntimeDefault" | "Localhost")
    };
    let own = tree::at(pod.spec, &["securityContext"]);
    let containers = pod.bad(|c| bad_type(tree::at(c, &["securityContext"])));
    let mut found = Vec::new();
    if let Some(who) = setters(bad_type(own), &containers) {
        let contexts = pod
            .containers()
            .map(|container| tree::at(container, &["securityContext"]));
        let values: BTreeSet<&str> = std::iter::once(own)
            .chain(contexts)
            .filter(|context| bad_type(context))
            .map(|context| tree::text(context, &["appArmorProfile", "type"]))
            .collect();
        found.push(format!(
            "{who} must not set AppArmor profile type to {}",
            quoted(values)
        ));
    }
    let mut annotations: Vec<String> = tree::entries(pod.object, &["metadata", "annotations"])
        .filter(|(key, _)| key.starts_with(APP_ARMOR))
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(_, value)| {
            !value.is_empty() && *value != "runtime/default" && !value.starts_with("localhost/")
        })
        .map(|(key, value)| format!("{key}=\"{value}\""))
        .collect();
    annotations.sort();
    if !annotations.is_empty() {
        let word = plural("annotation", "annotations", annotations.len());
        found.push(format!("{word} {}", annotations.join(", ")));
    }
    let word = plural(
        "forbidden AppArmor profile",
        "forbidden AppArmor profiles",
        found.len(),
    );
    (!found.is_empty()).then(|| format!("{word} ({})", found.join(", ")))
}

fn host_namespaces(pod: &Pod<'_>) -> Option<String> {
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|field| tree::flag(pod.spec, &[field]))
        .map(|field| format!("{field}=true"))
        .collect();
    (!shared.is_empty()).then(|| format!("host namespaces ({})", shared.join(", ")))
}

fn host_paths(pod: &Pod<'_>) -> Option<String> {
    let names: Vec<&str> = tree::list(pod.spec, &["volumes"])
        .iter()
        .filter(|volume| tree::at(volume, &["hostPath"]).is_object())
        .map(|volume| tree::text(volume, &["name"]))
        .collect();
    let word = plural("volume", "volumes", names.len());
    (!names.is_empty()).then(|| format!("hostPath volumes ({word} {})", quoted(names)))
}

fn host_ports(pod: &Pod<'_>) -> Option<String> {
    let port = |port: &Value| tree::int(port, &["hostPort"]).filter(|number| *number != 0);
    let ports = |container: &Value| -> Vec<String> {
        let all = tree::list(container, &["ports"]);
        all.iter().filter_map(port).map(|n| n.to_string()).collect()
    };
    let bad = pod.bad(|container| !ports(container).is_empty());
    if bad.is_empty() {
        return None;
    }
    let all: BTreeSet<String> = pod.containers().flat_map(ports).collect();
    let count = all.len();
    let list: Vec<String> = all.into_iter().collect();
    Some(format!(
        "hostPort ({} {} {} {})",
        named(&bad),
        plural("uses", "use", bad.len()),
        plural("hostPort", "hostPorts", count),
        list.join(", ")
    ))
}

fn probe_hosts(pod: &Pod<'_>) -> Option<String> {
    if !pod.since(34) {
        return None;
    }
    let hosts = |container: &Value| -> BTreeSet<String> {
        let handlers = [
            &["livenessProbe"][..],
            &["readinessProbe"],
            &["startupProbe"],
            &["lifecycle", "postStart"],
            &["lifecycle", "preStop"],
        ];
        let of = |path: &&[&str]| {
            let handler = tree::at(container, path);
            ["httpGet", "tcpSocket"].map(|action| tree::text(handler, &[action, "host"]).to_owned())
        };
        let all = handlers.iter().flat_map(of);
        all.filter(|host| !host.is_empty()).collect()
    };
    let mut bad = pod.bad(|container| !hosts(container).is_empty());
    if bad.is_empty() {
        return None;
    }
    bad.sort_unstable();
    let all: BTreeSet<String> = pod.containers().flat_map(hosts).collect();
    Some(format!(
        "probe or lifecycle host ({} {} {} {})",
        named(&bad),
        plural("uses", "use", bad.len()),
        plural(
            "probe or lifecycle host",
            "probe or lifecycle hosts",
            all.len()
        ),
        quoted(all.iter().map(String::as_str))
    ))
}

fn privileged(pod: &Pod<'_>) -> Option<String> {
    let bad = pod.bad(|c| tree::flag(c, &["securityContext", "privileged"]));
    simple(
        "privileged",
        &bad,
        "must not set securityContext.privileged=true",
    )
}

fn proc_mount(pod: &Pod<'_>) -> Option<String> {
    if pod.has_own_users() {
        return None;
    }
    let mount = |c: &Value| tree::text(c, &["securityContext", "procMount"]).to_owned();
    let is_bad = |c: &Value| !matches!(mount(c).as_str(), "" | "Default");
    let bad = pod.bad(is_bad);
    let values: BTreeSet<String> = pod.containers().filter(|c| is_bad(c)).map(mount).collect();
    let must = format!(
        "must not set securityContext.procMount to {}",
        quoted(values.iter().map(String::as_str))
    );
    simple("procMount", &bad, &must)
}

fn selinux(pod: &Pod<'_>) -> Option<String> {
    let options = |holder: &Value| tree::at(holder, &["securityContext", "seLinuxOptions"]).clone();
    let known = |kind: &str| {
        SELINUX_TYPES
            .iter()
            .any(|(name, since)| *name == kind && pod.since(*since))
    };
    let kind = |options: &Value| tree::text(options, &["type"]).to_owned();
    let set = |options: &Value, field: &str| !tree::text(options, &[field]).is_empty();
    let is_bad = |holder: &Value| {
        let options = options(holder);
        !known(&kind(&options)) || set(&options, "user") || set(&options, "role")
    };
    let bad = pod.bad(is_bad);
    let who = setters(is_bad(pod.spec), &bad)?;
    let all: Vec<Value> = std::iter::once(pod.spec)
        .chain(pod.containers())
        .map(options)
        .collect();
    let types: BTreeSet<String> = all.iter().map(kind).filter(|kind| !known(kind)).collect();
    let mut data = Vec::new();
    if !types.is_empty() {
        let word = plural("type", "types", types.len());
        data.push(format!(
            "{word} {}",
            quoted(types.iter().map(String::as_str))
        ));
    }
    for field in ["user", "role"] {
        if all.iter().any(|options| set(options, field)) {
            data.push(format!("{field} may not be set"));
        }
    }
    Some(format!(
        "seLinuxOptions ({who} set forbidden securityContext.seLinuxOptions: {})",
        data.join("; ")
    ))
}

fn sysctls(pod: &Pod<'_>) -> Option<String> {
    let known = |name: &str| {
        SYSCTLS
            .iter()
            .any(|(safe, since)| *safe == name && pod.since(*since))
    };
    let bad: Vec<&str> = tree::list(pod.spec, &["securityContext", "sysctls"])
        .iter()
        .map(|sysctl| tree::text(sysctl, &["name"]))
        .filter(|name| !known(name))
        .collect();
    (!bad.is_empty()).then(|| format!("forbidden sysctls ({})", bad.join(", ")))
}

fn host_process(pod: &Pod<'_>) -> Option<String> {
    let path = ["securityContext", "windowsOptions", "hostProcess"];
    let bad = pod.bad(|container| tree::flag(container, &path));
    let who = setters(tree::flag(pod.spec, &path), &bad)?;
    Some(format!(
        "hostProcess ({who} must not set securityContext.windowsOptions.hostProcess=true)"
    ))
}

fn added(container: &Value) -> impl Iterator<Item = &str> {
    tree::list(container, &["securityContext", "capabilities", "add"])
        .iter()
        .filter_map(Value::as_str)
}

/// `container "a" must not include "X" in securityContext.capabilities.add`.
fn forbidden_capabilities(pod: &Pod<'_>, allowed: &[&str]) -> Option<String> {
    let bad = pod.bad(|container| added(container).any(|one| !allowed.contains(&one)));
    let all: BTreeSet<&str> = pod
        .containers()
        .flat_map(added)
        .filter(|one| !allowed.contains(one))
        .collect();
    (!bad.is_empty()).then(|| {
        format!(
            "{} must not include {} in securityContext.capabilities.add",
            named(&bad),
            quoted(all)
        )
    })
}

fn capabilities(pod: &Pod<'_>) -> Option<String> {
    forbidden_capabilities(pod, CAPABILITIES)
        .map(|detail| format!("non-default capabilities ({detail})"))
}

fn is_windows(pod: &Pod<'_>) -> bool {
    pod.since(25) && tree::text(pod.spec, &["os", "name"]) == "windows"
}

fn escalation(pod: &Pod<'_>) -> Option<String> {
    if is_windows(pod) {
        return None;
    }
    let path = ["securityContext", "allowPrivilegeEscalation"];
    let bad = pod.bad(|container| *tree::at(container, &path) != Value::Bool(false));
    simple(
        "allowPrivilegeEscalation != false",
        &bad,
        "must set securityContext.allowPrivilegeEscalation=false",
    )
}

fn capabilities_dropped(pod: &Pod<'_>) -> Option<String> {
    if is_windows(pod) || !pod.since(22) {
        return None;
    }
    let path = ["securityContext", "capabilities", "drop"];
    let kept = pod.bad(|container| !tree::list(container, &path).iter().any(|one| one == "ALL"));
    let mut details = Vec::new();
    if !kept.is_empty() {
        let must = "must set securityContext.capabilities.drop=[\"ALL\"]";
        details.push(format!("{} {must}", named(&kept)));
    }
    details.extend(forbidden_capabilities(pod, &["NET_BIND_SERVICE"]));
    let joined = details.join("; ");
    (!details.is_empty()).then(|| format!("unrestricted capabilities ({joined})"))
}

fn restricted_volumes(pod: &Pod<'_>) -> Option<String> {
    let (mut names, mut types) = (Vec::new(), BTreeSet::new());
    for volume in tree::list(pod.spec, &["volumes"]) {
        let source = tree::entries(volume, &[])
            .map(|(field, _)| field.as_str())
            .find(|field| *field != "name");
        if let Some(source) = source.filter(|source| !VOLUMES.contains(source)) {
            names.push(tree::text(volume, &["name"]));
            types.insert(source);
        }
    }
    (!names.is_empty()).then(|| {
        format!(
            "restricted volume types ({} {} {} {} {})",
            plural("volume", "volumes", names.len()),
            quoted(names.iter().copied()),
            plural("uses", "use", names.len()),
            plural(
                "restricted volume type",
                "restricted volume types",
                types.len()
            ),
            quoted(types.iter().copied())
        )
    })
}

fn non_root(pod: &Pod<'_>) -> Option<String> {
    if pod.has_own_users() {
        return None;
    }
    let value = |holder: &Value| tree::at(holder, &["securityContext", "runAsNonRoot"]).as_bool();
    let own = value(pod.spec);
    let refusing = pod.bad(|container| value(container) == Some(false));
    if let Some(who) = setters(own == Some(false), &refusing) {
        return Some(format!(
            "runAsNonRoot != true ({who} must not set securityContext.runAsNonRoot=false)"
        ));
    }
    let silent = pod.bad(|container| value(container).is_none() && own != Some(true));
    (!silent.is_empty()).then(|| {
        format!(
            "runAsNonRoot != true (pod or {} must set securityContext.runAsNonRoot=true)",
            named(&silent)
        )
    })
}

fn root_user(pod: &Pod<'_>) -> Option<String> {
    if pod.has_own_users() || !pod.since(23) {
        return None;
    }
    let root = |holder: &Value| tree::int(holder, &["securityContext", "runAsUser"]) == Some(0);
    let who = setters(root(pod.spec), &pod.bad(root))?;
    Some(format!("runAsUser=0 ({who} must not set runAsUser=0)"))
}

fn profile(holder: &Value) -> Option<&str> {
    let profile = tree::at(holder, &["securityContext", "seccompProfile"]);
    profile.is_object().then(|| tree::text(profile, &["type"]))
}

fn is_confined(kind: &str) -> bool {
    matches!(kind, "Localhost" | "RuntimeDefault")
}

/// Seccomp profiles that confine nothing.
fn seccomp(pod: &Pod<'_>) -> Option<String> {
    if !pod.since(SECCOMP_VERSION) {
        return None;
    }
    let is_bad = |holder: &Value| profile(holder).is_some_and(|kind| !is_confined(kind));
    let who = setters(is_bad(pod.spec), &pod.bad(is_bad))?;
    let values: BTreeSet<&str> = std::iter::once(pod.spec)
        .chain(pod.containers())
        .filter_map(profile)
        .filter(|kind| !is_confined(kind))
        .collect();
    Some(format!(
        "seccompProfile ({who} must not set securityContext.seccompProfile.type to {})",
        quoted(values)
    ))
}

fn seccomp_required(pod: &Pod<'_>) -> Option<String> {
    if !pod.since(SECCOMP_VERSION) || is_windows(pod) {
        return None;
    }
    if let Some(found) = seccomp(pod) {
        return Some(found);
    }
    let own = profile(pod.spec).is_some();
    let silent = pod.bad(|container| profile(container).is_none() && !own);
    (!silent.is_empty()).then(|| {
        format!(
            "seccompProfile (pod or {} must set securityContext.seccompProfile.type to \
             \"RuntimeDefault\" or \"Localhost\")",
            named(&silent)
        )
    })
}
