//! What the agent reads out of a pod's object: roles of containers, policies, periods.
//!
//! Pure functions over the API's types. Changes when the API's meaning of a pod does.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use jiff::Timestamp;
use node_agent_state::{ObjectName, PodRef};
use proto_api::types::Object as _;
use proto_api::types::core::v1::{ConfigMap, Container, EphemeralContainer, Pod, PodSpec, Secret};

/// Grace period when the pod names none.
const GRACE_DEFAULT_SECONDS: i64 = 30;

/// What a container is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before the main containers start.
    Init,
    /// An init container that stays: started in order, restarted always, stopped last.
    Sidecar,
    /// What the pod is for.
    Main,
    /// Added to a running pod to look into it: started once, never counted.
    Ephemeral,
}

/// What is to become of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// It shall run.
    Run,
    /// Its object carries a deletion timestamp.
    Delete {
        /// Period between the stop signal and the kill.
        grace: Duration,
    },
    /// Its object is gone.
    Gone {
        /// Period between the stop signal and the kill.
        grace: Duration,
    },
}

/// Config maps and secrets that a pod names, as they are now; `None` when absent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inputs {
    pub(crate) config_maps: Vec<(ObjectName, Option<Arc<ConfigMap>>)>,
    pub(crate) secrets: Vec<(ObjectName, Option<Arc<Secret>>)>,
}

impl Inputs {
    pub(crate) fn config_map(&self, namespace: &str, name: &str) -> Option<&ConfigMap> {
        find(&self.config_maps, namespace, name)
    }

    pub(crate) fn secret(&self, namespace: &str, name: &str) -> Option<&Secret> {
        find(&self.secrets, namespace, name)
    }

    /// Whether both hold the very same objects.
    pub(crate) fn same(&self, other: &Self) -> bool {
        same_entries(&self.config_maps, &other.config_maps)
            && same_entries(&self.secrets, &other.secrets)
    }
}

fn find<'a, T>(
    entries: &'a [(ObjectName, Option<Arc<T>>)],
    namespace: &str,
    name: &str,
) -> Option<&'a T> {
    let entry = entries
        .iter()
        .find(|(key, _)| &*key.namespace == namespace && &*key.name == name)?;
    entry.1.as_deref()
}

fn same_entries<T>(
    left: &[(ObjectName, Option<Arc<T>>)],
    right: &[(ObjectName, Option<Arc<T>>)],
) -> bool {
    left.len() == right.len()
        && left
            .iter()
            .zip(right)
            .all(|((left_key, left), (right_key, right))| {
                left_key == right_key
                    && match (left, right) {
                        (Some(left), Some(right)) => Arc::ptr_eq(left, right),
                        (None, None) => true,
                        (Some(_), None) | (None, Some(_)) => false,
                    }
            })
}

/// A pod as one worker is to make it so.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) pod: Arc<Pod>,
    pub(crate) wanted: Wanted,
    pub(crate) inputs: Arc<Inputs>,
}

static NO_SPEC: LazyLock<PodSpec> = LazyLock::new(PodSpec::default);

impl Target {
    pub(crate) fn spec(&self) -> &PodSpec {
        spec(&self.pod)
    }

    /// The container of that name, an ephemeral one included.
    pub(crate) fn container(&self, name: &str) -> Option<(Role, Cow<'_, Container>)> {
        any_container(self.spec(), name)
    }

    pub(crate) fn reference(&self) -> PodRef {
        reference(&self.pod)
    }
}

/// The pod's spec; an empty one when the object has none.
pub(crate) fn spec(pod: &Pod) -> &PodSpec {
    pod.spec.as_ref().unwrap_or(&NO_SPEC)
}

pub(crate) fn reference(pod: &Pod) -> PodRef {
    PodRef {
        namespace: pod.namespace().to_owned(),
        name: pod.name().to_owned(),
        uid: pod.uid().to_owned(),
    }
}

/// `name_namespace(uid)`, as upstream's messages name a pod.
pub(crate) fn display(pod: &Pod) -> String {
    format!("{}_{}({})", pod.name(), pod.namespace(), pod.uid())
}

/// All containers in start order.
pub(crate) fn containers(spec: &PodSpec) -> impl DoubleEndedIterator<Item = (Role, &Container)> {
    let init = spec.init_containers.iter().map(|container| {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        (if sidecar { Role::Sidecar } else { Role::Init }, container)
    });
    init.chain(
        spec.containers
            .iter()
            .map(|container| (Role::Main, container)),
    )
}

/// As [`container`], ephemeral ones included.
pub(crate) fn any_container<'a>(
    spec: &'a PodSpec,
    name: &str,
) -> Option<(Role, Cow<'a, Container>)> {
    if let Some((role, container)) = container(spec, name) {
        return Some((role, Cow::Borrowed(container)));
    }
    let mut all = spec.ephemeral_containers.iter();
    let found = all.find(|container| container.name == name)?;
    Some((Role::Ephemeral, Cow::Owned(as_container(found))))
}

/// The ephemeral containers, in the form of others.
pub(crate) fn ephemeral(spec: &PodSpec) -> Vec<Container> {
    spec.ephemeral_containers.iter().map(as_container).collect()
}

/// What an ephemeral container may say; probes, ports, resources and hooks it may not.
fn as_container(from: &EphemeralContainer) -> Container {
    Container {
        name: from.name.clone(),
        image: from.image.clone(),
        image_pull_policy: from.image_pull_policy.clone(),
        command: from.command.clone(),
        args: from.args.clone(),
        working_dir: from.working_dir.clone(),
        env: from.env.clone(),
        env_from: from.env_from.clone(),
        volume_mounts: from.volume_mounts.clone(),
        security_context: from.security_context.clone(),
        stdin: from.stdin,
        stdin_once: from.stdin_once,
        tty: from.tty,
        termination_message_path: from.termination_message_path.clone(),
        termination_message_policy: from.termination_message_policy.clone(),
        ..Container::default()
    }
}

