//! Node: a machine that runs pods.

use std::collections::HashSet;
use std::net::IpAddr;

use jiff::Timestamp;
use proto_api::names;
use serde_json::{Value, json};

use super::strategy::{Prepare, Strategy};
use crate::field::{FieldError, Path};
use crate::tables::{AGE, Column, NAME, Table, age, column, wide};
use crate::tree;
use crate::validation::{Errors, Place, quantity_value};

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const TAINT_EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

#[derive(Debug)]
pub(super) struct Node;

const COLUMNS: &[Column] = &[
    NAME,
    column("Status", "string", "The status of the node"),
    column("Roles", "string", "The roles of the node"),
    AGE,
    column("Version", "string", "Kubelet Version reported by the node."),
    wide(
        "Internal-IP",
        "string",
        "List of addresses reachable to the node.",
    ),
    wide(
        "External-IP",
        "string",
        "List of addresses reachable to the node.",
    ),
    wide(
        "OS-Image",
        "string",
        "OS Image reported by the node from /etc/os-release.",
    ),
    wide(
        "Kernel-Version",
        "string",
        "Kernel Version reported by the node from 'uname -r'.",
    ),
    wide(
        "Container-Runtime",
        "string",
        "ContainerRuntime Version reported by the node.",
    ),
];

pub(super) static TABLE: Table = Table {
    columns: COLUMNS,
    row,
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let detail = |name: &str| {
        let text = tree::text(object, &["status", "nodeInfo", name]);
        json!(if text.is_empty() { "<unknown>" } else { text })
    };
    vec![
        json!(tree::text(object, &["metadata", "name"])),
        json!(status(object)),
        json!(roles(object)),
        age(object, now),
        json!(tree::text(
            object,
            &["status", "nodeInfo", "kubeletVersion"]
        )),
        json!(address(object, "InternalIP")),
        json!(address(object, "ExternalIP")),
        detail("osImage"),
        detail("kernelVersion"),
        detail("containerRuntimeVersion"),
    ]
}

fn status(object: &Value) -> String {
    let ready = tree::list(object, &["status", "conditions"])
        .iter()
        .find(|condition| tree::text(condition, &["type"]) == "Ready");
    let mut words = vec![
        match ready.map(|condition| tree::text(condition, &["status"])) {
            Some("True") => "Ready",
            Some(_) => "NotReady",
            None => "Unknown",
        },
    ];
    if tree::flag(object, &["spec", "unschedulable"]) {
        words.push("SchedulingDisabled");
    }
    words.join(",")
}

fn roles(object: &Value) -> String {
    let mut roles: Vec<&str> = tree::entries(object, &["metadata", "labels"])
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
            Some(role) if !role.is_empty() => Some(role),
            Some(_) => None,
            None if key == "kubernetes.io/role" => value.as_str().filter(|v| !v.is_empty()),
            None => None,
        })
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() {
        "<none>".to_owned()
    } else {
        roles.join(",")
    }
}

fn address<'a>(object: &'a Value, kind: &str) -> &'a str {
    tree::list(object, &["status", "addresses"])
        .iter()
        .find(|address| tree::text(address, &["type"]) == kind)
        .map_or("<none>", |address| tree::text(address, &["address"]))
}

impl Strategy for Node {
    fn has_status(&self) -> bool {
        true
    }

    fn prepare_create(&self, _object: &mut Value) {
        // A node registers itself together with its status.
    }

