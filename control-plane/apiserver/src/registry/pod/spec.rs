//! A pod's spec, as a pod or inside a template: defaults and validation.

use std::collections::HashSet;

use proto_api::names;
use serde_json::{Value, json};

use super::{affinity, container, security, volume};
use crate::field::{FieldError, Path};
use crate::tree::{self, Object};
use crate::validation::{self, Errors, Place};

/// What a spec belongs to; some defaults and rules apply to pods only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpecOwner {
    /// A pod.
    Pod,
    /// A workload's template.
    Template,
}

const DNS_POLICIES: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const RESTART_POLICIES: &[&str] = &["Always", "OnFailure", "Never"];
const PREEMPTION_POLICIES: &[&str] = &["PreemptLowerPriority", "Never"];
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCHES_BYTES_MAX: usize = 2048;

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
    for name in ["initContainers", "containers", "ephemeralContainers"] {
        for container in tree::list_mut(spec, name) {
            let container = tree::as_object(container);
            let had_resources = container.contains_key("resources");
            container::default_container(container, owner, host_network);
            if name == "ephemeralContainers" && !had_resources {
                container.shift_remove("resources");
            }
        }
    }
    for volume in tree::list_mut(spec, "volumes") {
        volume::default_volume(tree::as_object(volume));
    }
}

/// Checks a spec; `path` is where it is.
pub(crate) fn validate_spec(spec: &Value, path: &Path, owner: SpecOwner, errors: &mut Errors) {
    let spec = Place::new(spec, path.clone());
    let grace = spec.get("terminationGracePeriodSeconds");
    if !grace.is_present() {
        grace.required("", errors);
    }
    let volumes = volume::validate(&spec.get("volumes"), errors);
    let claims = validate_claims(&spec.get("resourceClaims"), errors);
    let around = container::Surroundings {
        volumes: &volumes,
        claims: &claims,
        grace: grace.int(),
        restart: spec.get("restartPolicy").text(),
        host_users: *spec.get("hostUsers").value != Value::Bool(false),
        owner,
    };
    container::validate_all(&spec, around, errors);
    validate_host_network(&spec, owner, errors);
    required_choice(&spec, "restartPolicy", RESTART_POLICIES, errors);
    required_choice(&spec, "dnsPolicy", DNS_POLICIES, errors);
    let selector = spec.get("nodeSelector");
    validation::labels(selector.value, &selector.path, errors);
    security::validate_pod(&spec, errors);
    affinity::validate_affinity(&spec.get("affinity"), errors);
    validate_dns(&spec, errors);
    validate_gates(&spec, errors);
    affinity::validate_spreading(&spec.get("topologySpreadConstraints"), errors);
    validate_names(&spec, errors);
    affinity::validate_tolerations(&spec.get("tolerations"), errors);
    for alias in spec.get("hostAliases").items() {
        alias.get("ip").ip(errors);
        for host in alias.get("hostnames").items() {
            host.named(names::dns_subdomain, errors);
        }
    }
    spec.get("preemptionPolicy")
        .one_of(PREEMPTION_POLICIES, errors);
    for (name, value) in spec.get("overhead").entries() {
        validation::container_resource_name(name, &value, errors);
        validation::quantity_value(name, &value, errors);
    }
    security::validate_os(&spec, errors);
    let ephemeral = spec.get("ephemeralContainers");
    if owner == SpecOwner::Template && !ephemeral.is_unset() {
        let detail = "ephemeral containers not allowed in pod template";
        ephemeral.forbidden(detail, errors);
    }
}

fn required_choice(spec: &Place<'_>, field: &str, known: &[&str], errors: &mut Errors) {
    spec.get(field).required_one_of(known, errors);
}

