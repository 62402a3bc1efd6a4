//! Service: defaults, validation, what may change, and which numbers it takes (`numbers.rs`).

mod families;
mod numbers;
mod table;
mod validate;

use serde_json::{Value, json};

use super::strategy::{NameRule, Prepare, Strategy};
use crate::field::FieldError;
use crate::tree::{self, Object};
use crate::validation::Place;

pub(crate) use self::numbers::{Allocator, Numbers, Wanted};
pub(super) use self::table::{TABLE, label_set};

const AFFINITY_SECONDS: i64 = 10_800;

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
                families::keep(new, old);
                keep_numbers(new, old);
                drop_of_type(new, old);
            }
            Prepare::Status | Prepare::Approval => super::strategy::keep_all_but_status(new, old),
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validate::spec(&Place::root(object, "spec"), &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, write: Prepare) -> Vec<FieldError> {
        let mut errors = Vec::new();
        match write {
            Prepare::Main | Prepare::Approval => {
                let (now, before) = (Place::root(new, "spec"), Place::root(old, "spec"));
                validate::change(&now, &before, &mut errors);
            }
            Prepare::Status => validate::status(&Place::root(new, "status"), &mut errors),
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
    let external = spec
        .get("externalIPs")
        .is_some_and(|ips| !tree::is_unset(ips));
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && external) {
        tree::default_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        tree::default(spec, "allocateLoadBalancerNodePorts", true);
    }
    if kind != "ExternalName" {
        tree::default_text(spec, "internalTrafficPolicy", "Cluster");
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
    let external = !tree::is_unset(tree::at(new, &["spec", "externalIPs"]));
    let spec = tree::object_mut(new, "spec");
    let local = |spec: &Object| {
        spec.get("externalTrafficPolicy")
            .is_some_and(|p| p == "Local")
    };
    let lost_health_check = now != "LoadBalancer" || !local(spec);
    let mut drop = |field: &str| {
        if spec.get(field) == old_spec.get(field) {
            spec.shift_remove(field);
        }
    };
    if lost_health_check {
        drop("healthCheckNodePort");
    }
    if has_node_ports(&before) && !has_node_ports(&now) && !external {
        drop("externalTrafficPolicy");
    }
    if before == "LoadBalancer" && now != "LoadBalancer" {
        drop("allocateLoadBalancerNodePorts");
        drop("loadBalancerClass");
    }
    if before != "ExternalName" && now == "ExternalName" {
        drop("clusterIP");
        drop("clusterIPs");
        drop("ipFamilies");
        drop("ipFamilyPolicy");
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

#[cfg(test)]
mod tests;
