//! A pod's spec, as a pod or inside a template: defaults and validation.

use proto_api::names;
use serde_json::{Value, json};

use super::container;
use crate::field::{FieldError, Path};
use crate::tree::{self, Object};
use crate::validation;

/// What a spec belongs to; some defaults apply to pods only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpecOwner {
    /// A pod.
    Pod,
    /// A workload's template.
    Template,
}

const DNS_POLICIES: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const RESTART_POLICIES: &[&str] = &["Always", "OnFailure", "Never"];
const TOLERATION_EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const DEFAULT_MODE: i64 = 0o644;
const TOKEN_SECONDS: i64 = 3600;

/// Fills what the client left out, as upstream's `SetDefaults_Pod…`.
pub(crate) fn default_spec(spec: &mut Object, owner: SpecOwner) {
    tree::default_text(spec, "restartPolicy", "Always");
    tree::default(spec, "terminationGracePeriodSeconds", 30);
    tree::default_text(spec, "dnsPolicy", "ClusterFirst");
    tree::default(spec, "securityContext", json!({}));
    tree::default_text(spec, "schedulerName", "default-scheduler");
    if owner == SpecOwner::Pod {
        tree::default(spec, "enableServiceLinks", true);
    }
    let account = ["serviceAccountName", "serviceAccount"]
        .iter()
        .find_map(|name| {
            spec.get(*name)
                .and_then(Value::as_str)
                .filter(|t| !t.is_empty())
        })
        .map(str::to_owned);
    if let Some(account) = account {
        spec.insert("serviceAccountName".to_owned(), json!(account));
        spec.insert("serviceAccount".to_owned(), json!(account));
    }
    let host_network = spec
        .get("hostNetwork")
        .and_then(Value::as_bool)
        .unwrap_or_default();
    for name in ["initContainers", "containers"] {
        for container in tree::list_mut(spec, name) {
            container::default_container(tree::as_object(container), owner, host_network);
        }
    }
    for volume in tree::list_mut(spec, "volumes") {
        default_volume(tree::as_object(volume));
    }
}

fn default_volume(volume: &mut Object) {
    if volume
        .iter()
        .filter(|(name, value)| *name != "name" && !value.is_null())
        .count()
        == 0
    {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for name in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(name).filter(|source| !source.is_null()) {
            tree::default(tree::as_object(source), "defaultMode", DEFAULT_MODE);
        }
    }
    if let Some(path) = volume.get_mut("hostPath").filter(|path| !path.is_null()) {
        tree::default(tree::as_object(path), "type", "");
    }
    let Some(projected) = volume.get_mut("projected").and_then(Value::as_object_mut) else {
        return;
    };
    for source in tree::list_mut(projected, "sources") {
        let source = tree::as_object(source);
        if let Some(token) = source
            .get_mut("serviceAccountToken")
            .filter(|t| !t.is_null())
        {
            tree::default(tree::as_object(token), "expirationSeconds", TOKEN_SECONDS);
        }
        if let Some(Value::Object(downward)) = source.get_mut("downwardAPI") {
            for item in tree::list_mut(downward, "items") {
                if let Some(Value::Object(field)) = item.get_mut("fieldRef") {
                    tree::default_text(field, "apiVersion", "v1");
                }
            }
        }
    }
}

/// Checks a spec; `path` is where it is.
pub(crate) fn validate_spec(
    spec: &Value,
    path: &Path,
    owner: SpecOwner,
    errors: &mut Vec<FieldError>,
) {
    let volumes = validate_volumes(spec, &path.child("volumes"), errors);
    if tree::list(spec, &["containers"]).is_empty() {
        errors.push(FieldError::required(&path.child("containers"), ""));
    }
    let mut names = std::collections::HashSet::new();
    for field in ["containers", "initContainers"] {
        for (i, one) in tree::list(spec, &[field]).iter().enumerate() {
            let place = path.child(field).index(i);
            container::validate(one, &place, &volumes, errors);
            let name = tree::text(one, &["name"]);
            if !name.is_empty() && !names.insert(name) {
                errors.push(FieldError::duplicate(&place.child("name"), name));
            }
        }
    }
    validate_host_ports(spec, path, errors);
    choice(spec, path, "restartPolicy", RESTART_POLICIES, errors);
    choice(spec, path, "dnsPolicy", DNS_POLICIES, errors);
    let grace = "terminationGracePeriodSeconds";
    validation::non_negative(tree::at(spec, &[grace]), &path.child(grace), errors);
    if let Some(seconds) = tree::int(spec, &["activeDeadlineSeconds"])
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let detail = "must be between 1 and 2147483647, inclusive";
        let path = path.child("activeDeadlineSeconds");
        errors.push(FieldError::invalid(&path, seconds, detail));
    }
    validate_names(spec, path, errors);
    validate_tolerations(spec, &path.child("tolerations"), errors);
    validation::labels(
        tree::at(spec, &["nodeSelector"]),
        &path.child("nodeSelector"),
        errors,
    );
    if owner == SpecOwner::Template && !tree::list(spec, &["ephemeralContainers"]).is_empty() {
        let detail = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(
            &path.child("ephemeralContainers"),
            detail,
        ));
    }
}

