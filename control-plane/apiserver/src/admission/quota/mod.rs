//! ResourceQuota: what objects use, which quotas count them, and when a quota is exceeded.
//!
//! Owns: the arithmetic. The commit of every counted write changes the quotas of its namespace as
//! well (`server/quota.rs`), so that concurrent writes cannot overrun one.

mod pods;

use std::collections::BTreeMap;

use proto_api::quantity::{Amount, Format};
use serde_json::{Value, json};

use crate::tree;
use crate::validation::amount;

/// Amounts by resource name.
pub(crate) type Usage = BTreeMap<String, Amount>;

/// Core kinds that quotas may name without `count/`.
const PLAIN: &[&str] = &[
    "configmaps",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];

/// What `object` of a kind uses.
pub(crate) fn usage(group: &str, plural: &str, object: &Value) -> Usage {
    let one = Amount::from_units(1, Format::DecimalSi);
    let mut used = Usage::new();
    let count = if group.is_empty() {
        format!("count/{plural}")
    } else {
        format!("count/{plural}.{group}")
    };
    used.insert(count, one);
    if !group.is_empty() {
        return used;
    }
    if PLAIN.contains(&plural) {
        used.insert(plural.to_owned(), one);
    }
    match plural {
        "pods" => used.extend(pods::usage(object)),
        "services" => service_usage(object, &mut used),
        "persistentvolumeclaims" => claim_usage(object, &mut used),
        _ => {}
    }
    used
}

fn service_usage(service: &Value, used: &mut Usage) {
    let units = |count: usize| {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        Amount::from_units(count, Format::DecimalSi)
    };
    let ports = tree::list(service, &["spec", "ports"]);
    let node_ports = match tree::text(service, &["spec", "type"]) {
        "NodePort" => ports.len(),
        "LoadBalancer" => {
            used.insert("services.loadbalancers".to_owned(), units(1));
            let allocates = tree::at(service, &["spec", "allocateLoadBalancerNodePorts"]);
            if *allocates == Value::Bool(false) {
                let taken = |port: &&Value| tree::int(port, &["nodePort"]).unwrap_or(0) != 0;
                ports.iter().filter(taken).count()
            } else {
                ports.len()
            }
        }
        _ => return,
    };
    used.insert("services.nodeports".to_owned(), units(node_ports));
}

fn claim_usage(claim: &Value, used: &mut Usage) {
    let storage = amount(tree::at(
        claim,
        &["spec", "resources", "requests", "storage"],
    ));
    let class = tree::text(claim, &["spec", "storageClassName"]);
    let one = Amount::from_units(1, Format::DecimalSi);
    if !class.is_empty() {
        let prefix = format!("{class}.storageclass.storage.k8s.io");
        used.insert(format!("{prefix}/persistentvolumeclaims"), one);
        if let Some(storage) = storage {
            used.insert(format!("{prefix}/requests.storage"), storage);
        }
    }
    if let Some(storage) = storage {
        used.insert("requests.storage".to_owned(), storage);
    }
}

/// Whether a quota counts an object: quotas with scopes count only pods within them.
pub(crate) fn counts(quota: &Value, group: &str, plural: &str, object: &Value) -> bool {
    let scopes = tree::list(quota, &["spec", "scopes"]);
    let selectors = tree::list(quota, &["spec", "scopeSelector", "matchExpressions"]);
    if scopes.is_empty() && selectors.is_empty() {
        return true;
    }
    if !group.is_empty() || plural != "pods" {
        return false;
    }
    let exists = json!({"operator": "Exists"});
    scopes
        .iter()
        .filter_map(Value::as_str)
        .all(|scope| pods::in_scope(object, scope, &exists))
        && selectors
            .iter()
            .all(|selector| pods::in_scope(object, tree::text(selector, &["scopeName"]), selector))
}

/// The amounts at `path` of a quota.
pub(crate) fn amounts(quota: &Value, path: &[&str]) -> Usage {
    tree::entries(quota, path)
        .filter_map(|(name, value)| Some((name.clone(), amount(value)?)))
        .collect()
}

/// Amounts as a field.
pub(crate) fn to_value(usage: &Usage) -> Value {
    usage
        .iter()
        .map(|(name, amount)| (name.clone(), json!(amount.to_string())))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// What a write does to one quota.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing that the quota counts.
    Untouched,
    /// The quota's new `status.used`.
    Used(Usage),
    /// It may not be made; why.
    Exceeded(String),
}

/// Judges a write that replaces the counted usage `before` by `after`.
pub(crate) fn judge(quota: &Value, before: &Usage, after: &Usage) -> Verdict {
    let hard = amounts(quota, &["spec", "hard"]);
    let old = amounts(quota, &["status", "used"]);
    let mut used = old.clone();
    let (mut asked, mut had, mut most) = (Usage::new(), Usage::new(), Usage::new());
    let mut touched = false;
    for (name, limit) in &hard {
        let of = |usage: &Usage| usage.get(name).copied().unwrap_or_default();
        let (was, now) = (of(before), of(after));
        if was == now {
            continue;
        }
        touched = true;
        let total = of(&old);
        let next = total.plus(now).minus(was);
        let next = if next.nano() < 0 {
            Amount::default()
        } else {
            next
        };
        if now > was && next > *limit {
            asked.insert(name.clone(), now.minus(was));
            had.insert(name.clone(), total);
            most.insert(name.clone(), *limit);
        }
        used.insert(name.clone(), next);
    }
    if !asked.is_empty() {
        let text = |usage: &Usage| {
            let all: Vec<String> = usage.iter().map(|(n, a)| format!("{n}={a}")).collect();
            all.join(",")
        };
        let name = tree::text(quota, &["metadata", "name"]);
        return Verdict::Exceeded(format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            text(&asked),
            text(&had),
            text(&most)
        ));
    }
    if touched {
        Verdict::Used(used)
    } else {
        Verdict::Untouched
    }
}

/// Why a quota cannot count a new pod: its containers do not say what they use.
pub(crate) fn missing(quota: &Value, pod: &Value) -> Option<String> {
    let hard = amounts(quota, &["spec", "hard"]);
    let why = pods::missing(pod, |name| hard.contains_key(name))?;
    let name = tree::text(quota, &["metadata", "name"]);
    Some(format!("failed quota: {name}: must specify {why}"))
}

#[cfg(test)]
mod tests;
