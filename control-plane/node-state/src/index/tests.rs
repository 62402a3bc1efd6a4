//! The index against what a node would hold.

use control_plane_client::ObjectKey;
use control_plane_client::store::Cached;
use proto_api::types::core::v1::{ConfigMap, Pod};

use super::*;

fn pod(name: &str, node: Option<&str>, config: &str) -> (ItemKey, Item) {
    let value: Pod = serde_json::from_value(serde_json::json!({
        "metadata": {"namespace": "n", "name": name, "uid": name},
        "spec": {"nodeName": node, "containers": [
            {"name": "c", "envFrom": [{"configMapRef": {"name": config}}]}]},
    }))
    .unwrap();
    let cached = Cached {
        key: ObjectKey::new("n", name),
        revision: 1,
        value,
    };
    (
        ItemKey::new(pb::Type::Pod, name),
        Item::new(1, Source::Pod(Arc::new(cached))),
    )
}

fn config(name: &str) -> (ItemKey, Item) {
    let value: ConfigMap =
        serde_json::from_value(serde_json::json!({"metadata": {"namespace": "n", "name": name}}))
            .unwrap();
    let cached = Cached {
        key: ObjectKey::new("n", name),
        revision: 1,
        value,
    };
    let key = ItemKey::new(pb::Type::ConfigMap, format!("n/{name}"));
    (key, Item::new(1, Source::ConfigMap(Arc::new(cached))))
}

fn service(name: &str) -> ItemKey {
    ItemKey::new(pb::Type::Service, format!("n/{name}"))
}

fn set_service(index: &Index, name: &str) {
    index.set_cluster(
        &service(name),
        Some(Item::message(1, &pb::Service::default())),
    );
}

/// The items that a node holds after it applied everything, by key.
#[derive(Default)]
struct Node {
    upto: u64,
    held: BTreeSet<String>,
}

impl Node {
    fn sync(&mut self, index: &Index, name: &str, bytes_max: usize) -> usize {
        let mut deltas = 0;
        loop {
            let delta = index.since(name, self.upto, bytes_max);
            deltas += 1;
            self.held
                .extend(delta.upserts.iter().map(|(key, _)| key.key.to_string()));
            for (key, _) in &delta.removes {
                self.held.remove(&*key.key);
            }
            assert!(delta.upto >= self.upto, "numbers never go back");
            self.upto = delta.upto;
            if !delta.more {
                return deltas;
            }
        }
    }

    fn holds(&self) -> Vec<&str> {
        self.held.iter().map(String::as_str).collect()
    }
}

#[test]
fn a_node_gets_its_pods_what_they_name_and_the_clusters_services() {
    let index = Index::default();
    let _wakers = index.wakers("a");
    let (key, item) = config("settings");
    index.set_configuration(&key, Some(item));
    let (key, item) = config("unused");
    index.set_configuration(&key, Some(item));
    set_service(&index, "svc");
    let (mine, item) = pod("mine", Some("a"), "settings");
    index.set_pod(&mine, Some(item));
    let (other, item) = pod("other", Some("b"), "settings");
    index.set_pod(&other, Some(item));
    let (pending, item) = pod("pending", None, "settings");
    index.set_pod(&pending, Some(item));

    let mut node = Node::default();
    node.sync(&index, "a", usize::MAX);
    assert_eq!(node.holds(), ["mine", "n/settings", "n/svc"]);

    index.set_pod(&mine, None);
    index.set_cluster(&service("svc"), None);
    node.sync(&index, "a", usize::MAX);
    assert!(node.holds().is_empty());
}

#[test]
fn a_pod_that_is_bound_later_arrives_with_its_configuration_before_it() {
    let index = Index::default();
    let (key, item) = config("settings");
    index.set_configuration(&key, Some(item));
    let (key, item) = pod("p", None, "settings");
    index.set_pod(&key, Some(item));
    let (key, item) = pod("p", Some("a"), "settings");
    index.set_pod(&key, Some(item));
    let delta = index.since("a", 0, usize::MAX);
    let order: Vec<&str> = delta.upserts.iter().map(|(key, _)| &*key.key).collect();
    assert_eq!(order, ["n/settings", "p"]);
}

#[test]
fn many_changes_of_one_key_are_one_item() {
    let index = Index::default();
    let _wakers = index.wakers("a");
    for _ in 0..100 {
        set_service(&index, "svc");
    }
    let delta = index.since("a", 0, usize::MAX);
    assert_eq!((delta.upserts.len(), delta.upto), (1, 100));
    assert!(index.since("a", 100, usize::MAX).upserts.is_empty());
}

#[test]
fn a_small_limit_cuts_the_delta_and_loses_nothing() {
    let index = Index::default();
    for name in ["a", "b", "c", "d"] {
        let message = pb::Service {
            name: name.repeat(100),
            ..pb::Service::default()
        };
        index.set_cluster(&service(name), Some(Item::message(1, &message)));
    }
    let mut node = Node::default();
    assert_eq!(node.sync(&index, "x", 1), 4);
    assert_eq!(node.holds(), ["n/a", "n/b", "n/c", "n/d"]);
}

#[test]
fn a_node_away_for_too_long_or_from_another_life_cannot_resume() {
    let index = Index::default();
    let _wakers = index.wakers("a");
    set_service(&index, "svc");
    assert!(!index.can_resume("a", 0));
    assert!(index.can_resume("a", 1));
    assert!(!index.can_resume("a", 2), "a number that was never given");
    assert!(!index.can_resume("unknown", 1));
    for number in 0..=TOMBSTONES_MAX {
        index.set_cluster(&service(&number.to_string()), None);
    }
    assert!(
        !index.can_resume("a", 1),
        "a tombstone after 1 was forgotten"
    );
}
