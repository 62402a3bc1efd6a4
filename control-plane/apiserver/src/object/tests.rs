//! The stored encoding, and what is read of it without a tree.

use serde_json::json;

use super::*;

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "spec": {"nodeName": "n1", "hostNetwork": true, "containers": [{"name": "\"metadata\":{"}]},
        "metadata": {"name": "a", "namespace": "d", "uid": "u", "resourceVersion": "1",
            "labels": {"b": "2", "a": "1"}, "finalizers": ["f"],
            "ownerReferences": [{"uid": "o", "controller": true}]},
    })
}

#[test]
fn a_revision_is_spliced_in_and_replaced_without_a_second_serialisation() {
    let stored = encode(&pod()).unwrap();
    assert!(!String::from_utf8_lossy(&stored).contains("resourceVersion"));
    let key = ObjKey::new("d", "a");
    let obj = Obj::from_stored(key, &stored, 41, |p| Box::new([p.spec.node_name.or("")])).unwrap();
    assert_eq!(obj.value()["metadata"]["resourceVersion"], "41");
    assert_eq!(&*obj.fields[0], "n1");
    let later = obj.at_revision(1234);
    assert_eq!(later.value()["metadata"]["resourceVersion"], "1234");
    let again = later.at_revision(7);
    assert_eq!(again.value()["metadata"]["resourceVersion"], "7");
    assert_eq!(again.value()["spec"], pod()["spec"]);
}

#[test]
fn metadata_is_read_without_a_tree() {
    let stored = encode(&pod()).unwrap();
    let obj = Obj::from_stored(ObjKey::new("d", "a"), &stored, 1, |_| Box::new([])).unwrap();
    assert_eq!(obj.meta.label("a"), Some("1"));
    assert_eq!(obj.meta.label("c"), None);
    assert_eq!(&*obj.meta.finalizers, &[Box::from("f")]);
    assert!(obj.meta.owners[0].controller);
    assert!(!obj.meta.terminating);
}

#[test]
fn store_keys_come_apart_as_they_were_put_together() {
    let key = store_key("", "pods", "d", "a");
    assert_eq!(parse_store_key(&key), Some(("", "pods", "d", "a")));
    let key = store_key("apps", "deployments", "d", "x");
    assert_eq!(
        parse_store_key(&key),
        Some(("apps", "deployments", "d", "x"))
    );
    assert_eq!(
        parse_store_key(&store_key("", "nodes", "", "n")),
        Some(("", "nodes", "", "n"))
    );
    assert_eq!(parse_store_key("x/clusterip/10.96.0.1"), None);
}
