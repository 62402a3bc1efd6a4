//! Service: defaults, validation, what may change, and which numbers it takes (`numbers.rs`).

mod numbers;
mod table;

use std::collections::HashSet;

use proto_api::names;
use serde_json::{Value, json};

use super::strategy::{NameRule, Prepare, Strategy};
use crate::field::{FieldError, Path};
use crate::tree::{self, Object};
use crate::validation;

pub(crate) use self::numbers::{Allocator, Numbers, Wanted};
pub(super) use self::table::{TABLE, label_set};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const AFFINITIES: &[&str] = &["ClientIP", "None"];
const POLICIES: &[&str] = &["Cluster", "Local"];
const AFFINITY_SECONDS: i64 = 10_800;
const AFFINITY_SECONDS_MAX: i64 = 86_400;

#[derive(Debug)]
pub(super) struct Service;

impl Strategy for Service {
    fn name_rule(&self) -> NameRule {
        NameRule::Label1035
    }

    fn has_status(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let status = object.get("status").is_none();
        default_spec(tree::object_mut(object, "spec"));
        if status {
            tree::as_object(object).insert("status".to_owned(), json!({"loadBalancer": {}}));
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        tree::as_object(object).insert("status".to_owned(), json!({"loadBalancer": {}}));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, write: Prepare) {
        match write {
            Prepare::Main => {
                tree::carry(new, old, "status");
                keep_numbers(new, old);
                drop_of_type(new, old);
            }
            Prepare::Status | Prepare::Approval => super::strategy::keep_all_but_status(new, old),
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = tree::at(object, &["spec"]);
        validate_spec(spec, &Path::root("spec"), &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, write: Prepare) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let external = |object| tree::text(object, &["spec", "type"]) == "ExternalName";
        if write == Prepare::Main && !external(new) && !external(old) {
            let path = Path::root("spec").child("clusterIPs").index(0);
            let before = tree::text(old, &["spec", "clusterIP"]);
            let now = tree::text(new, &["spec", "clusterIP"]);
            if !before.is_empty() && before != now {
                let value = json!([now]);
                let detail = if now.is_empty() {
                    "primary clusterIP can not be unset"
                } else {
                    "may not change once set"
                };
                errors.push(FieldError::invalid(&path, value, detail));
            }
        }
        errors
    }
}

fn default_spec(spec: &mut Object) {
    tree::default_text(spec, "sessionAffinity", "None");
    tree::default_text(spec, "type", "ClusterIP");
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    let headless = is_headless(spec);
    if spec["sessionAffinity"] == "ClientIP" {
        let config = spec
            .entry("sessionAffinityConfig".to_owned())
            .or_insert(Value::Null);
        let client = tree::object_mut(config, "clientIP");
        tree::default(client, "timeoutSeconds", AFFINITY_SECONDS);
    } else {
        spec.shift_remove("sessionAffinityConfig");
    }
    for port in tree::list_mut(spec, "ports") {
        let port = tree::as_object(port);
        tree::default_text(port, "protocol", "TCP");
        let target = port.get("targetPort");
        if target.is_none_or(|t| tree::is_unset(t) || *t == 0)
            && let Some(number) = port.get("port").cloned()
        {
            port.insert("targetPort".to_owned(), number);
        }
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        tree::default_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        tree::default(spec, "allocateLoadBalancerNodePorts", true);
    }
    if kind != "ExternalName" {
        tree::default_text(spec, "internalTrafficPolicy", "Cluster");
        tree::default(spec, "ipFamilies", json!(["IPv4"]));
        tree::default_text(spec, "ipFamilyPolicy", "SingleStack");
    }
    sync_cluster_ips(spec, headless);
}

fn is_headless(spec: &Object) -> bool {
    spec.get("clusterIP").is_some_and(|ip| ip == "None")
}

/// `clusterIP` and the first of `clusterIPs` are one field.
fn sync_cluster_ips(spec: &mut Object, headless: bool) {
    let single = spec
        .get("clusterIP")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let first = spec
        .get("clusterIPs")
        .and_then(|ips| ips.get(0))
        .and_then(Value::as_str);
    let first = first.unwrap_or_default().to_owned();
    if headless || (!single.is_empty() && first.is_empty()) {
        spec.insert("clusterIPs".to_owned(), json!([single]));
    } else if single.is_empty() && !first.is_empty() {
        spec.insert("clusterIP".to_owned(), json!(first));
    }
}

/// What an update that does not mention them keeps: the address and the node ports.
fn keep_numbers(new: &mut Value, old: &Value) {
    let external = |object: &Value| tree::text(object, &["spec", "type"]) == "ExternalName";
    if external(new) || external(old) {
        return;
    }
    let spec = tree::object_mut(new, "spec");
    if spec.get("clusterIP").is_none_or(tree::is_unset) {
        for field in ["clusterIP", "clusterIPs"] {
            if let Some(value) = old["spec"].get(field) {
                spec.insert(field.to_owned(), value.clone());
            }
        }
    }
    if !matches!(
        spec.get("type").and_then(Value::as_str),
        Some("NodePort" | "LoadBalancer")
    ) {
        return;
    }
    let before = tree::list(old, &["spec", "ports"]);
    for port in tree::list_mut(spec, "ports") {
        let same = before.iter().find(|candidate| {
            tree::at(candidate, &["port"]) == tree::at(port, &["port"])
                && tree::at(candidate, &["protocol"]) == tree::at(port, &["protocol"])
        });
        if tree::int(port, &["nodePort"]).unwrap_or_default() == 0
            && let Some(number) = same.and_then(|port| port.get("nodePort"))
        {
            tree::as_object(port).insert("nodePort".to_owned(), number.clone());
        }
    }
}

/// What the old type needed and the new one does not have goes with the type, unless the client
/// changed it as well (then validation tells).
fn drop_of_type(new: &mut Value, old: &Value) {
    let kind = |object: &Value| tree::text(object, &["spec", "type"]).to_owned();
    let (before, now) = (kind(old), kind(new));
    let has_node_ports = |kind: &str| matches!(kind, "NodePort" | "LoadBalancer");
    let old_spec = tree::at(old, &["spec"]).clone();
    let spec = tree::object_mut(new, "spec");
    let mut drop = |field: &str| {
        if spec.get(field) == old_spec.get(field) {
            spec.shift_remove(field);
        }
    };
    if has_node_ports(&before) && !has_node_ports(&now) {
        drop("externalTrafficPolicy");
    }
    if before == "LoadBalancer" && now != "LoadBalancer" {
        drop("allocateLoadBalancerNodePorts");
        drop("loadBalancerClass");
        drop("healthCheckNodePort");
    }
    if before != "ExternalName" && now == "ExternalName" {
        drop("clusterIP");
        drop("clusterIPs");
    }
    if before == "ExternalName" && now != "ExternalName" {
        drop("externalName");
    }
    if !has_node_ports(&before) || has_node_ports(&now) {
        return;
    }
    let held: Vec<Value> = tree::list(&old_spec, &["ports"])
        .iter()
        .map(|port| port["nodePort"].clone())
        .collect();
    for port in tree::list_mut(spec, "ports") {
        if port
            .get("nodePort")
            .is_some_and(|number| held.contains(number))
        {
            tree::as_object(port).shift_remove("nodePort");
        }
    }
}

fn validate_spec(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let kind = tree::text(spec, &["type"]);
    let headless = tree::text(spec, &["clusterIP"]) == "None";
    if !TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(&path.child("type"), kind, TYPES));
    }
    if kind == "ExternalName" {
        let name = tree::text(spec, &["externalName"]);
        let path = path.child("externalName");
        if name.is_empty() {
            errors.push(FieldError::required(&path, ""));
        } else {
            let trimmed = name.strip_suffix('.').unwrap_or(name);
            validation::sentences(name, &path, names::dns_subdomain(trimmed), errors);
        }
        if !matches!(tree::text(spec, &["clusterIP"]), "" | "None") {
            let detail = "may not be set for ExternalName services";
            errors.push(FieldError::forbidden(
                &Path::root("spec").child("clusterIPs").index(0),
                detail,
            ));
        }
    } else if tree::list(spec, &["ports"]).is_empty() && !headless {
        errors.push(FieldError::required(&path.child("ports"), ""));
    }
    if headless && matches!(kind, "NodePort" | "LoadBalancer") {
        let detail = format!("may not be set to 'None' for {kind} services");
        errors.push(FieldError::invalid(
            &path.child("clusterIPs").index(0),
            "None",
            detail,
        ));
    }
    let ip = tree::text(spec, &["clusterIP"]);
    if !ip.is_empty() && !headless {
        validation::ip(ip, &path.child("clusterIPs").index(0), errors);
    }
    validation::labels(
        tree::at(spec, &["selector"]),
        &path.child("selector"),
        errors,
    );
    validate_affinity(spec, path, errors);
    for field in ["externalTrafficPolicy", "internalTrafficPolicy"] {
        let policy = tree::text(spec, &[field]);
        if !policy.is_empty() && !POLICIES.contains(&policy) {
            errors.push(FieldError::not_supported(
                &path.child(field),
                policy,
                POLICIES,
            ));
        }
    }
    validate_ports(spec, path, kind, errors);
    for (i, ip) in tree::list(spec, &["externalIPs"]).iter().enumerate() {
        let path = path.child("externalIPs").index(i);
        validation::ip(ip.as_str().unwrap_or_default(), &path, errors);
    }
}