    fn default(&self, object: &mut Value) {
        // Both forms of the range are one field.
        let spec = tree::object_mut(object, "spec");
        let single = spec.get("podCIDR").cloned().unwrap_or(Value::Null);
        let first = spec.get("podCIDRs").and_then(|all| all.get(0)).cloned();
        match first {
            None if !tree::is_unset(&single) => {
                spec.insert("podCIDRs".to_owned(), json!([single]));
            }
            Some(first) if tree::is_unset(&single) => {
                spec.insert("podCIDR".to_owned(), first);
            }
            _ => {}
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = Place::root(object, "spec");
        // Upstream reports taints below the metadata.
        let taints = Place::new(
            spec.get("taints").value,
            Path::root("metadata").child("taints"),
        );
        validate_taints(&taints, &mut errors);
        let status = Place::root(object, "status");
        for field in ["capacity", "allocatable"] {
            let amounts = status.get(field);
            for (name, value) in tree::entries(amounts.value, &[]) {
                let place = Place::new(value, amounts.path.child(name));
                quantity_value(name, &place, &mut errors);
            }
        }
        validate_ranges(&spec.get("podCIDRs"), &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _write: Prepare) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (field, name) in [("podCIDRs", "podCIDR"), ("providerID", "providerID")] {
            let before = tree::at(old, &["spec", field]);
            if !tree::is_unset(before) && before != tree::at(new, &["spec", field]) {
                let path = Path::root("spec").child(field);
                let detail =
                    format!("node updates may not change {name} except from \"\" to valid");
                errors.push(FieldError::forbidden(&path, detail));
            }
        }
        errors
    }
}

fn validate_taints(taints: &Place<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for taint in taints.items() {
        let (key, value) = (taint.get("key"), taint.get("value"));
        key.named(names::qualified_name, errors);
        let problems = names::label_value(value.text());
        if !problems.is_empty() {
            let detail = problems.join(";");
            errors.push(FieldError::invalid(&value.path, value.text(), detail));
        }
        let effect = taint.get("effect");
        effect.required_one_of(TAINT_EFFECTS, errors);
        if !seen.insert((key.text(), effect.text())) {
            let detail = "taints must be unique by key and effect pair";
            let error = FieldError::duplicate(&taint.path, taint.value.clone());
            errors.push(error.because(detail));
        }
    }
}

fn validate_ranges(ranges: &Place<'_>, errors: &mut Errors) {
    let mut families = HashSet::new();
    for range in ranges.items() {
        let parsed = range.text().split_once('/').and_then(|(address, prefix)| {
            let address: IpAddr = address.parse().ok()?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            let prefix: u8 = prefix.parse().ok()?;
            (prefix <= most).then_some(address)
        });
        match parsed {
            Some(address) => {
                families.insert(address.is_ipv4());
            }
            None => {
                let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
                range.invalid(detail, errors);
            }
        }
    }
    if ranges.len() > 1 && families.len() < ranges.len() {
        let detail = "may specify no more than one CIDR for each IP family";
        ranges.invalid(detail, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(spec: Value) -> Vec<String> {
        let mut node = json!({"metadata": {"name": "n"}});
        node["spec"] = spec;
        Node.default(&mut node);
        let errors = Node.validate(&node);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn taints_and_ranges_are_checked_in_upstreams_words() {
        let taint = json!({"key": "a", "effect": "NoSchedule"});
        assert_eq!(
            problems(json!({"taints": [taint, taint]})),
            [
                "metadata.taints[1]: Duplicate value: {\"key\":\"a\",\"effect\":\"NoSchedule\"}: taints must be unique by key and effect pair"
            ]
        );
        assert_eq!(
            problems(json!({"podCIDRs": ["10.0.0.0/24", "10.0.1.0/24"]})),
            [
                "spec.podCIDRs: Invalid value: [\"10.0.0.0/24\",\"10.0.1.0/24\"]: may specify no more than one CIDR for each IP family"
            ]
        );
        assert!(problems(json!({"podCIDR": "10.0.0.0/24"})).is_empty());
        let old = json!({"spec": {"podCIDRs": ["10.0.0.0/24"]}});
        let new = json!({"spec": {"podCIDRs": ["10.0.1.0/24"]}});
        let errors = Node.validate_update(&new, &old, Prepare::Main);
        assert_eq!(
            errors[0].to_string(),
            "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"
        );
    }
}