/// Checks the resource claims and returns their names.
fn validate_claims<'a>(claims: &Place<'a>, errors: &mut Errors) -> HashSet<&'a str> {
    let mut seen = HashSet::new();
    for claim in claims.items() {
        let name = claim.get("name");
        if !name.required_text(errors) {
            continue;
        }
        if seen.insert(name.text()) {
            name.named(names::dns_label, errors);
        } else {
            name.duplicate(errors);
        }
        let (own, template) = (
            claim.get("resourceClaimName"),
            claim.get("resourceClaimTemplateName"),
        );
        let detail = match (own.is_present(), template.is_present()) {
            (true, true) => {
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            }
            (false, false) => {
                "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            }
            _ => {
                own.named_if_set(names::dns_subdomain, errors);
                template.named_if_set(names::dns_subdomain, errors);
                continue;
            }
        };
        claim.invalid(detail, errors);
    }
    seen
}

/// On the host's network a container's port is the host's.
fn validate_host_network(spec: &Place<'_>, owner: SpecOwner, errors: &mut Errors) {
    if !spec.get("hostNetwork").flag() {
        return;
    }
    for container in spec.get("containers").items() {
        for port in container.get("ports").items() {
            let host = port.get("hostPort").int().unwrap_or_default();
            let own = port.get("containerPort").int().unwrap_or_default();
            if host != own && (owner == SpecOwner::Pod || host != 0) {
                let path = port.path.child("hostPort");
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(&path, host, detail));
            }
        }
    }
}

fn validate_dns(spec: &Place<'_>, errors: &mut Errors) {
    let config = spec.get("dnsConfig");
    let servers = config.get("nameservers");
    if spec.get("dnsPolicy").text() == "None" {
        if !config.is_present() {
            let detail = "must provide `dnsConfig` when `dnsPolicy` is None";
            return config.required(detail, errors);
        }
        if servers.is_unset() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return servers.required(detail, errors);
        }
    }
    if servers.len() > NAMESERVERS_MAX {
        let detail = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        servers.invalid(detail, errors);
    }
    for server in servers.items() {
        server.ip(errors);
    }
    let searches = config.get("searches");
    if searches.len() > SEARCHES_MAX {
        let detail = format!("must not have more than {SEARCHES_MAX} search paths");
        searches.invalid(detail, errors);
    }
    let texts: Vec<&str> = searches.items().map(|one| one.text()).collect();
    if texts.join(" ").len() > SEARCHES_BYTES_MAX {
        let detail = format!(
            "must not have more than {SEARCHES_BYTES_MAX} characters (including spaces) in the \
             search list"
        );
        searches.invalid(detail, errors);
    }
    for search in searches.items().filter(|search| search.text() != ".") {
        let text = search.text().strip_suffix('.').unwrap_or(search.text());
        // Underscores are allowed in search paths.
        let problems = names::dns_subdomain(&text.replace('_', "-"));
        validation::sentences(text, &search.path, problems, errors);
    }
    for option in config.get("options").items() {
        if option.get("name").text().is_empty() {
            option.required("must not be empty", errors);
        }
    }
}

fn validate_gates(spec: &Place<'_>, errors: &mut Errors) {
    for gate in spec.get("readinessGates").items() {
        let kind = gate.get("conditionType");
        kind.named(names::qualified_name, errors);
    }
    let mut seen = HashSet::new();
    for gate in spec.get("schedulingGates").items() {
        let name = gate.get("name").text();
        let problems = names::qualified_name(name);
        validation::sentences(name, &gate.path, problems, errors);
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(&gate.path, name));
        }
    }
}

fn validate_names(spec: &Place<'_>, errors: &mut Errors) {
    for field in [
        "serviceAccountName",
        "nodeName",
        "priorityClassName",
        "runtimeClassName",
    ] {
        spec.get(field).named_if_set(names::dns_subdomain, errors);
    }
    for field in ["hostname", "subdomain"] {
        spec.get(field).named_if_set(names::dns_label, errors);
    }
    let deadline = spec.get("activeDeadlineSeconds");
    deadline.in_range(1..=i64::from(i32::MAX), errors);
}
