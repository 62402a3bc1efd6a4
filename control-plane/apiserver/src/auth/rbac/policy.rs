//! The roles and bindings that every cluster has, as data: those of Kubernetes 1.37.
//!
//! A row is `verbs | groups | resources | names`; `core` is the group without a name. Rows of
//! paths have an empty group. The roles of controllers are in `controllers`.

use proto_api::selector::Labels;
use serde_json::{Value, json};

use super::controllers::CONTROLLERS;
use super::rule::PolicyRule;
use crate::auth::{AUTHENTICATED, MASTERS};
use crate::registry::rbac::GROUP;
use crate::tree;

/// Annotation: whether a start of the server repairs the object.
pub(super) const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const BOOTSTRAPPING: &str = "kubernetes.io/bootstrapping";

pub(super) const READ: &str = "get list watch";
const WRITE: &str = "create update patch delete deletecollection";
const ALL: &str = "get list watch create update patch delete deletecollection";
pub(super) const EVENTS: Row = ("create update patch", "core events.k8s.io", "events", "");

/// Verbs, groups, resources (or paths, when there is no group), names.
pub(super) type Row = (&'static str, &'static str, &'static str, &'static str);

const VIEW: &[Row] = &[
    (
        READ,
        "core",
        "pods replicationcontrollers replicationcontrollers/scale serviceaccounts services \
         services/status endpoints persistentvolumeclaims persistentvolumeclaims/status configmaps",
        "",
    ),
    (
        READ,
        "core",
        "limitranges resourcequotas bindings pods/status resourcequotas/status namespaces/status \
         replicationcontrollers/status pods/log",
        "",
    ),
    (READ, "core", "namespaces", ""),
    (READ, "core events.k8s.io", "events", ""),
    (READ, "discovery.k8s.io", "endpointslices", ""),
    (
        READ,
        "apps",
        "controllerrevisions statefulsets statefulsets/status statefulsets/scale daemonsets \
         daemonsets/status deployments deployments/status deployments/scale replicasets \
         replicasets/status replicasets/scale",
        "",
    ),
    (
        READ,
        "autoscaling",
        "horizontalpodautoscalers horizontalpodautoscalers/status",
        "",
    ),
    (
        READ,
        "batch",
        "jobs cronjobs cronjobs/status jobs/status",
        "",
    ),
    (
        READ,
        "extensions",
        "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses \
         ingresses/status replicasets replicasets/scale replicasets/status \
         replicationcontrollers/scale networkpolicies",
        "",
    ),
    (
        READ,
        "policy",
        "poddisruptionbudgets poddisruptionbudgets/status",
        "",
    ),
    (
        READ,
        "networking.k8s.io",
        "networkpolicies ingresses ingresses/status",
        "",
    ),
    (
        READ,
        "resource.k8s.io",
        "resourceclaims resourceclaims/status resourceclaimtemplates",
        "",
    ),
];

const EDIT: &[Row] = &[
    (
        READ,
        "core",
        "pods/attach pods/proxy pods/exec pods/portforward secrets services/proxy",
        "",
    ),
    ("impersonate", "core", "serviceaccounts", ""),
    (
        WRITE,
        "core",
        "pods pods/attach pods/proxy pods/exec pods/portforward",
        "",
    ),
    ("create", "core", "pods/eviction", ""),
    (
        WRITE,
        "core",
        "replicationcontrollers replicationcontrollers/scale serviceaccounts services \
         services/proxy persistentvolumeclaims configmaps secrets",
        "",
    ),
    ("create", "core", "serviceaccounts/token", ""),
    (WRITE, "core events.k8s.io", "events", ""),
    (
        WRITE,
        "apps",
        "statefulsets statefulsets/scale daemonsets deployments deployments/scale \
         deployments/rollback replicasets replicasets/scale",
        "",
    ),
    (WRITE, "autoscaling", "horizontalpodautoscalers", ""),
    (WRITE, "batch", "jobs cronjobs", ""),
    (
        WRITE,
        "extensions",
        "daemonsets deployments deployments/scale deployments/rollback ingresses replicasets \
         replicasets/scale replicationcontrollers/scale networkpolicies",
        "",
    ),
    (WRITE, "policy", "poddisruptionbudgets", ""),
    (WRITE, "networking.k8s.io", "networkpolicies ingresses", ""),
    (ALL, "coordination.k8s.io", "leases", ""),
    (
        WRITE,
        "resource.k8s.io",
        "resourceclaims resourceclaimtemplates",
        "",
    ),
];

