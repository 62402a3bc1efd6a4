//! Tables of document, patch and result, from the semantics Kubernetes documents.

use serde_json::json;

use super::*;
use crate::schema::{Gvk, builtin};

/// One row: what it shows, document, patch, result.
type Row = (&'static str, Value, Value, Value);

fn apply(kind: Gvk<'_>, document: Value, patch: Value) -> Result<Value, PatchError> {
    strategic(builtin(), builtin().kind(kind).unwrap(), document, patch)
}

fn check(kind: Gvk<'_>, rows: Vec<Row>) {
    for (shows, document, patch, result) in rows {
        assert_eq!(apply(kind, document, patch), Ok(result), "{shows}");
    }
}

const POD: Gvk<'static> = Gvk {
    group: "",
    version: "v1",
    kind: "Pod",
};
const SERVICE: Gvk<'static> = Gvk {
    group: "",
    version: "v1",
    kind: "Service",
};
const DEPLOYMENT: Gvk<'static> = Gvk {
    group: "apps",
    version: "v1",
    kind: "Deployment",
};

#[test]
fn json_patch_applies_and_refuses_as_a_whole() {
    let document = json!({"a": [1, 2], "b": "x"});
    let patch = json!([
        {"op": "test", "path": "/b", "value": "x"},
        {"op": "add", "path": "/a/-", "value": 3},
        {"op": "copy", "from": "/a", "path": "/c"},
        {"op": "remove", "path": "/b"}
    ]);
    assert_eq!(
        json(&document, &patch),
        Ok(json!({"a": [1, 2, 3], "c": [1, 2, 3]}))
    );
    let failing = json!([{"op": "test", "path": "/b", "value": "y"}]);
    assert!(matches!(
        json(&document, &failing),
        Err(PatchError::Inapplicable(_))
    ));
    let missing = json!([{"op": "remove", "path": "/zzz"}]);
    assert!(matches!(
        json(&document, &missing),
        Err(PatchError::Inapplicable(_))
    ));
    assert!(matches!(
        json(&document, &json!({"op": "add"})),
        Err(PatchError::Malformed(_))
    ));
}

#[test]
fn an_absent_member_is_tested_as_null() {
    let document = json!({"a": {"b": 1}, "list": [1], "null": null});
    for (path, value, passes) in [
        ("/a/x", json!(null), true),
        ("/x", json!(null), true),
        ("/null", json!(null), true),
        ("/a/x", json!(1), false),
        ("/a/b", json!(null), false),
        ("/x/y", json!(null), false),
        ("/list/1", json!(null), false),
    ] {
        let patch = json!([{"op": "test", "path": path, "value": value}]);
        assert_eq!(json(&document, &patch).is_ok(), passes, "{path} {value}");
    }
}

#[test]
fn json_patch_is_bounded_in_operations_and_copies() {
    let one = json!({"op": "add", "path": "/a", "value": 1});
    let many: Value = vec![one; OPERATIONS_MAX + 1].into();
    assert_eq!(
        json(&json!({}), &many),
        Err(PatchError::TooManyOperations(OPERATIONS_MAX + 1))
    );
    // Each copy doubles the document.
    let double: Value = vec![json!({"op": "copy", "from": "/a", "path": "/a/-"}); 60].into();
    let document = json!({"a": ["x".repeat(1000)]});
    assert!(matches!(
        json(&document, &double),
        Err(PatchError::TooMuchCopied(_))
    ));
}

#[test]
fn merge_patch_merges_objects_and_replaces_lists() {
    let document = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
    let patch = json!({"a": {"b": null, "d": 3}, "l": [3]});
    assert_eq!(
        merge(document, &patch),
        json!({"a": {"c": 2, "d": 3}, "l": [3]})
    );
}

