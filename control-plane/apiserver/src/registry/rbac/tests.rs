//! The kinds' rules, as data.

use serde_json::{Value, json};

use super::*;
use crate::registry::strategy::{Prepare, Strategy};

fn sentences(strategy: &dyn Strategy, mut object: Value) -> Vec<String> {
    strategy.default(&mut object);
    let errors = strategy.validate(&object);
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn a_rule_names_verbs_and_either_resources_or_paths() {
    let good = json!({"rules": [
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
    assert_eq!(sentences(&ROLE, good), Vec::<String>::new());
    let bad = json!({"rules": [
        {"verbs": []},
        {"verbs": ["get"], "nonResourceURLs": ["/x"], "resources": ["pods"]}]});
    assert_eq!(
        sentences(&ROLE, bad.clone()),
        [
            "rules[0].verbs: Required value: verbs must contain at least one value",
            "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
            "rules[0].resources: Required value: resource rules must supply at least one resource",
            "rules[1].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to \
             non-resource URLs",
            "rules[1].nonResourceURLs: Invalid value: [\"/x\"]: rules cannot apply to both regular \
             resources and non-resource URLs",
        ]
    );
    assert_eq!(sentences(&CLUSTER_ROLE, bad).len(), 4);
    let empty = json!({"aggregationRule": {}});
    assert_eq!(
        sentences(&CLUSTER_ROLE, empty),
        [
            "aggregationRule.clusterRoleSelectors: Required value: at least one \
          clusterRoleSelector required if aggregationRule is non-nil"
        ]
    );
}

#[test]
fn a_binding_names_a_role_and_known_kinds_of_subjects() {
    let role = json!({"kind": "ClusterRole", "name": "view"});
    let good = json!({"roleRef": role, "subjects": [
        {"kind": "User", "name": "bob"}, {"kind": "ServiceAccount", "name": "a"}]});
    assert_eq!(sentences(&ROLE_BINDING, good.clone()), Vec::<String>::new());
    assert_eq!(
        sentences(&CLUSTER_ROLE_BINDING, good),
        ["subjects[1].namespace: Required value"]
    );
    let bad = json!({"roleRef": {"kind": "Pod", "name": "a/b"}, "subjects": [
        {"kind": "Robot", "name": "x"}, {"kind": "ServiceAccount", "name": "A", "apiGroup": "x"}]});
    let found = sentences(&CLUSTER_ROLE_BINDING, bad);
    for part in [
        "roleRef.kind: Unsupported value: \"Pod\": supported values: \"ClusterRole\"",
        "roleRef.name: Invalid value: \"a/b\"",
        "subjects[0].kind: Unsupported value: \"Robot\": supported values: \"ServiceAccount\", \
         \"User\", \"Group\"",
        "subjects[1].apiGroup: Unsupported value: \"x\": supported values: \"\"",
        "subjects[1].namespace: Required value",
    ] {
        assert!(
            found.iter().any(|e| e.starts_with(part)),
            "{part}: {found:?}"
        );
    }
}

#[test]
fn a_binding_keeps_its_role() {
    let of = |name: &str| json!({"roleRef": {"apiGroup": GROUP, "kind": "Role", "name": name}});
    let same = ROLE_BINDING.validate_update(&of("a"), &of("a"), Prepare::Main);
    assert!(same.is_empty());
    let other = ROLE_BINDING.validate_update(&of("b"), &of("a"), Prepare::Main);
    assert!(other[0].to_string().ends_with("cannot change roleRef"));
}

#[test]
fn tables_show_roles_and_holders() {
    let now = jiff::Timestamp::UNIX_EPOCH;
    let binding = json!({"metadata": {"name": "b"},
        "roleRef": {"kind": "ClusterRole", "name": "view"},
        "subjects": [
            {"kind": "User", "name": "u"}, {"kind": "Group", "name": "g"},
            {"kind": "Group", "name": "h"},
            {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]});
    let row = (BINDING_TABLE.row)(&binding, now);
    assert_eq!(row[1], "ClusterRole/view");
    assert_eq!(row[3..], [json!("u"), json!("g, h"), json!("n/s")]);
    let role = json!({"metadata": {"name": "r", "creationTimestamp": "2026-01-02T03:04:05Z"}});
    assert_eq!((ROLE_TABLE.row)(&role, now), ["r", "2026-01-02T03:04:05Z"]);
}