/// What the node authoriser allows a node at most; it narrows most of it to the node's own pods.
const NODE: &[Row] = &[
    ("create", "authentication.k8s.io", "tokenreviews", ""),
    (
        "create",
        "authorization.k8s.io",
        "subjectaccessreviews localsubjectaccessreviews",
        "",
    ),
    (READ, "core", "services", ""),
    ("create get list watch", "core", "nodes", ""),
    ("update patch", "core", "nodes/status", ""),
    ("update patch", "core", "nodes", ""),
    EVENTS,
    (READ, "core", "pods", ""),
    ("create delete", "core", "pods", ""),
    ("update patch", "core", "pods/status", ""),
    ("create", "core", "pods/eviction", ""),
    (READ, "core", "secrets configmaps", ""),
    (
        "get",
        "core",
        "persistentvolumeclaims persistentvolumes",
        "",
    ),
    ("get", "core", "endpoints", ""),
    (
        "create get list watch",
        "certificates.k8s.io",
        "certificatesigningrequests",
        "",
    ),
    (
        "get create update patch delete",
        "coordination.k8s.io",
        "leases",
        "",
    ),
    ("get", "storage.k8s.io", "volumeattachments", ""),
    ("create", "core", "serviceaccounts/token", ""),
    (
        "get update patch",
        "core",
        "persistentvolumeclaims/status",
        "",
    ),
    ("get watch list", "storage.k8s.io", "csidrivers", ""),
    (
        "get create update patch delete",
        "storage.k8s.io",
        "csinodes",
        "",
    ),
    (READ, "node.k8s.io", "runtimeclasses", ""),
    ("get", "resource.k8s.io", "resourceclaims", ""),
    ("deletecollection", "resource.k8s.io", "resourceslices", ""),
    ("get", "core", "serviceaccounts", ""),
];

const HEALTH: &str = "/livez /readyz /healthz /version /version/";

