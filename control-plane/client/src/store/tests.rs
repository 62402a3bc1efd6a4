use std::collections::BTreeMap;

use proptest::prelude::*;
use proto_api::types::core::v1::Pod;
use serde_json::json;

use super::*;

fn pod(
    namespace: &str,
    name: &str,
    revision: u64,
    owner: u8,
    node: u8,
    app: u8,
) -> Arc<Cached<Pod>> {
    let value = json!({
        "metadata": {
            "name": name, "namespace": namespace,
            "labels": {"app": format!("a{app}"), "tier": "web"},
            "ownerReferences": [{"uid": format!("o{owner}"), "kind": "ReplicaSet", "name": "rs"}],
        },
        "spec": {"containers": [], "nodeName": if node == 0 { String::new() } else { format!("n{node}") }},
    });
    let value: Pod = serde_json::from_value(value).expect("pod");
    Arc::new(Cached {
        key: ObjectKey::new(namespace, name),
        revision,
        value,
    })
}

fn names<'a>(pods: impl Iterator<Item = &'a Arc<Cached<Pod>>>) -> Vec<String> {
    let mut names: Vec<_> = pods.map(|pod| pod.key.to_string()).collect();
    names.sort();
    names
}

#[test]
fn an_older_revision_does_not_replace_a_newer_one() {
    let mut store = Snapshot::default();
    store.put(pod("a", "p", 5, 1, 1, 1));
    assert!(matches!(store.put(pod("a", "p", 4, 2, 2, 2)), Put::Stale));
    assert_eq!(names(store.on_node("n1")), ["a/p"]);
    assert_eq!(names(store.on_node("n2")), [""; 0]);
}

#[test]
fn a_snapshot_does_not_change_under_its_reader() {
    let mut store = Snapshot::default();
    store.put(pod("a", "p", 1, 1, 1, 1));
    let before = store.clone();
    store.put(pod("a", "q", 2, 1, 1, 1));
    store.remove(&ObjectKey::new("a", "p"), 3);
    assert_eq!(names(before.iter()), ["a/p"]);
    assert_eq!(names(store.iter()), ["a/q"]);
    assert_eq!((before.revision(), store.revision()), (1, 3));
}

proptest! {
    #[test]
    fn indexes_answer_as_a_scan_does(
        steps in proptest::collection::vec(
            (0_u8..3, 0_u8..12, 0_u8..4, 0_u8..4, 0_u8..3, proptest::bool::weighted(0.25)), 0..120),
    ) {
        let mut store: Snapshot<Pod> = Snapshot::default();
        let mut model: BTreeMap<ObjectKey, Arc<Cached<Pod>>> = BTreeMap::new();
        for (number, (namespace, name, owner, node, app, remove)) in steps.into_iter().enumerate() {
            let namespace = format!("ns{namespace}");
            let name = format!("p{name}");
            let revision = number as u64 + 1;
            if remove {
                let key = ObjectKey::new(namespace.as_str(), name.as_str());
                store.remove(&key, revision);
                model.remove(&key);
            } else {
                let pod = pod(&namespace, &name, revision, owner, node, app);
                store.put(Arc::clone(&pod));
                model.insert(pod.key.clone(), pod);
            }
        }
        prop_assert_eq!(names(store.iter()), names(model.values()));
        for id in 0..4_u8 {
            let (uid, node, namespace) = (format!("o{id}"), format!("n{id}"), format!("ns{id}"));
            let scan = model.values().filter(|p| p.value.metadata.owner_references[0].uid == uid);
            prop_assert_eq!(names(store.owned_by(&uid)), names(scan));
            let scan = model.values().filter(|p| p.value.node() == Some(node.as_str()));
            prop_assert_eq!(names(store.on_node(&node)), names(scan));
            let scan = model.values().filter(|p| *p.key.namespace == *namespace);
            prop_assert_eq!(names(store.in_namespace(&namespace)), names(scan));
            let app = format!("a{id}");
            let labels = [("tier", "web"), ("app", app.as_str())];
            let scan = model.values().filter(|p| {
                *p.key.namespace == *namespace && p.value.metadata.labels["app"] == app
            });
            prop_assert_eq!(names(store.with_labels(&namespace, &labels)), names(scan));
        }
    }
}
