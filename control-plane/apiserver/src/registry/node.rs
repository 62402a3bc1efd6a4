//! Node: a machine that runs pods.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::strategy::{Prepare, Strategy};
use crate::field::{FieldError, Path};
use crate::tables::{AGE, Column, NAME, Table, age, column, wide};
use crate::{tree, validation};

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

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (i, taint) in tree::list(object, &["spec", "taints"]).iter().enumerate() {
            let path = Path::root("spec").child("taints").index(i);
            let key = tree::text(taint, &["key"]);
            let sentences = proto_api::names::qualified_name(key);
            validation::sentences(key, &path.child("key"), sentences, &mut errors);
            let effect = tree::text(taint, &["effect"]);
            if effect.is_empty() {
                errors.push(FieldError::required(&path.child("effect"), ""));
            } else if !TAINT_EFFECTS.contains(&effect) {
                let path = path.child("effect");
                errors.push(FieldError::not_supported(&path, effect, TAINT_EFFECTS));
            }
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _write: Prepare) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for field in ["podCIDR", "providerID"] {
            let before = tree::text(old, &["spec", field]);
            if !before.is_empty() && before != tree::text(new, &["spec", field]) {
                let path = Path::root("spec").child(field);
                let detail = "node updates may not change it once it is set";
                errors.push(FieldError::forbidden(&path, detail));
            }
        }
        errors
    }
}
