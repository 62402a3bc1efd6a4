//! One container: defaults, and the rules that all containers share.

use std::collections::HashSet;

use proto_api::names;
use serde_json::{Value, json};

use super::volume::Volumes;
use super::{SpecOwner, downward, mounts, probes, resources, security};
use crate::field::FieldError;
use crate::tree::{self, Object};
use crate::validation::{self, Errors, Place};

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const MESSAGE_POLICIES: &[&str] = &["File", "FallbackToLogsOnError"];
const EPHEMERAL_DETAIL: &str = "cannot be set for an Ephemeral Container";
/// Fields of a container that one for debugging may not have.
const NOT_EPHEMERAL: &[&str] = &[
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
];
const ENV_NAME_DETAIL: &str = "a valid environment variable name must consist only of printable \
    ASCII characters other than '='";

/// What the rules of a container depend on outside of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings<'a> {
    /// Volumes that it may mount.
    pub(super) volumes: &'a Volumes<'a>,
    /// Names of resource claims that it may use.
    pub(super) claims: &'a HashSet<&'a str>,
    /// The pod's grace period.
    pub(super) grace: Option<i64>,
    /// The pod's restart policy.
    pub(super) restart: &'a str,
    /// Whether the pod's users are the host's.
    pub(super) host_users: bool,
    /// Whether the spec is a pod's or a template's.
    pub(super) owner: SpecOwner,
}

/// Fills what the client left out of a container.
pub(super) fn default_container(container: &mut Object, owner: SpecOwner, host_network: bool) {
    let image = container
        .get("image")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let policy = pull_policy(image);
    tree::default_text(container, "imagePullPolicy", policy);
    tree::default_text(container, "terminationMessagePath", "/dev/termination-log");
    tree::default_text(container, "terminationMessagePolicy", "File");
    tree::default(container, "resources", json!({}));
    for port in tree::list_mut(container, "ports") {
        let port = tree::as_object(port);
        tree::default_text(port, "protocol", "TCP");
        if host_network && let Some(number) = port.get("containerPort").cloned() {
            tree::default(port, "hostPort", number);
        }
    }
    for env in tree::list_mut(container, "env") {
        if let Some(Value::Object(field)) = env.pointer_mut("/valueFrom/fieldRef") {
            tree::default_text(field, "apiVersion", "v1");
        }
    }
    probes::default(container);
    if owner == SpecOwner::Pod {
        resources::default_requests(container);
        resources::default_resize_policy(container);
    }
}

/// What pulling an image means when nobody says.
pub(super) fn pull_policy(image: &str) -> &'static str {
    if is_latest(image) {
        "Always"
    } else {
        "IfNotPresent"
    }
}

/// Whether an image reference has no tag or digest, or the tag `latest`.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or_default();
    last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

/// Checks the containers of all three lists.
pub(super) fn validate_all(spec: &Place<'_>, around: Surroundings<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    let containers = spec.get("containers");
    if containers.is_unset() {
        containers.required("", errors);
    }
    for container in containers.items() {
        validate_common(&container, around, errors);
        unique(&container, &mut seen, errors);
        probes::validate(&container, around.grace, errors);
        let policy = container.get("restartPolicy");
        policy.one_of(&["Always", "Never", "OnFailure"], errors);
    }
    host_ports(containers.items(), errors);
    for container in spec.get("initContainers").items() {
        validate_common(&container, around, errors);
        let policy = container.get("restartPolicy");
        policy.one_of(&["Always", "Never", "OnFailure"], errors);
        unique(&container, &mut seen, errors);
        host_ports(std::iter::once(container.clone()), errors);
        if policy.text() == "Always" {
            probes::validate(&container, around.grace, errors);
        } else {
            probes::forbid(&container, errors);
        }
    }
    let others = seen.clone();
    for container in spec.get("ephemeralContainers").items() {
        validate_common(&container, around, errors);
        unique(&container, &mut seen, errors);
        validate_ephemeral(&container, &others, errors);
    }
}

fn unique<'a>(container: &Place<'a>, seen: &mut HashSet<&'a str>, errors: &mut Errors) {
    let name = container.get("name");
    if !name.text().is_empty() && !seen.insert(name.text()) {
        name.duplicate(errors);
    }
}

fn validate_ephemeral(container: &Place<'_>, others: &HashSet<&str>, errors: &mut Errors) {
    let target = container.get("targetContainerName");
    if !target.text().is_empty() && !others.contains(target.text()) {
        errors.push(FieldError::not_found(&target.path, target.text()));
    }
    for field in NOT_EPHEMERAL {
        let place = container.get(field);
        if !place.is_unset() {
            place.forbidden(EPHEMERAL_DETAIL, errors);
        }
    }
    for mount in container.get("volumeMounts").items() {
        for field in ["subPath", "subPathExpr"] {
            if !mount.get(field).is_unset() {
                mount.get(field).forbidden(EPHEMERAL_DETAIL, errors);
            }
        }
    }
}

