//! Rules and the index: what is allowed, what contains what, what follows the cache.

use std::time::Instant;

use serde_json::{Value, json};

use super::*;
use crate::object::{Obj, encode};
use crate::registry::rbac::GROUP;

/// A cache with roles and bindings that tests write.
struct Fixture {
    cache: WatchCache,
    registry: Registry,
    rbac: Rbac,
    rv: u64,
}

impl Fixture {
    fn new() -> Self {
        let registry = Registry::default();
        let cache = WatchCache::new(&registry);
        let rbac = Rbac::new(&cache, &registry);
        Self {
            cache,
            registry,
            rbac,
            rv: 1,
        }
    }

    fn put(&mut self, plural: &str, namespace: &str, mut value: Value) {
        let kind = self.registry.by_plural(GROUP, "v1", plural).unwrap();
        value["kind"] = json!(kind.kind);
        value["apiVersion"] = json!(kind.api_version());
        let key = ObjKey::new(namespace, value["metadata"]["name"].as_str().unwrap());
        self.rv += 1;
        let stored = encode(&value).unwrap();
        let obj = Obj::from_stored(key.clone(), &stored, self.rv, |p| kind.read_fields(p)).unwrap();
        let resource = self.cache.of(&kind);
        resource.apply(&key, self.rv, Some(Arc::new(obj)), Instant::now());
    }

    fn remove(&mut self, plural: &str, namespace: &str, name: &str) {
        let kind = self.registry.by_plural(GROUP, "v1", plural).unwrap();
        let key = ObjKey::new(namespace, name);
        self.rv += 1;
        self.cache
            .of(&kind)
            .apply(&key, self.rv, None, Instant::now());
    }

    fn may(&self, user: &User, asked: &str) -> bool {
        self.rbac.authorize(user, &parse(asked)).is_allowed()
    }
}

/// `verb group/resource[/sub] [namespace [name]]` (`core` for the group without a name), or
/// `verb /path`.
fn parse(text: &str) -> Attributes {
    let mut words = text.split(' ').map(str::to_owned);
    let mut word = || words.next().unwrap_or_default();
    let (verb, what) = (word(), word());
    if what.starts_with('/') {
        return Attributes {
            verb,
            path: what,
            ..Attributes::default()
        };
    }
    let mut parts = what.split('/').map(str::to_owned);
    let mut part = || parts.next().unwrap_or_default();
    let group = part();
    Attributes {
        verb,
        group: if group == "core" {
            String::new()
        } else {
            group
        },
        resource: part(),
        subresource: part(),
        namespace: word(),
        name: word(),
        ..Attributes::default()
    }
}

fn binding(name: &str, role: (&str, &str), subjects: &[Value]) -> Value {
    json!({"metadata": {"name": name}, "subjects": subjects,
        "roleRef": {"apiGroup": GROUP, "kind": role.0, "name": role.1}})
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "name": name})
}

#[test]
fn a_binding_gives_a_role_where_it_is_and_ends_with_it() {
    let mut f = Fixture::new();
    let bob = User::known("bob", ["dev".to_owned()]);
    let rules = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
    f.put(
        "clusterroles",
        "",
        json!({"metadata": {"name": "r"}, "rules": rules}),
    );
    assert!(!f.may(&bob, "get core/pods d x"));
    f.put(
        "rolebindings",
        "d",
        binding("b", ("ClusterRole", "r"), &[user("bob")]),
    );
    assert!(f.may(&bob, "get core/pods d x") && !f.may(&bob, "get core/pods e x"));
    assert!(!f.may(&bob, "get core/pods") && !f.may(&bob, "list core/pods d"));
    f.put(
        "rolebindings",
        "d",
        binding("b", ("ClusterRole", "r"), &[user("eve")]),
    );
    assert!(!f.may(&bob, "get core/pods d x"));
    let group = json!({"kind": "Group", "name": "dev"});
    f.put(
        "clusterrolebindings",
        "",
        binding("c", ("ClusterRole", "r"), &[group]),
    );
    assert!(f.may(&bob, "get core/pods d x") && f.may(&bob, "get core/pods"));
    f.remove("clusterroles", "", "r");
    assert!(!f.may(&bob, "get core/pods d x"));
    f.put(
        "clusterroles",
        "",
        json!({"metadata": {"name": "r"}, "rules": rules}),
    );
    assert!(f.may(&bob, "get core/pods d x"));
    f.remove("clusterrolebindings", "", "c");
    assert!(!f.may(&bob, "get core/pods d x"));
}

#[test]
fn a_service_account_without_a_namespace_is_that_of_the_binding() {
    let mut f = Fixture::new();
    let rules = json!([{"verbs": ["*"], "apiGroups": ["apps"], "resources": ["*"]}]);
    f.put(
        "roles",
        "d",
        json!({"metadata": {"name": "r"}, "rules": rules}),
    );
    let account = json!({"kind": "ServiceAccount", "name": "a"});
    f.put("rolebindings", "d", binding("b", ("Role", "r"), &[account]));
    let ours = User::known("system:serviceaccount:d:a", []);
    let theirs = User::known("system:serviceaccount:e:a", []);
    assert!(f.may(&ours, "delete apps/deployments/scale d x"));
    assert!(!f.may(&ours, "delete batch/jobs d x") && !f.may(&theirs, "get apps/deployments d x"));
}