fn choice(spec: &Value, path: &Path, field: &str, known: &[&str], errors: &mut Vec<FieldError>) {
    match tree::text(spec, &[field]) {
        "" => errors.push(FieldError::required(&path.child(field), "")),
        value if known.contains(&value) => {}
        value => errors.push(FieldError::not_supported(&path.child(field), value, known)),
    }
}

fn validate_names(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let subdomain: fn(&str) -> Vec<String> = names::dns_subdomain;
    let label: fn(&str) -> Vec<String> = names::dns_label;
    let checks = [
        ("serviceAccountName", subdomain),
        ("nodeName", subdomain),
        ("priorityClassName", subdomain),
        ("hostname", label),
        ("subdomain", label),
    ];
    for (field, check) in checks {
        let value = tree::text(spec, &[field]);
        if !value.is_empty() {
            validation::sentences(value, &path.child(field), check(value), errors);
        }
    }
}

fn validate_tolerations(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for (i, toleration) in tree::list(spec, &["tolerations"]).iter().enumerate() {
        let path = path.index(i);
        let key = tree::text(toleration, &["key"]);
        let operator = tree::text(toleration, &["operator"]);
        let effect = tree::text(toleration, &["effect"]);
        if key.is_empty() && operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(
                &path.child("operator"),
                operator,
                detail,
            ));
        } else if !key.is_empty() {
            validation::sentences(key, &path.child("key"), names::qualified_name(key), errors);
        }
        match operator {
            "" | "Equal" => {}
            "Exists" if !tree::text(toleration, &["value"]).is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                errors.push(FieldError::invalid(
                    &path.child("operator"),
                    operator,
                    detail,
                ));
            }
            "Exists" => {}
            other => errors.push(FieldError::not_supported(
                &path.child("operator"),
                other,
                &["Equal", "Exists"],
            )),
        }
        if !effect.is_empty() && !TOLERATION_EFFECTS.contains(&effect) {
            let path = path.child("effect");
            errors.push(FieldError::not_supported(&path, effect, TOLERATION_EFFECTS));
        }
        if tree::int(toleration, &["tolerationSeconds"]).is_some() && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(&path.child("effect"), effect, detail));
        }
    }
}

/// Checks the volumes and returns their names.
fn validate_volumes<'a>(
    spec: &'a Value,
    path: &Path,
    errors: &mut Vec<FieldError>,
) -> std::collections::HashSet<&'a str> {
    let mut seen = std::collections::HashSet::new();
    for (i, volume) in tree::list(spec, &["volumes"]).iter().enumerate() {
        let path = path.index(i);
        let name = tree::text(volume, &["name"]);
        if name.is_empty() {
            errors.push(FieldError::required(&path.child("name"), ""));
        } else {
            validation::sentences(name, &path.child("name"), names::dns_label(name), errors);
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(&path.child("name"), name));
            }
        }
        let sources: Vec<&String> = volume
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(field, value)| *field != "name" && !value.is_null())
            .map(|(field, _)| field)
            .collect();
        if sources.is_empty() {
            errors.push(FieldError::required(&path, "must specify a volume type"));
        }
        for extra in sources.iter().skip(1) {
            let detail = "may not specify more than 1 volume type";
            errors.push(FieldError::forbidden(&path.child(extra), detail));
        }
        let required = [
            ("secret", "secretName"),
            ("configMap", "name"),
            ("hostPath", "path"),
        ];
        for (source, field) in required {
            let value = tree::at(volume, &[source]);
            if value.is_object() && tree::text(value, &[field]).is_empty() {
                errors.push(FieldError::required(&path.child(source).child(field), ""));
            }
        }
    }
    seen
}

fn validate_host_ports(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let mut seen = std::collections::HashSet::new();
    for (i, container) in tree::list(spec, &["containers"]).iter().enumerate() {
        for (j, port) in tree::list(container, &["ports"]).iter().enumerate() {
            let Some(host_port) = tree::int(port, &["hostPort"]).filter(|p| *p != 0) else {
                continue;
            };
            let protocol = tree::text(port, &["protocol"]);
            let address = tree::text(port, &["hostIP"]);
            let key = format!("{protocol}/{address}/{host_port}");
            let path = path.child("containers").index(i).child("ports").index(j);
            if !seen.insert(key.clone()) {
                errors.push(FieldError::duplicate(&path.child("hostPort"), key));
            }
            if tree::flag(spec, &["hostNetwork"])
                && tree::int(port, &["containerPort"]) != Some(host_port)
            {
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(
                    &path.child("hostPort"),
                    host_port,
                    detail,
                ));
            }
        }
    }
}