pub(crate) fn container<'a>(spec: &'a PodSpec, name: &str) -> Option<(Role, &'a Container)> {
    containers(spec).find(|(_, container)| container.name == name)
}

/// Whether a container that ended with `exit_code` is to run again.
pub(crate) fn restarts(spec: &PodSpec, role: Role, container: &Container, exit_code: i32) -> bool {
    for rule in &container.restart_policy_rules {
        let matches = rule
            .exit_codes
            .as_ref()
            .is_some_and(|codes| match codes.operator.as_str() {
                "In" => codes.values.contains(&exit_code),
                "NotIn" => !codes.values.contains(&exit_code),
                _ => false,
            });
        if matches {
            return rule.action == "Restart";
        }
    }
    let policy = container
        .restart_policy
        .as_deref()
        .or(spec.restart_policy.as_deref());
    match (role, policy) {
        (Role::Ephemeral, _) | (_, Some("Never")) => false,
        (Role::Main | Role::Init, Some("OnFailure")) | (Role::Init, _) => exit_code != 0,
        (Role::Sidecar | Role::Main, _) => true,
    }
}

/// Changes when the container must be replaced to follow its spec (name or image).
pub(crate) fn spec_hash(container: &Container) -> String {
    // FNV-1a: stable across versions of the agent, which the standard hasher is not.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let image = container.image.as_deref().unwrap_or_default();
    for byte in container.name.bytes().chain([0]).chain(image.bytes()) {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:x}")
}

/// The pod's own grace period.
pub(crate) fn grace(pod: &Pod) -> Duration {
    let seconds = pod
        .metadata
        .deletion_grace_period_seconds
        .or(spec(pod).termination_grace_period_seconds)
        .unwrap_or(GRACE_DEFAULT_SECONDS);
    // An object may say 0 (delete now); the containers still get the least period there is.
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1))
}

/// What the object itself asks for.
pub(crate) fn wanted(pod: &Pod) -> Wanted {
    if pod.metadata.deletion_timestamp.is_some() {
        Wanted::Delete { grace: grace(pod) }
    } else {
        Wanted::Run
    }
}

/// When the pod may no longer be active, counted from `start`.
pub(crate) fn active_until(spec: &PodSpec, start: Timestamp) -> Option<Timestamp> {
    let seconds = spec.active_deadline_seconds?;
    start
        .checked_add(jiff::SignedDuration::from_secs(seconds))
        .ok()
}

/// Names of the config maps and secrets that the pod's containers and volumes use.
pub(crate) fn named_inputs(pod: &Pod) -> (Vec<String>, Vec<String>) {
    let spec = spec(pod);
    let mut maps: Vec<Option<String>> = Vec::new();
    let mut secrets: Vec<Option<String>> = Vec::new();
    for (_, container) in containers(spec) {
        for source in &container.env_from {
            maps.extend(source.config_map_ref.as_ref().map(|map| map.name.clone()));
            secrets.extend(source.secret_ref.as_ref().map(|secret| secret.name.clone()));
        }
        for source in container
            .env
            .iter()
            .filter_map(|env| env.value_from.as_ref())
        {
            maps.extend(
                source
                    .config_map_key_ref
                    .as_ref()
                    .map(|key| key.name.clone()),
            );
            secrets.extend(source.secret_key_ref.as_ref().map(|key| key.name.clone()));
        }
    }
    for container in ephemeral(spec) {
        for source in container.env_from {
            maps.extend(source.config_map_ref.map(|map| map.name));
            secrets.extend(source.secret_ref.map(|secret| secret.name));
        }
        for source in container.env.into_iter().filter_map(|env| env.value_from) {
            maps.extend(source.config_map_key_ref.clone().map(|key| key.name));
            secrets.extend(source.secret_key_ref.clone().map(|key| key.name));
        }
    }
    for volume in &spec.volumes {
        maps.extend(volume.config_map.as_ref().map(|map| map.name.clone()));
        secrets.extend(
            volume
                .secret
                .as_ref()
                .map(|secret| secret.secret_name.clone()),
        );
        for source in volume
            .projected
            .iter()
            .flat_map(|projected| &projected.sources)
        {
            maps.extend(source.config_map.as_ref().map(|map| map.name.clone()));
            secrets.extend(source.secret.as_ref().map(|secret| secret.name.clone()));
        }
    }
    secrets.extend(
        spec.image_pull_secrets
            .iter()
            .map(|secret| secret.name.clone()),
    );
    (unique(maps), unique(secrets))
}

fn unique(names: Vec<Option<String>>) -> Vec<String> {
    let mut names: Vec<String> = names.into_iter().flatten().collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Quality-of-service class: decides cgroup, OOM score and the order of eviction.
pub(crate) fn qos_class(spec: &PodSpec) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    for (_, container) in containers(spec) {
        let resources = container.resources.clone().unwrap_or_default();
        let amount = |map: &std::collections::BTreeMap<String, _>, key: &str| {
            map.get(key)
                .and_then(proto_api::types::Quantity::milli_value)
                .filter(|milli| *milli > 0)
        };
        for key in ["cpu", "memory"] {
            let limit = amount(&resources.limits, key);
            let request = amount(&resources.requests, key).or(limit);
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && limit == request;
        }
    }
    match (any, guaranteed) {
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
        (false, _) => "BestEffort",
    }
}