/// Name, rules; aggregated roles have none of their own.
const CLUSTER_ROLES: &[(&str, &[Row])] = &[
    ("cluster-admin", &[("*", "*", "*", ""), ("*", "", "*", "")]),
    (
        "system:discovery",
        &[(
            "get",
            "",
            "/livez /readyz /healthz /version /version/ /openapi /openapi/* /api /api/* /apis \
             /apis/*",
            "",
        )],
    ),
    (
        "system:monitoring",
        &[
            (
                "get",
                "",
                "/metrics /metrics/slis /livez /readyz /healthz /livez/* /readyz/* /healthz/*",
                "",
            ),
            ("get", "core", "nodes/metrics", ""),
        ],
    ),
    (
        "system:basic-user",
        &[
            (
                "create",
                "authorization.k8s.io",
                "selfsubjectaccessreviews selfsubjectrulesreviews",
                "",
            ),
            ("create", "authentication.k8s.io", "selfsubjectreviews", ""),
        ],
    ),
    ("system:public-info-viewer", &[("get", "", HEALTH, "")]),
    (
        "system:aggregate-to-admin",
        &[
            (
                "create",
                "authorization.k8s.io",
                "localsubjectaccessreviews",
                "",
            ),
            (ALL, GROUP, "roles rolebindings", ""),
        ],
    ),
    ("system:aggregate-to-edit", EDIT),
    ("system:aggregate-to-view", VIEW),
    (
        "system:heapster",
        &[
            (READ, "core", "events pods nodes namespaces", ""),
            (READ, "extensions", "deployments", ""),
        ],
    ),
    ("system:node", NODE),
    (
        "system:node-problem-detector",
        &[
            ("get", "core", "nodes", ""),
            ("patch", "core", "nodes/status", ""),
            EVENTS,
        ],
    ),
    (
        "system:node-bootstrapper",
        &[(
            "create get list watch",
            "certificates.k8s.io",
            "certificatesigningrequests",
            "",
        )],
    ),
    (
        "system:auth-delegator",
        &[
            ("create", "authentication.k8s.io", "tokenreviews", ""),
            ("create", "authorization.k8s.io", "subjectaccessreviews", ""),
        ],
    ),
    (
        "system:kube-aggregator",
        &[(READ, "core", "services endpoints", "")],
    ),
    (
        "system:kube-controller-manager",
        &[
            EVENTS,
            ("create", "coordination.k8s.io", "leases", ""),
            (
                "get update",
                "coordination.k8s.io",
                "leases",
                "kube-controller-manager",
            ),
            ("create", "core", "secrets serviceaccounts", ""),
            ("delete", "core", "secrets", ""),
            (
                "get",
                "core",
                "namespaces secrets serviceaccounts configmaps",
                "",
            ),
            ("update", "core", "secrets serviceaccounts", ""),
            ("create", "authentication.k8s.io", "tokenreviews", ""),
            ("create", "authorization.k8s.io", "subjectaccessreviews", ""),
            ("list watch", "*", "*", ""),
            ("create", "core", "serviceaccounts/token", ""),
        ],
    ),
    (
        "system:kube-dns",
        &[("list watch", "core", "endpoints services", "")],
    ),
    (
        "system:persistent-volume-provisioner",
        &[
            (
                "get list watch create delete",
                "core",
                "persistentvolumes",
                "",
            ),
            (
                "get list watch update",
                "core",
                "persistentvolumeclaims",
                "",
            ),
            (READ, "storage.k8s.io", "storageclasses", ""),
            ("watch", "core", "events", ""),
            EVENTS,
        ],
    ),
    (
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &[(
            "create",
            "certificates.k8s.io",
            "certificatesigningrequests/nodeclient",
            "",
        )],
    ),
    (
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &[(
            "create",
            "certificates.k8s.io",
            "certificatesigningrequests/selfnodeclient",
            "",
        )],
    ),
    (
        "system:volume-scheduler",
        &[
            (
                "get list watch update patch",
                "core",
                "persistentvolumes",
                "",
            ),
            (READ, "storage.k8s.io", "storageclasses", ""),
            (
                "get list watch update patch",
                "core",
                "persistentvolumeclaims",
                "",
            ),
        ],
    ),
    (
        "system:certificates.k8s.io:legacy-unknown-approver",
        &[(
            "approve",
            "certificates.k8s.io",
            "signers",
            "kubernetes.io/legacy-unknown",
        )],
    ),
    (
        "system:certificates.k8s.io:kubelet-serving-approver",
        &[(
            "approve",
            "certificates.k8s.io",
            "signers",
            "kubernetes.io/kubelet-serving",
        )],
    ),
    (
        "system:certificates.k8s.io:kube-apiserver-client-approver",
        &[(
            "approve",
            "certificates.k8s.io",
            "signers",
            "kubernetes.io/kube-apiserver-client",
        )],
    ),
    (
        "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
        &[(
            "approve",
            "certificates.k8s.io",
            "signers",
            "kubernetes.io/kube-apiserver-client-kubelet",
        )],
    ),
    (
        "system:service-account-issuer-discovery",
        &[(
            "get",
            "",
            "/.well-known/openid-configuration /.well-known/openid-configuration/ \
             /openid/v1/jwks /openid/v1/jwks/",
            "",
        )],
    ),
    (
        "system:kubelet-api-admin",
        &[
            (READ, "core", "nodes", ""),
            ("proxy", "core", "nodes", ""),
            (
                "*",
                "core",
                "nodes/proxy nodes/metrics nodes/stats nodes/log",
                "",
            ),
            ("*", "core", "nodes/pods nodes/healthz nodes/configz", ""),
        ],
    ),
    (
        "system:node-proxier",
        &[
            ("list watch", "core", "services endpoints", ""),
            (READ, "core", "nodes", ""),
            EVENTS,
            ("list watch", "networking.k8s.io", "servicecidrs", ""),
            ("list watch", "discovery.k8s.io", "endpointslices", ""),
        ],
    ),
    ("system:kube-scheduler", SCHEDULER),
];

