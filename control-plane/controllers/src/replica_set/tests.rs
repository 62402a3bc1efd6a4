use std::collections::HashMap;
use std::sync::Arc;

use control_plane_client::{Cached, ObjectKey};
use jiff::Timestamp;
use proto_api::types::apps::v1::ReplicaSet;
use proto_api::types::core::v1::Pod;
use serde_json::{Value, json};

use super::plan::{self, BURST, Change};

const NOW: i64 = 1_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn set(replicas: i32) -> ReplicaSet {
    let value = json!({
        "metadata": {"name": "r", "uid": "r", "generation": 3},
        "spec": {
            "replicas": replicas, "minReadySeconds": 10,
            "selector": {"matchLabels": {"app": "r"}},
            "template": {"metadata": {"labels": {"app": "r", "tier": "web"}}},
        },
    });
    serde_json::from_value(value).expect("set")
}

/// A pod that is running and ready since `ready_s` seconds; `change` is merged at the top.
fn pod(name: &str, ready_s: i64, change: &[(&str, Value)]) -> Arc<Cached<Pod>> {
    let mut value = json!({
        "metadata": {"name": name, "uid": name, "labels": {"app": "r", "tier": "web"},
                     "creationTimestamp": at(NOW - 5000).to_string()},
        "spec": {"containers": [], "nodeName": "n"},
        "status": {"phase": "Running", "conditions": [{
            "type": "Ready", "status": "True",
            "lastTransitionTime": at(NOW - ready_s).to_string(),
        }]},
    });
    for (pointer, to) in change {
        let (parent, field) = pointer.rsplit_once('/').expect("pointer");
        value.pointer_mut(parent).expect("parent")[field] = to.clone();
    }
    let value = serde_json::from_value(value).expect("pod");
    Arc::new(Cached {
        key: ObjectKey::new("default", name),
        revision: 1,
        value,
    })
}

fn deleted(pods: &[Arc<Cached<Pod>>], replicas: i32, related: &[(&str, usize)]) -> Vec<String> {
    let related: HashMap<String, usize> = related
        .iter()
        .map(|(node, count)| ((*node).to_owned(), *count))
        .collect();
    match plan::change(&set(replicas), pods, &related, at(NOW)) {
        Change::Delete(pods) => pods.iter().map(|pod| pod.key.name.to_string()).collect(),
        other => panic!("deletes nothing: {other:?}"),
    }
}

#[test]
fn pods_go_in_the_order_of_their_worth() {
    // Each pod is worth less than the next, by one rule each.
    let pods = [
        pod("unassigned", 100, &[("/spec/nodeName", json!(""))]),
        pod("pending", 100, &[("/status/phase", json!("Pending"))]),
        pod("unknown", 100, &[("/status/phase", json!("Unknown"))]),
        pod("unready", 100, &[("/status/conditions", json!([]))]),
        pod(
            "cheap",
            100,
            &[(
                "/metadata/annotations",
                json!({"controller.kubernetes.io/pod-deletion-cost": "-5"}),
            )],
        ),
        pod("crowded", 100, &[("/spec/nodeName", json!("full"))]),
        pod("fresh", 10, &[]),
        pod(
            "restarted",
            1000,
            &[(
                "/status/containerStatuses",
                json!([
                    {"name": "c", "restartCount": 7, "image": "", "imageID": "", "ready": true},
                ]),
            )],
        ),
        pod(
            "young",
            1000,
            &[(
                "/metadata/creationTimestamp",
                json!(at(NOW - 1100).to_string()),
            )],
        ),
        pod("old", 1000, &[]),
    ];
    let mut shuffled = pods.to_vec();
    shuffled.reverse();
    let order = deleted(&shuffled, 0, &[("n", 1), ("full", 3)]);
    let expected: Vec<_> = pods.iter().map(|pod| pod.key.name.to_string()).collect();
    assert_eq!(order, expected);
}

#[test]
fn only_active_pods_count_and_the_burst_is_bounded() {
    let pods = [
        pod("a", 100, &[]),
        pod("ended", 100, &[("/status/phase", json!("Failed"))]),
        pod(
            "going",
            100,
            &[("/metadata/deletionTimestamp", json!(at(NOW).to_string()))],
        ),
    ];
    let change = |replicas| plan::change(&set(replicas), &pods, &HashMap::new(), at(NOW));
    assert!(matches!(change(1), Change::Nothing));
    assert!(matches!(change(4), Change::Create(3)));
    assert!(matches!(change(10_000), Change::Create(BURST)));
}

#[test]
fn a_set_that_is_deleted_does_nothing() {
    let mut set = set(3);
    set.metadata.deletion_timestamp = Some(at(NOW).into());
    assert!(matches!(
        plan::change(&set, &[], &HashMap::new(), at(NOW)),
        Change::Nothing
    ));
}

#[test]
fn status_counts_and_says_when_the_next_pod_becomes_available() {
    let pods = [
        pod("available", 100, &[]),
        pod("soon", 7, &[]),
        pod("later", 2, &[]),
        pod("unready", 100, &[("/status/conditions", json!([]))]),
        pod(
            "unlabeled",
            100,
            &[("/metadata/labels", json!({"app": "r"}))],
        ),
        pod(
            "going",
            100,
            &[("/metadata/deletionTimestamp", json!(at(NOW).to_string()))],
        ),
        pod("ended", 100, &[("/status/phase", json!("Succeeded"))]),
    ];
    let (status, wake) = plan::status(&set(5), &pods, None, at(NOW));
    assert_eq!(status.replicas, 5);
    assert_eq!(status.fully_labeled_replicas, Some(4));
    assert_eq!(status.ready_replicas, Some(4));
    assert_eq!(status.available_replicas, Some(2));
    assert_eq!(status.terminating_replicas, Some(1));
    assert_eq!(status.observed_generation, Some(3));
    assert_eq!(wake.map(|wake| wake.as_secs()), Some(3));
}

#[test]
fn a_failure_is_a_condition_that_keeps_its_time_until_it_is_over() {
    let mut set = set(1);
    let (first, _) = plan::status(&set, &[], Some("quota"), at(NOW));
    assert_eq!(first.conditions[0].message.as_deref(), Some("quota"));
    set.status = Some(first);
    let (second, _) = plan::status(&set, &[], Some("quota"), at(NOW + 60));
    assert_eq!(
        second.conditions[0].last_transition_time,
        Some(at(NOW).into())
    );
    let (third, _) = plan::status(&set, &[], None, at(NOW + 60));
    assert!(third.conditions.is_empty());
}