fn validate_common(container: &Place<'_>, around: Surroundings<'_>, errors: &mut Errors) {
    let name = container.get("name");
    if name.required_text(errors) {
        name.named(names::dns_label, errors);
    }
    let image = container.get("image");
    if image.required_text(errors)
        && around.owner == SpecOwner::Pod
        && image.text().trim() != image.text()
    {
        let detail = "must not have leading or trailing whitespace";
        image.invalid(detail, errors);
    }
    let message = container.get("terminationMessagePolicy");
    message.required_one_of(MESSAGE_POLICIES, errors);
    validate_ports(&container.get("ports"), errors);
    validate_env(&container.get("env"), errors);
    validate_env_from(&container.get("envFrom"), errors);
    mounts::validate(container, around.volumes, errors);
    let policy = container.get("imagePullPolicy");
    policy.required_one_of(PULL_POLICIES, errors);
    resources::validate(&container.get("resources"), around.claims, errors);
    resources::validate_resize(&container.get("resizePolicy"), around.restart, errors);
    let context = container.get("securityContext");
    security::validate_container(&context, around.host_users, errors);
}

fn validate_ports(ports: &Place<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for port in ports.items() {
        let name = port.get("name");
        if !name.text().is_empty() {
            let before = errors.len();
            name.named(names::port_name, errors);
            if errors.len() == before && !seen.insert(name.text()) {
                name.duplicate(errors);
            }
        }
        let number = port.get("containerPort");
        if number.int().unwrap_or_default() == 0 {
            number.required("", errors);
        } else {
            validation::port_number(number.value, &number.path, errors);
        }
        let host = port.get("hostPort");
        if host.int().unwrap_or_default() != 0 {
            validation::port_number(host.value, &host.path, errors);
        }
        validation::protocol(port.value, &port.path, errors);
    }
}

/// No two ports may want the same port of the host.
fn host_ports<'a>(containers: impl Iterator<Item = Place<'a>>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for port in containers.flat_map(|container| container.get("ports").items()) {
        let Some(number) = port.get("hostPort").int().filter(|number| *number != 0) else {
            continue;
        };
        let (protocol, address) = (port.get("protocol"), port.get("hostIP"));
        let key = format!("{}/{}/{number}", protocol.text(), address.text());
        if !seen.insert(key.clone()) {
            let path = port.path.child("hostPort");
            errors.push(FieldError::duplicate(&path, key));
        }
    }
}

fn env_name(name: &Place<'_>, errors: &mut Errors) {
    let printable = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'=';
    if !name.text().bytes().all(printable) {
        name.invalid(ENV_NAME_DETAIL, errors);
    }
}

fn validate_env(list: &Place<'_>, errors: &mut Errors) {
    for env in list.items() {
        let name = env.get("name");
        if name.required_text(errors) {
            env_name(&name, errors);
        }
        let from = env.get("valueFrom");
        if from.is_present() {
            validate_value_from(&env, &from, errors);
        }
    }
}

fn validate_value_from(env: &Place<'_>, from: &Place<'_>, errors: &mut Errors) {
    let mut count = 0;
    for (name, source) in tree::entries(from.value, &[]) {
        if source.is_null() {
            continue;
        }
        count += 1;
        let source = from.get(name);
        match name.as_str() {
            "fieldRef" => downward::env_field(&source, errors),
            "resourceFieldRef" => downward::env_resource(&source, errors),
            _ => {
                source
                    .get("name")
                    .named_if_set(names::dns_subdomain, errors);
                let key = source.get("key");
                if name != "fileKeyRef" && source.get("name").text().is_empty() {
                    source.get("name").named(names::dns_subdomain, errors);
                }
                if key.required_text(errors) && name != "fileKeyRef" {
                    key.named(names::config_key, errors);
                }
            }
        }
    }
    let detail = match (count, env.get("value").text().is_empty()) {
        (0, _) => {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        }
        (_, false) => "may not be specified when `value` is not empty",
        (1, true) => return,
        (_, true) => "may not have more than one field specified at a time",
    };
    errors.push(FieldError::invalid(&from.path, "", detail));
}

fn validate_env_from(list: &Place<'_>, errors: &mut Errors) {
    for source in list.items() {
        env_name(&source.get("prefix"), errors);
        let mut count = 0;
        for field in ["configMapRef", "secretRef"] {
            let reference = source.get(field);
            if reference.is_present() {
                count += 1;
                if reference.get("name").required_text(errors) {
                    reference.get("name").named(names::dns_subdomain, errors);
                }
            }
        }
        let detail = match count {
            0 => "must specify one of: `configMapRef` or `secretRef`",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        errors.push(FieldError::invalid(&list.path, "", detail));
    }
}