fn validate_affinity(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let affinity = tree::text(spec, &["sessionAffinity"]);
    if !AFFINITIES.contains(&affinity) {
        let path = path.child("sessionAffinity");
        errors.push(FieldError::not_supported(&path, affinity, AFFINITIES));
    }
    let field = ["sessionAffinityConfig", "clientIP", "timeoutSeconds"];
    if let Some(seconds) = tree::int(spec, &field)
        && !(1..=AFFINITY_SECONDS_MAX).contains(&seconds)
    {
        let path = path
            .child("sessionAffinityConfig")
            .child("clientIP")
            .child("timeoutSeconds");
        let detail = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
        errors.push(FieldError::invalid(&path, seconds, detail));
    }
}

fn validate_ports(spec: &Value, path: &Path, kind: &str, errors: &mut Vec<FieldError>) {
    let ports = tree::list(spec, &["ports"]);
    let (mut port_names, mut numbers, mut node_ports) =
        (HashSet::new(), HashSet::new(), HashSet::new());
    for (i, port) in ports.iter().enumerate() {
        let path = path.child("ports").index(i);
        let name = tree::text(port, &["name"]);
        if name.is_empty() {
            if ports.len() > 1 {
                errors.push(FieldError::required(&path.child("name"), ""));
            }
        } else {
            validation::sentences(name, &path.child("name"), names::dns_label(name), errors);
            if !port_names.insert(name) {
                errors.push(FieldError::duplicate(&path.child("name"), name));
            }
        }
        validation::port_number(tree::at(port, &["port"]), &path.child("port"), errors);
        validation::protocol(port, &path, errors);
        let target = tree::at(port, &["targetPort"]);
        let target_path = path.child("targetPort");
        if target.is_number() {
            validation::port_number(target, &target_path, errors);
        } else if let Some(name) = target.as_str() {
            validation::sentences(name, &target_path, names::port_name(name), errors);
        }
        let protocol = tree::text(port, &["protocol"]);
        let number = tree::int(port, &["port"]).unwrap_or_default();
        if !numbers.insert((protocol, number)) {
            let value = json!({"protocol": protocol, "port": number});
            errors.push(FieldError::duplicate(&path, value));
        }
        let node_port = tree::int(port, &["nodePort"]).unwrap_or_default();
        if node_port != 0 {
            if matches!(kind, "ClusterIP" | "ExternalName") {
                let detail = format!("may not be used when `type` is '{kind}'");
                errors.push(FieldError::forbidden(&path.child("nodePort"), detail));
            } else if !node_ports.insert((protocol, node_port)) {
                errors.push(FieldError::duplicate(&path.child("nodePort"), node_port));
            }
        }
    }
}

#[cfg(test)]
mod tests;