const SCHEDULER: &[Row] = &[
    EVENTS,
    ("create", "coordination.k8s.io", "leases", ""),
    (
        "get update list watch",
        "coordination.k8s.io",
        "leases",
        "kube-scheduler",
    ),
    (ALL, "coordination.k8s.io", "leasecandidates", ""),
    (READ, "core", "nodes", ""),
    ("get list watch delete", "core", "pods", ""),
    ("create", "core", "pods/binding bindings", ""),
    ("patch update", "core", "pods/status", ""),
    (READ, "core", "services replicationcontrollers", ""),
    (READ, "apps extensions", "replicasets", ""),
    (READ, "apps", "statefulsets", ""),
    (READ, "policy", "poddisruptionbudgets", ""),
    (READ, "core", "persistentvolumeclaims persistentvolumes", ""),
    ("create", "authentication.k8s.io", "tokenreviews", ""),
    ("create", "authorization.k8s.io", "subjectaccessreviews", ""),
    (READ, "storage.k8s.io", "csinodes", ""),
    (READ, "storage.k8s.io", "volumeattachments", ""),
    (READ, "core", "namespaces", ""),
    (READ, "storage.k8s.io", "csidrivers", ""),
    (READ, "storage.k8s.io", "csistoragecapacities", ""),
    (READ, "resource.k8s.io", "deviceclasses", ""),
    (
        "get list watch update patch",
        "resource.k8s.io",
        "resourceclaims resourceclaims/status",
        "",
    ),
    ("update", "core", "pods/finalizers", ""),
    (READ, "resource.k8s.io", "resourceslices", ""),
];

/// Name, the role whose label it collects, the role that collects it.
const AGGREGATED: &[(&str, Option<&str>)] = &[
    ("admin", None),
    ("edit", Some("admin")),
    ("view", Some("edit")),
];

/// Role, kind of subject, names.
const CLUSTER_BINDINGS: &[(&str, &str, &[&str])] = &[
    ("cluster-admin", "Group", &[MASTERS]),
    ("system:monitoring", "Group", &["system:monitoring"]),
    ("system:discovery", "Group", &[AUTHENTICATED]),
    ("system:basic-user", "Group", &[AUTHENTICATED]),
    (
        "system:public-info-viewer",
        "Group",
        &[AUTHENTICATED, "system:unauthenticated"],
    ),
    ("system:node-proxier", "User", &["system:kube-proxy"]),
    (
        "system:kube-controller-manager",
        "User",
        &["system:kube-controller-manager"],
    ),
    ("system:kube-dns", "ServiceAccount", &["kube-dns"]),
    ("system:kube-scheduler", "User", &["system:kube-scheduler"]),
    (
        "system:volume-scheduler",
        "User",
        &["system:kube-scheduler"],
    ),
    ("system:node", "", &[]),
    (
        "system:service-account-issuer-discovery",
        "Group",
        &["system:serviceaccounts"],
    ),
];

const AUTH_READER: &str = "extension-apiserver-authentication-reader";

fn rule((verbs, groups, resources, names): Row) -> Value {
    let words =
        |text: &'static str| -> Vec<Box<str>> { text.split_whitespace().map(Box::from).collect() };
    let mut rule = PolicyRule {
        verbs: words(verbs),
        names: words(names),
        ..PolicyRule::default()
    };
    if groups.is_empty() {
        rule.urls = words(resources);
    } else {
        let group = |name: Box<str>| if &*name == "core" { "".into() } else { name };
        rule.groups = words(groups).into_iter().map(group).collect();
        rule.resources = words(resources);
    }
    rule.to_value()
}

fn rules(rows: &[Row]) -> Vec<Value> {
    rows.iter().copied().map(rule).collect()
}

/// The rules of the role `system:node`.
pub(in crate::auth) fn node_rules() -> Vec<Value> {
    rules(NODE)
}

fn aggregation_label(role: &str) -> String {
    format!("rbac.authorization.k8s.io/aggregate-to-{role}")
}

fn named(name: &str, collector: Option<&str>) -> Value {
    let mut labels = json!({BOOTSTRAPPING: "rbac-defaults"});
    if let Some(collector) = collector {
        labels[aggregation_label(collector)] = json!("true");
    }
    json!({"name": name, "labels": labels, "annotations": {AUTO_UPDATE: "true"}})
}