#[test]
fn rules_match_as_upstream() {
    let cases: &[(Value, &str, bool)] = &[
        (json!({"resources": ["pods"]}), "get core/pods d x", true),
        (
            json!({"resources": ["pods"]}),
            "get core/pods/log d x",
            false,
        ),
        (
            json!({"resources": ["pods/log"]}),
            "get core/pods/log d x",
            true,
        ),
        (
            json!({"resources": ["pods/log"]}),
            "get core/pods d x",
            false,
        ),
        (json!({"resources": ["*"]}), "get core/pods/log d x", true),
        (
            json!({"resources": ["*/scale"]}),
            "get core/pods/scale d x",
            true,
        ),
        (
            json!({"resources": ["*/scale"]}),
            "get core/pods d x",
            false,
        ),
        (
            json!({"resources": ["pods/*"]}),
            "get core/pods/log d x",
            false,
        ),
        (
            json!({"resources": ["pods"], "resourceNames": ["x"]}),
            "get core/pods d x",
            true,
        ),
        (
            json!({"resources": ["pods"], "resourceNames": ["x"]}),
            "get core/pods d y",
            false,
        ),
        (
            json!({"resources": ["pods"], "resourceNames": ["x"]}),
            "get core/pods d",
            false,
        ),
        (
            json!({"resources": ["pods"], "apiGroups": ["*"]}),
            "get apps/pods d x",
            true,
        ),
        (json!({"resources": ["pods"]}), "get apps/pods d x", false),
        (json!({"nonResourceURLs": ["/a/*"]}), "get /a/b/c", true),
        (json!({"nonResourceURLs": ["/a/*"]}), "get /a", false),
        (json!({"nonResourceURLs": ["*"]}), "get /a", true),
        (json!({"nonResourceURLs": ["/a"]}), "get /a/b", false),
        (
            json!({"resources": ["*"], "apiGroups": ["*"]}),
            "get /a",
            false,
        ),
        (
            json!({"nonResourceURLs": ["*"]}),
            "get core/pods d x",
            false,
        ),
    ];
    for (rule, asked, expected) in cases {
        let mut rule = rule.clone();
        rule["verbs"] = json!(["get"]);
        if rule.get("nonResourceURLs").is_none() && rule.get("apiGroups").is_none() {
            rule["apiGroups"] = json!([""]);
        }
        let role = Role::new(vec![PolicyRule::of(&rule)]);
        assert_eq!(role.allows(&parse(asked)), *expected, "{rule} {asked}");
    }
}

#[test]
fn what_is_not_held_is_named() {
    let of = |rules: Value| PolicyRule::all_of(&json!({"rules": rules}));
    let held = of(json!([
        {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "*/scale"]},
        {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]},
        {"verbs": ["get"], "nonResourceURLs": ["/a/*"]},
    ]));
    let fine = of(json!([
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "deployments/scale"]},
        {"verbs": ["list"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["x"]},
        {"verbs": ["get"], "nonResourceURLs": ["/a/b", "/a/b/*"]},
    ]));
    assert!(uncovered(&held, &fine).is_empty());
    let more = of(json!([
        {"verbs": ["get", "watch", "delete"], "apiGroups": [""], "resources": ["pods"]},
        {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]},
        {"verbs": ["get"], "nonResourceURLs": ["/a*", "*"]},
    ]));
    let missing: Vec<String> = uncovered(&held, &more).iter().map(compact).collect();
    assert_eq!(
        missing,
        [
            "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"watch\" \"delete\"]}",
            "{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}",
            "{NonResourceURLs:[\"/a*\"], Verbs:[\"get\"]}",
            "{NonResourceURLs:[\"*\"], Verbs:[\"get\"]}",
        ]
    );
    assert!(uncovered(&PolicyRule::everything(), &more).is_empty());
    assert_eq!(uncovered(&held, &PolicyRule::everything()).len(), 2);
}

#[test]
fn the_default_roles_are_well_formed_and_aggregate() {
    let roles = policy::cluster_roles();
    let kind = Registry::default().by_plural(GROUP, "v1", "clusterroles");
    let strategy = &kind.unwrap().strategy;
    for role in &roles {
        assert!(strategy.validate(role).is_empty(), "{role}");
    }
    let named = |name: &str| {
        let found = roles.iter().find(|role| role["metadata"]["name"] == name);
        found.unwrap().clone()
    };
    let view = policy::aggregate(&named("view"), &roles).unwrap();
    assert_eq!(json!(view), named("system:aggregate-to-view")["rules"]);
    assert!(policy::aggregate(&named("cluster-admin"), &roles).is_none());
    let admin = policy::aggregate(&named("admin"), &roles).unwrap();
    assert_eq!(json!(admin), named("system:aggregate-to-admin")["rules"]);
}
