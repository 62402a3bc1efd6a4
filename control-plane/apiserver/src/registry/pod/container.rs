//! One container: defaults, validation, and the pod's quality-of-service class.

use proto_api::names;
use proto_api::quantity::Amount;
use serde_json::{Value, json};

use super::SpecOwner;
use crate::field::{FieldError, Path};
use crate::tree::{self, Object};
use crate::validation;

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];

/// Fills what the client left out of a container.
pub(super) fn default_container(container: &mut Object, owner: SpecOwner, host_network: bool) {
    let image = container
        .get("image")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let policy = if is_latest(image) {
        "Always"
    } else {
        "IfNotPresent"
    };
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
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(name).filter(|probe| !probe.is_null()) {
            default_probe(tree::as_object(probe));
        }
    }
    if let Some(Value::Object(hooks)) = container.get_mut("lifecycle") {
        for hook in hooks.values_mut() {
            if let Some(http) = hook.get_mut("httpGet").filter(|http| !http.is_null()) {
                default_http_get(tree::as_object(http));
            }
        }
    }
    if owner == SpecOwner::Pod {
        default_requests(container);
    }
}

fn default_probe(probe: &mut Object) {
    let numbers = [("timeoutSeconds", 1), ("periodSeconds", 10)];
    for (name, value) in numbers
        .into_iter()
        .chain([("successThreshold", 1), ("failureThreshold", 3)])
    {
        if probe.get(name).and_then(Value::as_i64).unwrap_or_default() == 0 {
            probe.insert(name.to_owned(), json!(value));
        }
    }
    if let Some(http) = probe.get_mut("httpGet").filter(|http| !http.is_null()) {
        default_http_get(tree::as_object(http));
    }
    if let Some(grpc) = probe.get_mut("grpc").filter(|grpc| !grpc.is_null()) {
        tree::default(tree::as_object(grpc), "service", "");
    }
}

fn default_http_get(http: &mut Object) {
    tree::default_text(http, "path", "/");
    tree::default_text(http, "scheme", "HTTP");
}

/// A limit without a request is its own request.
fn default_requests(container: &mut Object) {
    let Some(Value::Object(resources)) = container.get_mut("resources") else {
        return;
    };
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else {
        return;
    };
    if limits.is_empty() {
        return;
    }
    let requests = resources
        .entry("requests".to_owned())
        .or_insert(Value::Null);
    let requests = tree::as_object(requests);
    for (name, limit) in limits {
        tree::default(requests, &name, limit);
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

/// Checks one container. `volumes`: names that mounts may use.
pub(super) fn validate(
    container: &Value,
    path: &Path,
    volumes: &std::collections::HashSet<&str>,
    errors: &mut Vec<FieldError>,
) {
    let name = tree::text(container, &["name"]);
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    } else {
        validation::sentences(name, &path.child("name"), names::dns_label(name), errors);
    }
    let image = tree::text(container, &["image"]);
    if image.is_empty() {
        errors.push(FieldError::required(&path.child("image"), ""));
    } else if image.trim() != image {
        let detail = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(&path.child("image"), image, detail));
    }
    let policy = tree::text(container, &["imagePullPolicy"]);
    if !PULL_POLICIES.contains(&policy) {
        let path = path.child("imagePullPolicy");
        errors.push(FieldError::not_supported(&path, policy, PULL_POLICIES));
    }
    validate_ports(container, &path.child("ports"), errors);
    validate_env(container, &path.child("env"), errors);
    validate_mounts(container, &path.child("volumeMounts"), volumes, errors);
    validate_resources(
        tree::at(container, &["resources"]),
        &path.child("resources"),
        errors,
    );
    for field in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = tree::at(container, &[field]);
        if probe.is_object() {
            validate_probe(probe, &path.child(field), field, errors);
        }
    }
}

fn validate_ports(container: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let mut seen = std::collections::HashSet::new();
    for (i, port) in tree::list(container, &["ports"]).iter().enumerate() {
        let path = path.index(i);
        let name = tree::text(port, &["name"]);
        if !name.is_empty() {
            validation::sentences(name, &path.child("name"), names::port_name(name), errors);
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(&path.child("name"), name));
            }
        }
        let number = tree::at(port, &["containerPort"]);
        if number.as_i64().unwrap_or_default() == 0 {
            errors.push(FieldError::required(&path.child("containerPort"), ""));
        } else {
            validation::port_number(number, &path.child("containerPort"), errors);
        }
        let host = tree::at(port, &["hostPort"]);
        if host.as_i64().unwrap_or_default() != 0 {
            validation::port_number(host, &path.child("hostPort"), errors);
        }
        validation::protocol(port, &path, errors);
    }
}

