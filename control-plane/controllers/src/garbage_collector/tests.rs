//! What becomes of an object, and what the graph holds.

use std::time::Duration;

use control_plane_client::{ObjectKey, Propagation, Resource, Scope, WorkQueue, resources};
use proto_api::types::meta::v1::OwnerReference;

use super::graph::{Graph, Key};
use super::plan::{FOREGROUND, Item, Owner, Verdict, judge};

fn item(owners: usize, finalizers: &[&str]) -> Item {
    Item {
        resource: resources::PODS,
        key: ObjectKey::new("default", "p"),
        revision: 1,
        uid: "p".to_owned(),
        owners: (0..owners)
            .map(|number| OwnerReference {
                uid: format!("o{number}"),
                ..OwnerReference::default()
            })
            .collect(),
        finalizers: finalizers.iter().map(|name| (*name).to_owned()).collect(),
        deleting: false,
    }
}

#[test]
fn an_object_goes_when_no_owner_stays_and_loses_only_references_otherwise() {
    use Owner::{Absent, Solid, Waiting};
    let unlink = |uids: &[&str]| Verdict::Unlink(uids.iter().map(|u| (*u).to_owned()).collect());
    let delete = Verdict::Delete;
    let cases = [
        (item(0, &[]), vec![], false, Verdict::Keep),
        (item(1, &[]), vec![Solid], false, Verdict::Keep),
        (
            item(1, &[]),
            vec![Absent],
            false,
            delete(Propagation::Background),
        ),
        (
            item(2, &[]),
            vec![Absent, Absent],
            false,
            delete(Propagation::Background),
        ),
        (item(2, &[]), vec![Solid, Absent], false, unlink(&["o1"])),
        (
            item(3, &[]),
            vec![Waiting, Solid, Absent],
            true,
            unlink(&["o0", "o2"]),
        ),
        (
            item(1, &[]),
            vec![Waiting],
            false,
            delete(Propagation::Background),
        ),
        (
            item(1, &[]),
            vec![Waiting],
            true,
            delete(Propagation::Foreground),
        ),
        (
            item(1, &["orphan"]),
            vec![Absent],
            true,
            delete(Propagation::Orphan),
        ),
        (
            item(1, &["foregroundDeletion"]),
            vec![Absent],
            true,
            delete(Propagation::Foreground),
        ),
    ];
    for (item, owners, has_dependents, expected) in cases {
        assert_eq!(
            judge(&item, &owners, has_dependents),
            expected,
            "{owners:?}"
        );
    }
}

/// A kind that a custom resource definition made.
const WIDGETS: Resource = Resource {
    group: "example.com",
    version: "v1",
    plural: "widgets",
    kind: "Widget",
    scope: Scope::Namespaced,
};

fn vertex(resource: Resource, name: &str, owner: Option<&str>) -> Item {
    let owners = owner.map(|owner| OwnerReference {
        api_version: "example.com/v1".to_owned(),
        kind: "Widget".to_owned(),
        name: owner.to_owned(),
        uid: owner.to_owned(),
        ..OwnerReference::default()
    });
    Item {
        resource,
        key: ObjectKey::new("default", name),
        revision: 1,
        uid: name.to_owned(),
        owners: owners.into_iter().collect(),
        finalizers: Vec::new(),
        deleting: false,
    }
}

async fn woken(queue: &WorkQueue<Key>) -> Vec<String> {
    let mut names = Vec::new();
    while let Ok(Some(item)) = tokio::time::timeout(Duration::from_millis(1), queue.get()).await {
        names.push(item.key().1.name.to_string());
    }
    names.sort();
    names
}

#[tokio::test(start_paused = true)]
async fn dependents_of_custom_kinds_are_found_and_woken() {
    let queue = WorkQueue::new();
    let graph = Graph::new(queue.clone());
    graph.serve(vec![WIDGETS, resources::PODS]);
    graph.put(vertex(WIDGETS, "w", None));
    assert_eq!(
        graph.held(),
        [],
        "what owns nothing and has no owner is not held"
    );
    for name in ["a", "b"] {
        graph.put(vertex(resources::PODS, name, Some("w")));
    }
    assert_eq!(woken(&queue).await, ["a", "b"], "new owners are looked at");
    let owner = vertex(resources::PODS, "a", Some("w")).owners.remove(0);
    let found = graph.owner_key(&owner, &"default".into());
    assert_eq!(found, Some((WIDGETS, ObjectKey::new("default", "w"))));
    let waiting = Item {
        deleting: true,
        finalizers: vec![FOREGROUND.to_owned()],
        ..vertex(WIDGETS, "w", None)
    };
    graph.put(waiting.clone());
    assert_eq!(woken(&queue).await, ["a", "b", "w"]);
    graph.remove(&vertex(resources::PODS, "a", Some("w")));
    assert_eq!(
        woken(&queue).await,
        ["w"],
        "it may have waited for just this one"
    );
    assert_eq!(graph.dependents("w").len(), 1);
    graph.remove(&waiting);
    assert_eq!(woken(&queue).await, ["b"]);
    graph.replace(resources::PODS, Vec::new());
    assert_eq!(
        graph.dependents("w").len(),
        0,
        "a list replaces what was held"
    );
    graph.serve(vec![resources::PODS]);
    assert_eq!(graph.owner_key(&owner, &"default".into()), None);
}
