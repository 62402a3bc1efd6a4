//! What a pod uses, and which scopes it is in.

use std::collections::BTreeMap;

use proto_api::quantity::{Amount, Format};
use serde_json::Value;

use super::Usage;
use crate::tree;
use crate::validation::amount;

/// Resources that a quota may hold containers to naming.
const NAMED: &[(&str, &str, &str)] = &[
    ("cpu", "requests", "cpu"),
    ("memory", "requests", "memory"),
    ("requests.cpu", "requests", "cpu"),
    ("requests.memory", "requests", "memory"),
    ("limits.cpu", "limits", "cpu"),
    ("limits.memory", "limits", "memory"),
];

fn has_ended(pod: &Value) -> bool {
    matches!(
        tree::text(pod, &["status", "phase"]),
        "Failed" | "Succeeded"
    )
}

/// What a pod uses beside being one object; nothing once it has ended.
pub(super) fn usage(pod: &Value) -> Usage {
    let mut used = Usage::new();
    if has_ended(pod) {
        return used;
    }
    used.insert("pods".to_owned(), Amount::from_units(1, Format::DecimalSi));
    for (name, amount) in total(pod, "requests") {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            used.insert(name.clone(), amount);
        }
        if name.starts_with("hugepages-") {
            used.insert(name.clone(), amount);
        }
        used.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in total(pod, "limits") {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            used.insert(format!("limits.{name}"), amount);
        }
    }
    used
}

/// What a pod asks for: its containers and sidecars together, or more if an init container needs
/// more while it runs, and the overhead.
fn total(pod: &Value, field: &str) -> Usage {
    let read = |container: &Value| -> BTreeMap<String, Amount> {
        tree::entries(container, &["resources", field])
            .filter_map(|(name, value)| Some((name.clone(), amount(value)?)))
            .collect()
    };
    let add = |into: &mut Usage, one: &Usage| {
        for (name, amount) in one {
            let slot = into.entry(name.clone()).or_default();
            *slot = slot.plus(*amount);
        }
    };
    let mut all = Usage::new();
    for container in tree::list(pod, &["spec", "containers"]) {
        add(&mut all, &read(container));
    }
    let (mut sidecars, mut peak) = (Usage::new(), Usage::new());
    for container in tree::list(pod, &["spec", "initContainers"]) {
        let mut now = read(container);
        if tree::text(container, &["restartPolicy"]) == "Always" {
            add(&mut all, &now);
            add(&mut sidecars, &now);
            now = sidecars.clone();
        } else {
            add(&mut now, &sidecars);
        }
        for (name, amount) in now {
            let slot = peak.entry(name).or_default();
            *slot = (*slot).max(amount);
        }
    }
    for (name, amount) in peak {
        let slot = all.entry(name).or_default();
        *slot = (*slot).max(amount);
    }
    for (name, value) in tree::entries(pod, &["spec", "overhead"]) {
        if let Some(extra) = amount(value)
            && (field == "requests" || all.contains_key(name))
        {
            let slot = all.entry(name.clone()).or_default();
            *slot = slot.plus(extra);
        }
    }
    all
}

/// Which of the resources that `counted` knows the containers do not name, and which containers.
pub(super) fn missing(pod: &Value, counted: impl Fn(&str) -> bool) -> Option<String> {
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let lists = ["containers", "initContainers"];
    for container in lists.iter().flat_map(|l| tree::list(pod, &["spec", l])) {
        for (name, field, resource) in NAMED {
            let set = tree::at(container, &["resources", field, resource]);
            if counted(name) && set.is_null() {
                let own = tree::text(container, &["name"]);
                found.entry(name).or_default().push(own);
            }
        }
    }
    let parts: Vec<String> = found
        .into_iter()
        .map(|(name, mut containers)| {
            containers.sort_unstable();
            containers.dedup();
            format!("{name} for: {}", containers.join(","))
        })
        .collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Whether a pod is in a scope, as `selector` means it.
pub(super) fn in_scope(pod: &Value, scope: &str, selector: &Value) -> bool {
    let best_effort = || {
        let lists = ["containers", "initContainers"];
        let mut all = lists.iter().flat_map(|l| tree::list(pod, &["spec", l]));
        all.all(|container| {
            ["requests", "limits"].iter().all(|field| {
                ["cpu", "memory"].iter().all(|resource| {
                    amount(tree::at(container, &["resources", field, resource]))
                        .is_none_or(|amount| amount.nano() == 0)
                })
            })
        })
    };
    let bounded = tree::int(pod, &["spec", "activeDeadlineSeconds"]).is_some();
    match scope {
        "Terminating" => bounded,
        "NotTerminating" => !bounded,
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "PriorityClass" => {
            let class = tree::text(pod, &["spec", "priorityClassName"]);
            let listed = tree::list(selector, &["values"]).iter().any(|v| v == class);
            match tree::text(selector, &["operator"]) {
                "In" => listed,
                "NotIn" => !listed,
                "DoesNotExist" => class.is_empty(),
                _ => !class.is_empty(),
            }
        }
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

fn crosses_namespaces(pod: &Value) -> bool {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let crosses = |term: &Value| {
        !tree::list(term, &["namespaces"]).is_empty()
            || tree::at(term, &["namespaceSelector"]).is_object()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let affinity = tree::at(pod, &["spec", "affinity", kind]);
        tree::list(affinity, &[REQUIRED]).iter().any(crosses)
            || tree::list(affinity, &[PREFERRED])
                .iter()
                .any(|term| crosses(tree::at(term, &["podAffinityTerm"])))
    })
}