fn validate_env(container: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for (i, env) in tree::list(container, &["env"]).iter().enumerate() {
        let path = path.index(i);
        let name = tree::text(env, &["name"]);
        if name.is_empty() {
            errors.push(FieldError::required(&path.child("name"), ""));
        } else if name.contains('=') || !name.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            let detail = "a valid environment variable name must consist only of printable ASCII characters other than '='";
            errors.push(FieldError::invalid(&path.child("name"), name, detail));
        }
        let from = tree::at(env, &["valueFrom"]);
        if from.is_object() && !tree::text(env, &["value"]).is_empty() {
            let detail = "may not be specified when `value` is not empty";
            errors.push(FieldError::invalid(&path.child("valueFrom"), "", detail));
        }
        if from
            .as_object()
            .is_some_and(|from| from.values().all(Value::is_null))
        {
            let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`";
            errors.push(FieldError::invalid(&path.child("valueFrom"), "", detail));
        }
    }
}

fn validate_mounts(
    container: &Value,
    path: &Path,
    volumes: &std::collections::HashSet<&str>,
    errors: &mut Vec<FieldError>,
) {
    let mut seen = std::collections::HashSet::new();
    for (i, mount) in tree::list(container, &["volumeMounts"]).iter().enumerate() {
        let path = path.index(i);
        let name = tree::text(mount, &["name"]);
        if name.is_empty() {
            errors.push(FieldError::required(&path.child("name"), ""));
        } else if !volumes.contains(name) {
            errors.push(FieldError::not_found(&path.child("name"), name));
        }
        let target = tree::text(mount, &["mountPath"]);
        if target.is_empty() {
            errors.push(FieldError::required(&path.child("mountPath"), ""));
        } else if !seen.insert(target) {
            let detail = "must be unique";
            errors.push(FieldError::invalid(
                &path.child("mountPath"),
                target,
                detail,
            ));
        }
    }
}

fn validate_resources(resources: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for field in ["limits", "requests"] {
        for (name, value) in tree::entries(resources, &[field]) {
            let path = path.child(field).key(name);
            match quantity(value) {
                None => {
                    let detail = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
                    errors.push(FieldError::invalid(&path, value.clone(), detail));
                }
                Some(quantity) if quantity.nano() < 0 => {
                    let detail = "must be greater than or equal to 0";
                    errors.push(FieldError::invalid(&path, value.clone(), detail));
                }
                Some(_) => {}
            }
        }
    }
    for (name, request) in tree::entries(resources, &["requests"]) {
        let limit = tree::at(resources, &["limits", name]);
        let (Some(want), Some(most)) = (quantity(request), quantity(limit)) else {
            continue;
        };
        if want.nano() > most.nano() {
            let detail = format!(
                "must be less than or equal to {name} limit of {}",
                limit.as_str().unwrap_or_default()
            );
            let path = path.child("requests");
            errors.push(FieldError::invalid(&path, request.clone(), detail));
        }
    }
}

fn quantity(value: &Value) -> Option<Amount> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

fn validate_probe(probe: &Value, path: &Path, field: &str, errors: &mut Vec<FieldError>) {
    let actions: Vec<&str> = ["exec", "httpGet", "tcpSocket", "grpc"]
        .into_iter()
        .filter(|action| tree::at(probe, &[action]).is_object())
        .collect();
    if actions.is_empty() {
        errors.push(FieldError::required(path, "must specify a handler type"));
    }
    for extra in actions.iter().skip(1) {
        let detail = "may not specify more than 1 handler type";
        errors.push(FieldError::forbidden(&path.child(extra), detail));
    }
    let numbers = ["initialDelaySeconds", "timeoutSeconds", "periodSeconds"];
    for number in numbers
        .into_iter()
        .chain(["successThreshold", "failureThreshold"])
    {
        validation::non_negative(tree::at(probe, &[number]), &path.child(number), errors);
    }
    let successes = tree::int(probe, &["successThreshold"]).unwrap_or(1);
    if field != "readinessProbe" && successes != 1 {
        let path = path.child("successThreshold");
        errors.push(FieldError::invalid(&path, successes, "must be 1"));
    }
    for action in ["httpGet", "tcpSocket"] {
        let port = tree::at(probe, &[action, "port"]);
        let path = path.child(action).child("port");
        if port.is_number() {
            validation::port_number(port, &path, errors);
        } else if let Some(name) = port.as_str() {
            validation::sentences(name, &path, names::port_name(name), errors);
        }
    }
}

/// The pod's quality-of-service class, from its containers' cpu and memory.
pub(super) fn qos_class(pod: &Value) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    let all = ["containers", "initContainers"].into_iter();
    for container in all.flat_map(|field| tree::list(pod, &["spec", field])) {
        for resource in ["cpu", "memory"] {
            let read = |kind| quantity(tree::at(container, &["resources", kind, resource]));
            let nano = |kind| read(kind).map_or(0, Amount::nano);
            let (limit, request) = (nano("limits"), nano("requests"));
            any |= limit > 0 || request > 0;
            guaranteed &= limit > 0 && (request == limit || request == 0);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
