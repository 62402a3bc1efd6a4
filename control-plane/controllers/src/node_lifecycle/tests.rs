use std::time::Duration;

use jiff::Timestamp;
use proto_api::types::core::v1::{Node, Pod, Taint};
use serde_json::{Value, json};

use super::eviction::{self, Stay};
use super::plan::{self, Execute};
use super::zones::{self, Zone};

const NOW: i64 = 1_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

#[expect(clippy::needless_pass_by_value, reason = "test data are literals")]
fn node(ready: &str, taints: Value) -> Node {
    let value = json!({
        "metadata": {"name": "n"},
        "spec": {"taints": taints},
        "status": {"conditions": [
            {"type": "Ready", "status": ready}, {"type": "DiskPressure", "status": "False"},
        ]},
    });
    serde_json::from_value(value).expect("node")
}

fn names(taints: &[Taint]) -> Vec<String> {
    taints
        .iter()
        .map(|taint| format!("{}:{}", taint.key, taint.effect))
        .collect()
}

fn taints_of(node: &Node, execute: Execute) -> Option<Vec<String>> {
    plan::taints(node, execute, at(NOW)).map(|taints| names(&taints))
}

#[test]
fn taints_follow_conditions_and_leave_those_of_others_alone() {
    let foreign = json!([{"key": "mine", "effect": "NoExecute"}]);
    let not_ready = "node.kubernetes.io/not-ready";
    let unreachable = "node.kubernetes.io/unreachable";
    assert_eq!(
        taints_of(&node("True", foreign.clone()), Execute::Allowed),
        None
    );
    assert_eq!(
        taints_of(&node("False", foreign), Execute::Deferred),
        Some(vec![
            "mine:NoExecute".to_owned(),
            format!("{not_ready}:NoSchedule")
        ])
    );
    assert_eq!(
        taints_of(&node("Unknown", json!([])), Execute::Allowed),
        Some(vec![
            format!("{unreachable}:NoSchedule"),
            format!("{unreachable}:NoExecute")
        ])
    );
    // From one trouble to the other, without spending a budget.
    let before = json!([
        {"key": not_ready, "effect": "NoSchedule"}, {"key": not_ready, "effect": "NoExecute"},
    ]);
    assert_eq!(
        taints_of(&node("Unknown", before.clone()), Execute::Deferred),
        Some(vec![
            format!("{unreachable}:NoSchedule"),
            format!("{unreachable}:NoExecute")
        ])
    );
    assert_eq!(
        taints_of(&node("True", before), Execute::Allowed),
        Some(vec![])
    );
}

#[test]
fn a_cordoned_or_pressed_node_is_tainted_too() {
    let mut node = node("True", json!([]));
    node.spec.as_mut().expect("spec").unschedulable = Some(true);
    for condition in &mut node.status.as_mut().expect("status").conditions {
        "True".clone_into(&mut condition.status);
    }
    assert_eq!(
        taints_of(&node, Execute::Allowed),
        Some(vec![
            "node.kubernetes.io/disk-pressure:NoSchedule".to_owned(),
            "node.kubernetes.io/unschedulable:NoSchedule".to_owned(),
        ])
    );
}

#[test]
fn a_silent_node_vouches_for_nothing_and_is_marked_once() {
    let mut node = node("True", json!([]));
    let conditions = plan::silenced(&node, at(NOW)).expect("changes");
    let states: Vec<_> = conditions
        .iter()
        .map(|c| (c.type_.as_str(), c.status.as_str()))
        .collect();
    assert_eq!(
        states,
        [
            ("Ready", "Unknown"),
            ("DiskPressure", "Unknown"),
            ("MemoryPressure", "Unknown"),
            ("PIDPressure", "Unknown"),
        ]
    );
    assert_eq!(
        conditions[0].message.as_deref(),
        Some("Kubelet stopped posting node status.")
    );
    node.status.as_mut().expect("status").conditions = conditions;
    assert_eq!(plan::silenced(&node, at(NOW + 60)), None);
}

#[expect(clippy::needless_pass_by_value, reason = "test data are literals")]
fn stay(tolerations: Value, key: &str, tainted_s: i64) -> Stay {
    let pod: Pod =
        serde_json::from_value(json!({"spec": {"containers": [], "tolerations": tolerations}}))
            .expect("pod");
    let taint: Taint = serde_json::from_value(json!({
        "key": key, "effect": "NoExecute", "timeAdded": at(NOW - tainted_s).to_string(),
    }))
    .expect("taint");
    eviction::stay(&pod, &[taint], at(NOW))
}

#[test]
fn a_pod_stays_as_long_as_its_tolerations_say() {
    let unreachable = "node.kubernetes.io/unreachable";
    let seconds = |s| Stay::For(Duration::from_secs(s));
    let tolerating = |seconds: Value| {
        json!([
            {"key": unreachable, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds},
        ])
    };
    assert_eq!(stay(tolerating(json!(60)), unreachable, 20), seconds(40));
    assert_eq!(stay(tolerating(json!(60)), unreachable, 90), seconds(0));
    assert_eq!(
        stay(tolerating(json!(null)), unreachable, 90),
        Stay::Forever
    );
    assert_eq!(
        stay(json!([{"operator": "Exists"}]), "any", 90),
        Stay::Forever
    );
    assert_eq!(stay(json!([]), "any", 0), seconds(0));
    assert_eq!(
        stay(json!([]), unreachable, 100),
        seconds(200),
        "as the API server's default says"
    );
    let two = json!([
        {"key": unreachable, "operator": "Exists", "tolerationSeconds": 30},
        {"key": unreachable, "operator": "Exists", "tolerationSeconds": 600},
    ]);
    assert_eq!(stay(two, unreachable, 10), seconds(20));
}

#[test]
fn evictions_slow_down_when_a_zone_fails_and_stop_when_all_do() {
    let zone = |ready, failed| Zone { ready, failed };
    let healthy = zone(10, 0);
    let cases = [
        (zone(9, 1), vec![zone(9, 1)], Some(10)),
        (zone(4, 6), vec![zone(4, 6)], None),
        (zone(40, 60), vec![zone(40, 60)], Some(100)),
        (zone(0, 3), vec![zone(0, 3), healthy], Some(10)),
        (zone(0, 3), vec![zone(0, 3)], None),
        (zone(0, 3), vec![zone(0, 3), zone(0, 9)], None),
        (zone(1, 2), vec![zone(1, 2)], Some(10)),
    ];
    for (own, all, expected) in cases {
        let pause = zones::pause(own, &all).map(|pause| pause.as_secs());
        assert_eq!(pause, expected, "{own:?} of {all:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_lets_one_node_through_at_a_time() {
    let budgets = zones::Budgets::default();
    let pause = Duration::from_secs(10);
    assert_eq!(budgets.take("z", pause), Ok(()));
    tokio::time::advance(Duration::from_secs(4)).await;
    assert_eq!(budgets.take("z", pause), Err(Duration::from_secs(6)));
    assert_eq!(budgets.take("other", pause), Ok(()));
    tokio::time::advance(Duration::from_secs(6)).await;
    assert_eq!(budgets.take("z", pause), Ok(()));
}
