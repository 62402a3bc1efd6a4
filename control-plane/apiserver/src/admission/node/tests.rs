//! The allow-list, field by field, as the schema knows the fields.

use proto_api::schema::{self, Gvk, Shape};
use serde_json::{Value, json};

use super::*;
use crate::auth::NODES;
use crate::registry::Registry;

fn node(name: &str) -> User {
    User::known(&format!("system:node:{name}"), [NODES.to_owned()])
}

fn target(plural: &str, namespace: &str, name: &str, sub: Option<Subresource>) -> Target {
    let registry = Registry::default();
    let kind = registry
        .served()
        .into_iter()
        .find(|kind| kind.plural == plural)
        .unwrap();
    Target {
        subresource: sub,
        ..Target::new(&kind, namespace, name)
    }
}

fn write(target: &Target, who: &str, new: &Value, old: Option<&Value>) -> Result<(), String> {
    Admission::check_node_write(target, &node(who), new, old).map_err(|error| error.message)
}

/// Every second-level field of a kind, by the schema.
fn fields_of(kind: &str) -> Vec<String> {
    let schema = schema::builtin();
    let gvk = Gvk {
        group: "",
        version: "v1",
        kind,
    };
    let top = schema.get(schema.kind(gvk).unwrap());
    let mut fields = Vec::new();
    for part in PARTS {
        let field = top.fields.iter().find(|field| field.name == part).unwrap();
        let Shape::Ref(id) = field.shape else {
            unreachable!("{part} is an object")
        };
        let below = &schema.get(id).fields;
        fields.extend(below.iter().map(|field| format!("{part}.{}", field.name)));
    }
    fields
}

/// The fields that a node may change on one path.
fn writable(kind: &str, plural: &str, sub: Option<Subresource>) -> Vec<String> {
    let namespace = if plural == "nodes" { "" } else { "d" };
    let target = target(plural, namespace, "n1", sub);
    let old = json!({"metadata": {"name": "n1"}, "spec": {"nodeName": "n1"}, "status": {}});
    let fields = fields_of(kind);
    assert!(fields.len() > 30, "the schema tells the fields of {kind}");
    fields
        .into_iter()
        .filter(|field| !SERVER_FIELDS.contains(&field.as_str()))
        .filter(|field| {
            let (part, name) = field.split_once('.').unwrap();
            let mut new = old.clone();
            new[part][name] = json!({"x": "y"});
            write(&target, "n1", &new, Some(&old)).is_ok()
        })
        .collect()
}

#[test]
fn only_listed_fields_of_a_node_are_writable() {
    let main = writable("Node", "nodes", None);
    assert_eq!(main, ["metadata.annotations", "metadata.labels"]);
    let status = writable("Node", "nodes", Some(Subresource::Status));
    assert_eq!(
        status,
        [
            "status.addresses",
            "status.allocatable",
            "status.capacity",
            "status.conditions",
            "status.daemonEndpoints",
            "status.features",
            "status.images",
            "status.nodeInfo",
            "status.phase",
            "status.runtimeHandlers",
            "status.volumesInUse"
        ]
    );
}

#[test]
fn only_the_status_of_a_pod_is_writable() {
    assert_eq!(writable("Pod", "pods", None), Vec::<String>::new());
    let status = writable("Pod", "pods", Some(Subresource::Status));
    assert!(status.iter().all(|field| field.starts_with("status.")));
    for refused in ["status.resourceClaimStatuses", "status.nominatedNodeName"] {
        assert!(!status.iter().any(|field| field == refused), "{refused}");
    }
    assert!(
        status
            .iter()
            .any(|field| field == "status.containerStatuses")
    );
}

#[test]
fn a_node_registers_as_itself_without_owners_or_foreign_labels() {
    let own = target("nodes", "", "n1", None);
    let of = |meta: Value, spec: Value| json!({"metadata": meta, "spec": spec});
    let good = json!({"name": "n1", "labels": {
        "kubernetes.io/hostname": "n1", "a": "b", "node.kubernetes.io/x": "y",
        "topology.kubernetes.io/zone": "z"}});
    let taint = json!({"taints": [{"key": "k", "effect": "NoSchedule"}]});
    write(&own, "n1", &of(good.clone(), taint.clone()), None).unwrap();
    write(&own, "n2", &of(good.clone(), json!({})), None).unwrap_err();
    for label in [
        "node-restriction.kubernetes.io/x",
        "a.node-restriction.kubernetes.io/x",
        "node-role.kubernetes.io/control-plane",
        "kubernetes.io/x",
        "k8s.io/x",
    ] {
        let labelled = json!({"name": "n1", "labels": {label: "v"}});
        let refused = write(&own, "n1", &of(labelled, json!({})), None).unwrap_err();
        assert!(
            refused.contains(&format!("modify labels: {label}")),
            "{refused}"
        );
        assert!(!may_label(label) && may_label("example.com/x"));
    }
    let owned = json!({"name": "n1", "ownerReferences": [{"uid": "u"}]});
    let refused = write(&own, "n1", &of(owned.clone(), json!({})), None).unwrap_err();
    assert!(refused.ends_with("is not allowed to modify metadata.ownerReferences"));
    let old = of(good.clone(), json!({}));
    write(&own, "n1", &of(owned, json!({})), Some(&old)).unwrap_err();
    let refused = write(&own, "n1", &of(good, taint), Some(&old)).unwrap_err();
    assert!(refused.ends_with("is not allowed to modify spec.taints"));
}

#[test]
fn a_node_writes_no_lease_and_no_pod_but_its_own() {
    let lease = json!({"spec": {"holderIdentity": "n1"}});
    let own = target("leases", "kube-node-lease", "n1", None);
    write(&own, "n1", &lease, None).unwrap();
    write(&own, "n2", &lease, None).unwrap_err();
    write(&target("leases", "d", "n1", None), "n1", &lease, None).unwrap_err();
    let pod = json!({"spec": {"nodeName": "n1"}});
    let pods = target("pods", "d", "p", None);
    write(&pods, "n1", &pod, None).unwrap_err();
    let delete = |who: &str| Admission::check_node_delete(&pods, &node(who), &pod);
    delete("n1").unwrap();
    delete("n2").unwrap_err();
    let nodes = target("nodes", "", "n1", None);
    Admission::check_node_delete(&nodes, &node("n1"), &json!({})).unwrap_err();
    let secret = target("secrets", "d", "s", None);
    write(&secret, "n1", &json!({}), None).unwrap_err();
}

#[test]
fn others_are_not_looked_at() {
    let secret = target("secrets", "d", "s", None);
    let user = User::known("bob", []);
    Admission::check_node_write(&secret, &user, &json!({"data": {}}), None).unwrap();
}
