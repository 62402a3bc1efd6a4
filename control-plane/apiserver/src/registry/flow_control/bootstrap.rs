//! The flow schemas and priority levels that every cluster begins with, as data.

use serde_json::{Value, json};

use super::EXEMPT;

const CATCH_ALL: &str = "catch-all";
/// Whether the server keeps the spec as it was made.
pub(crate) const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
const EVERYONE: Sender = Sender::Groups(&["system:unauthenticated", "system:authenticated"]);
const NODES: Sender = Sender::Groups(&["system:nodes"]);
const MANAGER: &str = "system:kube-controller-manager";
const SCHEDULER: &str = "system:kube-scheduler";
const LEADER_VERBS: &[&str] = &["get", "create", "update"];

/// Number of queues and hand size; none: what cannot run now is refused.
type Queues = Option<(i64, i64)>;

/// Name, shares, percentage lent to others, queues.
const LIMITED: [(&str, i64, i64, Queues); 7] = [
    (CATCH_ALL, 5, 0, None),
    ("global-default", 20, 50, Some((128, 6))),
    ("leader-election", 10, 0, Some((16, 4))),
    ("node-high", 40, 25, Some((64, 6))),
    ("system", 30, 33, Some((64, 6))),
    ("workload-high", 40, 50, Some((128, 6))),
    ("workload-low", 100, 90, Some((128, 6))),
];

/// Who sends the requests of a schema.
enum Sender {
    Groups(&'static [&'static str]),
    Users(&'static [&'static str]),
    /// All service accounts of `kube-system`.
    SystemAccounts,
}

/// Which requests those are.
enum Requests {
    All,
    Resources(&'static [Resources]),
    Paths(&'static [&'static str]),
}

/// Requests about some resources of a group.
struct Resources {
    verbs: &'static [&'static str],
    group: &'static str,
    names: &'static [&'static str],
    namespaces: &'static [&'static str],
    cluster: bool,
}

/// Name, level, precedence, distinguisher, who, what.
type Schema = (
    &'static str,
    &'static str,
    i64,
    &'static str,
    &'static [Sender],
    Requests,
);

const fn locks(namespaces: &'static [&'static str]) -> Resources {
    Resources {
        verbs: LEADER_VERBS,
        group: "",
        names: &["endpoints", "configmaps"],
        namespaces,
        cluster: false,
    }
}

const fn leases(verbs: &'static [&'static str]) -> Resources {
    Resources {
        verbs,
        group: "coordination.k8s.io",
        names: &["leases"],
        namespaces: &["*"],
        cluster: false,
    }
}

const NODE_OBJECTS: Resources = Resources {
    verbs: &["*"],
    group: "",
    names: &["nodes", "nodes/status"],
    namespaces: &["*"],
    cluster: true,
};

const SCHEMAS: &[Schema] = &[
    (
        EXEMPT,
        EXEMPT,
        1,
        "",
        &[Sender::Groups(&["system:masters"])],
        Requests::All,
    ),
    (
        "probes",
        EXEMPT,
        2,
        "",
        &[EVERYONE],
        Requests::Paths(&["/healthz", "/readyz", "/livez"]),
    ),
    (
        "system-leader-election",
        "leader-election",
        100,
        "ByUser",
        &[Sender::Users(&[MANAGER, SCHEDULER]), Sender::SystemAccounts],
        Requests::Resources(&[locks(&["kube-system"]), leases(LEADER_VERBS)]),
    ),
    (
        "workload-leader-election",
        "leader-election",
        200,
        "ByUser",
        &[Sender::SystemAccounts],
        Requests::Resources(&[locks(&["*"]), leases(LEADER_VERBS)]),
    ),
    (
        "system-node-high",
        "node-high",
        400,
        "ByUser",
        &[NODES],
        Requests::Resources(&[NODE_OBJECTS, leases(&["*"])]),
    ),
    (
        "system-nodes",
        "system",
        500,
        "ByUser",
        &[NODES],
        Requests::All,
    ),
    (
        "kube-controller-manager",
        "workload-high",
        800,
        "ByNamespace",
        &[Sender::Users(&[MANAGER])],
        Requests::All,
    ),
    (
        "kube-scheduler",
        "workload-high",
        800,
        "ByNamespace",
        &[Sender::Users(&[SCHEDULER])],
        Requests::All,
    ),
    (
        "kube-system-service-accounts",
        "workload-high",
        900,
        "ByNamespace",
        &[Sender::SystemAccounts],
        Requests::All,
    ),
    (
        "service-accounts",
        "workload-low",
        9000,
        "ByUser",
        &[Sender::Groups(&["system:serviceaccounts"])],
        Requests::All,
    ),
    (
        "global-default",
        "global-default",
        9900,
        "ByUser",
        &[EVERYONE],
        Requests::All,
    ),
    (
        CATCH_ALL,
        CATCH_ALL,
        10_000,
        "ByUser",
        &[EVERYONE],
        Requests::All,
    ),
];

