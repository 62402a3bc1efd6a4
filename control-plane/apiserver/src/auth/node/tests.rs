//! What nodes may read: their own, and what their own pods name.

use std::time::Instant;

use serde_json::{Value, json};

use super::*;
use crate::auth::Authorizer;
use crate::object::{Obj, ObjKey, encode};

struct Fixture {
    cache: WatchCache,
    registry: Registry,
    authorizer: Authorizer,
    rv: u64,
}

impl Fixture {
    fn new() -> Self {
        let registry = Registry::default();
        let cache = WatchCache::new(&registry);
        let authorizer = Authorizer::new(&cache, &registry);
        Self {
            cache,
            registry,
            authorizer,
            rv: 1,
        }
    }

    fn put(&mut self, plural: &str, namespace: &str, mut value: Value) {
        let kind = self.registry.by_plural("", "v1", plural).unwrap();
        value["kind"] = json!(kind.kind);
        value["apiVersion"] = json!("v1");
        let key = ObjKey::new(namespace, value["metadata"]["name"].as_str().unwrap());
        self.rv += 1;
        let stored = encode(&value).unwrap();
        let obj = Obj::from_stored(key.clone(), &stored, self.rv, |p| kind.read_fields(p)).unwrap();
        let resource = self.cache.of(&kind);
        resource.apply(&key, self.rv, Some(Arc::new(obj)), Instant::now());
    }

    fn pod(&mut self, name: &str, node: &str, mut spec: Value) {
        spec["nodeName"] = json!(node);
        self.put(
            "pods",
            "d",
            json!({"metadata": {"name": name}, "spec": spec}),
        );
    }

    fn may(&self, node: &str, verb: &str, resource: &str, name: &str) -> bool {
        self.may_with(node, verb, resource, name, "")
    }

    fn may_with(&self, node: &str, verb: &str, resource: &str, name: &str, fields: &str) -> bool {
        let user = User::known(&format!("system:node:{node}"), [NODES.to_owned()]);
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let group = match resource {
            "leases" => "coordination.k8s.io",
            _ => "",
        };
        let cluster = matches!(resource, "nodes" | "persistentvolumes");
        let asked = Attributes {
            verb: verb.to_owned(),
            group: group.to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: if cluster { "" } else { "d" }.to_owned(),
            name: name.to_owned(),
            fields: fields.to_owned(),
            ..Attributes::default()
        };
        self.authorizer.authorize(&user, &asked).is_allowed()
    }
}

#[test]
fn a_node_reads_what_its_pods_refer_to_and_nothing_else() {
    let mut f = Fixture::new();
    assert!(!f.may("a", "get", "secrets", "env"));
    f.pod(
        "p",
        "a",
        json!({
            "serviceAccountName": "robot",
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "env"}}},
                {"valueFrom": {"configMapKeyRef": {"name": "cm-env"}}}]}],
            "initContainers": [{"envFrom": [{"secretRef": {"name": "from"}}]}],
            "ephemeralContainers": [{"envFrom": [{"configMapRef": {"name": "cm-from"}}]}],
            "volumes": [{"secret": {"secretName": "vol"}},
                {"projected": {"sources": [{"secret": {"name": "proj"}},
                    {"configMap": {"name": "cm-proj"}}]}},
                {"configMap": {"name": "cm-vol"}}],
        }),
    );
    for (resource, names) in [
        ("secrets", &["pull", "env", "from", "vol", "proj"][..]),
        ("configmaps", &["cm-env", "cm-from", "cm-proj", "cm-vol"]),
        ("serviceaccounts", &["robot"]),
        ("pods", &["p"]),
    ] {
        for name in names {
            assert!(f.may("a", "get", resource, name), "{resource} {name}");
            assert!(!f.may("b", "get", resource, name), "{resource} {name}");
        }
        assert!(!f.may("a", "get", resource, "other"));
        assert!(!f.may("a", "list", resource, ""));
    }
    assert!(f.may("a", "watch", "secrets", "env"));
    assert!(!f.may("a", "update", "secrets", "env"));
    assert!(f.may("a", "create", "serviceaccounts/token", "robot"));
    assert!(!f.may("b", "create", "serviceaccounts/token", "robot"));
    // The pod moves on; with it what it refers to.
    f.pod(
        "p",
        "b",
        json!({"volumes": [{"secret": {"secretName": "vol"}}]}),
    );
    assert!(!f.may("a", "get", "secrets", "vol") && f.may("b", "get", "secrets", "vol"));
}

#[test]
fn a_node_has_its_own_objects_only() {
    let mut f = Fixture::new();
    f.pod("p", "a", json!({}));
    for (verb, resource) in [
        ("get", "nodes"),
        ("watch", "nodes"),
        ("patch", "nodes"),
        ("patch", "nodes/status"),
    ] {
        assert!(f.may("a", verb, resource, "a"), "{verb} {resource}");
        assert!(!f.may("a", verb, resource, "b"), "{verb} {resource}");
    }
    assert!(!f.may("a", "list", "nodes", "") && !f.may("a", "delete", "nodes", "a"));
    assert!(!f.may_with("a", "list", "pods", "", ""));
    assert!(!f.may_with("a", "list", "pods", "", "spec.nodeName=b"));
    assert!(!f.may_with("a", "list", "pods", "", "spec.nodeName!=a"));
    assert!(f.may_with("a", "list", "pods", "", "spec.nodeName=a"));
    assert!(f.may("a", "patch", "pods/status", "p") && !f.may("b", "patch", "pods/status", "p"));
    assert!(f.may("a", "delete", "pods", "p") && !f.may("b", "delete", "pods", "p"));
    assert!(!f.may("a", "create", "pods", "") && !f.may("a", "update", "pods", "p"));
    assert!(!f.may("a", "create", "pods/exec", "p") && !f.may("a", "create", "pods/binding", "p"));
    assert!(!f.may("a", "get", "leases", "a"), "of another namespace");
}

#[test]
fn a_name_alone_makes_no_node() {
    let mut f = Fixture::new();
    f.pod("p", "a", json!({}));
    let impostor = User::known("system:node:a", []);
    assert_eq!(node_name(&impostor), None);
    let nobody = User::known("system:node:", [NODES.to_owned()]);
    assert_eq!(node_name(&nobody), None);
}

/// Random clusters: whatever pods there are, a node reaches no secret that none of its pods names.
#[test]
fn no_node_reaches_a_secret_of_another_in_random_clusters() {
    let mut seed = 7_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % below
    };
    let mut asked = 0;
    for _ in 0..20 {
        let mut f = Fixture::new();
        let mut named = std::collections::HashSet::new();
        for pod in 0..60 {
            let (node, secret) = (random(5), random(40));
            named.insert((node, secret));
            let volumes = json!([{"secret": {"secretName": format!("s{secret}")}}]);
            f.pod(
                &format!("p{pod}"),
                &format!("n{node}"),
                json!({"volumes": volumes}),
            );
        }
        for _ in 0..5000 {
            let (node, secret) = (random(5), random(40));
            let verb = ["get", "watch", "list"][usize::try_from(random(3)).unwrap()];
            let may = f.may(&format!("n{node}"), verb, "secrets", &format!("s{secret}"));
            assert_eq!(may, named.contains(&(node, secret)));
            asked += 1;
        }
    }
    assert_eq!(asked, 100_000);
}