/// The cluster roles, aggregated ones without rules.
pub(super) fn cluster_roles() -> Vec<Value> {
    let plain = CLUSTER_ROLES.iter().map(|(name, rows)| {
        let collector = name.strip_prefix("system:aggregate-to-");
        json!({"metadata": named(name, collector), "rules": rules(rows)})
    });
    let aggregated = AGGREGATED.iter().map(|(name, collector)| {
        let label = aggregation_label(name);
        json!({
            "metadata": named(name, *collector),
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]},
            "rules": [],
        })
    });
    let controllers = CONTROLLERS.iter().map(
        |(name, rows)| json!({"metadata": named(&controller(name), None), "rules": rules(rows)}),
    );
    plain.chain(aggregated).chain(controllers).collect()
}

/// The cluster roles, aggregated ones with what they collect of the others.
pub(super) fn aggregated_cluster_roles() -> Vec<Value> {
    let mut roles = cluster_roles();
    // In the order of their names, in which the cache has them too: rules are told in that order.
    roles.sort_by(|a, b| {
        let name = |role: &Value| tree::text(role, &["metadata", "name"]).to_owned();
        name(a).cmp(&name(b))
    });
    // What a role collects may be collected in turn: once for each.
    for _ in AGGREGATED {
        let collected: Vec<Option<Vec<Value>>> =
            roles.iter().map(|role| aggregate(role, &roles)).collect();
        for (role, rules) in roles.iter_mut().zip(collected) {
            if let Some(rules) = rules {
                role["rules"] = json!(rules);
            }
        }
    }
    roles
}

/// The role of a controller.
fn controller(name: &str) -> String {
    format!("system:controller:{name}")
}

/// The cluster role bindings.
pub(super) fn cluster_role_bindings() -> Vec<Value> {
    let binding = |(role, kind, names): (&str, &str, &[&str])| {
        let subject = |name: &&str| match kind {
            "ServiceAccount" => json!({"kind": kind, "name": name, "namespace": "kube-system"}),
            _ => json!({"kind": kind, "apiGroup": GROUP, "name": name}),
        };
        let subjects: Vec<Value> = names.iter().map(subject).collect();
        json!({
            "metadata": named(role, None),
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
            "subjects": subjects,
        })
    };
    let controllers = CONTROLLERS
        .iter()
        .map(|(name, _)| binding((&controller(name), "ServiceAccount", &[*name])));
    let others = CLUSTER_BINDINGS.iter().copied().map(binding);
    others.chain(controllers).collect()
}

/// The roles in `kube-system`.
pub(super) fn system_roles() -> Vec<Value> {
    let rows = [(
        READ,
        "core",
        "configmaps",
        "extension-apiserver-authentication",
    )];
    vec![json!({"metadata": named(AUTH_READER, None), "rules": rules(&rows)})]
}

/// The role bindings in `kube-system`.
pub(super) fn system_role_bindings() -> Vec<Value> {
    let users = ["system:kube-controller-manager", "system:kube-scheduler"];
    let subjects = users.map(|user| json!({"kind": "User", "apiGroup": GROUP, "name": user}));
    vec![json!({
        "metadata": named(&format!("system::{AUTH_READER}"), None),
        "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": AUTH_READER},
        "subjects": subjects,
    })]
}

/// The rules that an aggregated role collects from `all` roles (in the order of their names);
/// `None` when `role` is not aggregated.
pub(super) fn aggregate(role: &Value, all: &[Value]) -> Option<Vec<Value>> {
    let rule = tree::at(role, &["aggregationRule"]);
    if !rule.is_object() {
        return None;
    }
    let own = tree::text(role, &["metadata", "name"]);
    let mut collected: Vec<Value> = Vec::new();
    for selector in tree::list(rule, &["clusterRoleSelectors"]) {
        let Some(selector) = serde_json::from_value(selector.clone())
            .ok()
            .and_then(|selector| Labels::from_struct(&selector).ok())
        else {
            continue;
        };
        let matching = all.iter().filter(|other| {
            tree::text(other, &["metadata", "name"]) != own
                && selector
                    .matches(|key: &str| tree::at(other, &["metadata", "labels", key]).as_str())
        });
        for rule in matching.flat_map(|other| tree::list(other, &["rules"])) {
            if !collected.contains(rule) {
                collected.push(rule.clone());
            }
        }
    }
    Some(collected)
}