fn metadata(name: &str) -> Value {
    json!({"name": name, "annotations": {AUTO_UPDATE: "true"}})
}

fn limited(name: &str, shares: i64, lent: i64, queues: Queues) -> Value {
    let response = match queues {
        None => json!({"type": "Reject"}),
        Some((queues, hand)) => json!({"type": "Queue", "queuing": {
            "handSize": hand, "queueLengthLimit": 50, "queues": queues}}),
    };
    json!({"metadata": metadata(name), "spec": {"type": "Limited", "limited": {
        "lendablePercent": lent, "limitResponse": response, "nominalConcurrencyShares": shares}}})
}

/// All priority levels.
pub(crate) fn levels() -> Vec<Value> {
    let exempt = json!({"metadata": metadata(EXEMPT), "spec": {"type": "Exempt",
        "exempt": {"lendablePercent": 0, "nominalConcurrencyShares": 0}}});
    let rest = LIMITED
        .iter()
        .map(|(name, shares, lent, queues)| limited(name, *shares, *lent, *queues));
    std::iter::once(exempt).chain(rest).collect()
}

fn subjects(sender: &Sender) -> Vec<Value> {
    match sender {
        Sender::Groups(names) => names
            .iter()
            .map(|name| json!({"kind": "Group", "group": {"name": name}}))
            .collect(),
        Sender::Users(names) => names
            .iter()
            .map(|name| json!({"kind": "User", "user": {"name": name}}))
            .collect(),
        Sender::SystemAccounts => vec![json!({"kind": "ServiceAccount",
            "serviceAccount": {"name": "*", "namespace": "kube-system"}})],
    }
}

fn resource_rule(rule: &Resources) -> Value {
    let mut value = json!({"verbs": rule.verbs, "apiGroups": [rule.group],
        "resources": rule.names, "namespaces": rule.namespaces});
    if rule.cluster {
        value["clusterScope"] = json!(true);
    }
    value
}

fn object((name, level, precedence, distinguisher, senders, requests): &Schema) -> Value {
    let subjects: Vec<Value> = senders.iter().flat_map(subjects).collect();
    let mut rule = json!({"subjects": subjects});
    match requests {
        Requests::All => {
            rule["resourceRules"] = json!([{"verbs": ["*"], "apiGroups": ["*"],
                "resources": ["*"], "clusterScope": true, "namespaces": ["*"]}]);
            rule["nonResourceRules"] = json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]);
        }
        Requests::Resources(rules) => {
            rule["resourceRules"] = rules.iter().map(resource_rule).collect();
        }
        Requests::Paths(paths) => {
            rule["nonResourceRules"] = json!([{"verbs": ["get"], "nonResourceURLs": paths}]);
        }
    }
    let mut spec = json!({"priorityLevelConfiguration": {"name": level},
        "matchingPrecedence": precedence, "rules": [rule]});
    if !distinguisher.is_empty() {
        spec["distinguisherMethod"] = json!({"type": distinguisher});
    }
    json!({"metadata": metadata(name), "spec": spec})
}

/// All flow schemas.
pub(crate) fn schemas() -> Vec<Value> {
    SCHEMAS.iter().map(object).collect()
}

fn is_mandatory(name: &str) -> bool {
    name == EXEMPT || name == CATCH_ALL
}

/// The schemas whose spec is fixed.
pub(crate) fn mandatory_schemas() -> impl Iterator<Item = Value> {
    SCHEMAS
        .iter()
        .filter(|schema| is_mandatory(schema.0))
        .map(object)
}

/// The schema of all that no other matches.
pub(crate) fn catch_all() -> Value {
    let mut fixed = mandatory_schemas();
    let found = fixed.find(|schema| schema["metadata"]["name"] == CATCH_ALL);
    found.unwrap_or_default()
}

/// The levels whose spec is fixed.
pub(crate) fn mandatory_levels() -> impl Iterator<Item = Value> {
    let named = |level: &Value| level["metadata"]["name"].as_str().is_some_and(is_mandatory);
    levels().into_iter().filter(named)
}

/// The schema whose spec is fixed, if `name` is one.
pub(super) fn mandatory_schema(name: &str) -> Option<Value> {
    mandatory_schemas().find(|schema| schema["metadata"]["name"] == name)
}

/// The level whose spec is fixed, if `name` is one.
pub(super) fn mandatory_level(name: &str) -> Option<Value> {
    mandatory_levels().find(|level| level["metadata"]["name"] == name)
}