#[test]
fn lists_with_a_merge_key_merge_by_it() {
    check(
        POD,
        vec![
            (
                "an item with the same key is changed, others stay",
                json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}}),
                json!({"spec": {"containers": [{"name": "b", "image": "3"}]}}),
                json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "3"}]}}),
            ),
            (
                "a new item comes before those of the server",
                json!({"spec": {"containers": [{"name": "a"}]}}),
                json!({"spec": {"containers": [{"name": "c"}]}}),
                json!({"spec": {"containers": [{"name": "c"}, {"name": "a"}]}}),
            ),
            (
                "lists within items merge too, with the item's type",
                json!({"spec": {"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}]}]}}),
                json!({"spec": {"containers": [{"name": "a", "env": [{"name": "Y", "value": "2"}]}]}}),
                json!({"spec": {"containers": [{"name": "a", "env": [
                    {"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]}]}}),
            ),
            (
                "an item with $patch: delete goes",
                json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}),
                json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}),
                json!({"spec": {"containers": [{"name": "b"}]}}),
            ),
            (
                "$patch: replace replaces the list",
                json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}),
                json!({"spec": {"containers": [{"name": "c"}, {"$patch": "replace"}]}}),
                json!({"spec": {"containers": [{"name": "c"}]}}),
            ),
            (
                "lists without a strategy are replaced",
                json!({"spec": {"containers": [{"name": "a", "command": ["x", "y"]}]}}),
                json!({"spec": {"containers": [{"name": "a", "command": ["z"]}]}}),
                json!({"spec": {"containers": [{"name": "a", "command": ["z"]}]}}),
            ),
        ],
    );
}

#[test]
fn maps_merge_and_null_removes() {
    check(
        DEPLOYMENT,
        vec![
            (
                "labels merge, null removes one",
                json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
                json!({"metadata": {"labels": {"a": null, "c": "3"}}}),
                json!({"metadata": {"labels": {"b": "2", "c": "3"}}}),
            ),
            (
                "nulls in what is new are dropped",
                json!({}),
                json!({"spec": {"paused": null, "replicas": 2, "template": {"spec": {"nodeName": null}}}}),
                json!({"spec": {"replicas": 2, "template": {"spec": {}}}}),
            ),
            (
                "$patch: replace replaces a map",
                json!({"spec": {"template": {"spec": {"nodeSelector": {"a": "1"}}}}}),
                json!({"spec": {"template": {"spec": {"nodeSelector": {"$patch": "replace", "b": "2"}}}}}),
                json!({"spec": {"template": {"spec": {"nodeSelector": {"b": "2"}}}}}),
            ),
            (
                "$patch: delete empties a map",
                json!({"spec": {"replicas": 1, "strategy": {"type": "Recreate"}}}),
                json!({"spec": {"strategy": {"$patch": "delete"}}}),
                json!({"spec": {"replicas": 1, "strategy": {}}}),
            ),
            (
                "$retainKeys clears the other members of a union",
                json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
                json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
                json!({"spec": {"strategy": {"type": "Recreate"}}}),
            ),
            (
                "a scalar takes the place of another type",
                json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 1}}}}),
                json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": "25%"}}}}),
                json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": "25%"}}}}),
            ),
        ],
    );
}

#[test]
fn primitive_lists_merge_as_sets_and_delete_by_directive() {
    check(
        POD,
        vec![
            (
                "finalizers are added once",
                json!({"metadata": {"finalizers": ["a", "b"]}}),
                json!({"metadata": {"finalizers": ["b", "c"]}}),
                json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
            ),
            (
                "$deleteFromPrimitiveList removes",
                json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
                json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b", "x"]}}),
                json!({"metadata": {"finalizers": ["a", "c"]}}),
            ),
            (
                "$deleteFromPrimitiveList without a list does nothing",
                json!({"metadata": {"name": "p"}}),
                json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"]}}),
                json!({"metadata": {"name": "p"}}),
            ),
            (
                "an order directive orders and keeps what only the server has",
                json!({"metadata": {"finalizers": ["s", "a", "b"]}}),
                json!({"metadata": {"$setElementOrder/finalizers": ["b", "a"], "finalizers": ["b"]}}),
                json!({"metadata": {"finalizers": ["s", "b", "a"]}}),
            ),
        ],
    );
}

#[test]
fn set_element_order_orders_maps() {
    check(
        POD,
        vec![
            (
                "as kubectl apply sends it",
                json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}}),
                json!({"spec": {
                    "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
                    "containers": [{"name": "a", "image": "x"}, {"name": "b", "$patch": "delete"}]
                }}),
                json!({"spec": {"containers": [{"name": "c"}, {"name": "a", "image": "x"}]}}),
            ),
            (
                "a server's own item keeps its place in front of what it was in front of",
                json!({"spec": {"containers": [{"name": "sidecar"}, {"name": "a"}, {"name": "b"}]}}),
                json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}),
                json!({"spec": {"containers": [{"name": "sidecar"}, {"name": "b"}, {"name": "a"}]}}),
            ),
            (
                "a list that is new",
                json!({"spec": {}}),
                json!({"spec": {"$setElementOrder/containers": [{"name": "a"}],
                    "containers": [{"name": "a", "image": "x"}]}}),
                json!({"spec": {"containers": [{"name": "a", "image": "x"}]}}),
            ),
        ],
    );
}

#[test]
fn ports_of_a_service_merge_by_port() {
    check(
        SERVICE,
        vec![(
            "port is the key",
            json!({"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 443, "name": "b"}]}}),
            json!({"spec": {"ports": [{"port": 443, "targetPort": 8443}]}}),
            json!({"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 443, "name": "b", "targetPort": 8443}]}}),
        )],
    );
}

#[test]
fn wrong_patches_are_refused_in_the_words_of_upstream() {
    let spec = |patch: Value| {
        let document = json!({"spec": {"containers": [{"name": "a"}], "nodeSelector": {"a": "b"}}});
        apply(POD, document, json!({"spec": patch}))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        spec(json!({"containers": [{"image": "x"}]})),
        "map: {\"image\":\"x\"} does not contain declared merge key: name"
    );
    assert_eq!(
        spec(json!({"nodeSelector": {"$patch": "mix"}})),
        "unknown patch type 'mix' found in: {}"
    );
    assert_eq!(
        spec(json!({"containers": [{"$patch": "merge", "name": "a"}]})),
        "merging lists cannot yet be specified in the patch"
    );
    assert_eq!(
        spec(json!({"$retainKeys": ["a"], "nodeName": "x"})),
        "invalid patch format of retainKeys"
    );
    assert!(
        spec(
            json!({"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "a"}]})
        )
        .starts_with("The order in patch list")
    );
    assert!(spec(json!({"containers": ["a"]})).contains("not identical"));
}
