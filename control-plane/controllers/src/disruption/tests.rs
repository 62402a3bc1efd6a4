use jiff::Timestamp;
use proptest::prelude::*;
use proto_api::types::core::v1::Pod;
use proto_api::types::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};

use super::plan::{Plan, Scale, needs_scale, plan};

const NOW: &str = "2026-01-31T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "what json! makes is given away"
)]
fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
    serde_json::from_value(json!({
        "metadata": {"name": "b", "namespace": "d", "generation": 3}, "spec": spec, "status": status}))
    .unwrap()
}

fn pod(name: &str, ready: bool, going: bool) -> Pod {
    let mut pod = json!({"metadata": {"name": name}, "status": {"phase": "Running", "conditions": [
        {"type": "Ready", "status": if ready { "True" } else { "False" }}]}});
    if going {
        pod["metadata"]["deletionTimestamp"] = json!(NOW);
    }
    serde_json::from_value(pod).unwrap()
}

fn counted(budget: &PodDisruptionBudget, pods: &[Pod], scale: i32) -> Plan {
    let pods: Vec<&Pod> = pods.iter().collect();
    plan(budget, &pods, Scale::Known(scale), now())
}

/// Expected, desired, healthy, allowed.
fn numbers(plan: &Plan) -> [i32; 4] {
    let status = &plan.status;
    [
        status.expected_pods,
        status.desired_healthy,
        status.current_healthy,
        status.disruptions_allowed,
    ]
    .map(Option::unwrap)
}

fn pods(ready: usize, sick: usize) -> Vec<Pod> {
    let ready = (0..ready).map(|n| pod(&format!("r{n}"), true, false));
    ready
        .chain((0..sick).map(|n| pod(&format!("s{n}"), false, false)))
        .collect()
}

#[test]
fn numbers_and_percentages_are_counted_as_upstream() {
    let check = |spec: Value, ready, sick, scale| {
        let budget = budget(spec, Value::Null);
        numbers(&counted(&budget, &pods(ready, sick), scale))
    };
    assert_eq!(check(json!({"minAvailable": 2}), 3, 0, 0), [3, 2, 3, 1]);
    assert_eq!(check(json!({"minAvailable": 2}), 1, 2, 0), [3, 2, 1, 0]);
    assert_eq!(check(json!({"maxUnavailable": 1}), 4, 0, 4), [4, 3, 4, 1]);
    assert_eq!(check(json!({"maxUnavailable": 1}), 2, 2, 4), [4, 3, 2, 0]);
    assert_eq!(check(json!({"minAvailable": "50%"}), 5, 0, 5), [5, 3, 5, 2]);
    // Rounded up: one of three may go.
    assert_eq!(
        check(json!({"maxUnavailable": "30%"}), 3, 0, 3),
        [3, 2, 3, 1]
    );
    assert_eq!(
        check(json!({"maxUnavailable": "100%"}), 3, 0, 3),
        [3, 0, 3, 3]
    );
    assert_eq!(check(json!({"maxUnavailable": 9}), 3, 0, 3), [3, 0, 3, 3]);
}

#[test]
fn a_budget_without_pods_allows_nothing() {
    let budget = budget(json!({"minAvailable": 0}), Value::Null);
    assert_eq!(numbers(&counted(&budget, &[], 0)), [0, 0, 0, 0]);
}

#[test]
fn evicted_pods_do_not_count_until_they_are_gone_or_late() {
    let status = json!({"disruptedPods": {
        "r0": "2026-01-31T11:59:00Z", "r1": "2026-01-31T11:57:59Z", "gone": NOW}});
    let budget = budget(json!({"minAvailable": 1}), status);
    let plan = counted(&budget, &pods(3, 0), 0);
    assert_eq!(numbers(&plan), [3, 1, 2, 1]);
    let noted: Vec<&String> = plan.status.disrupted_pods.keys().collect();
    assert_eq!(noted, ["r0"]);
    assert_eq!(plan.kept, ["r1"]);
    assert_eq!(plan.look_again, Some(std::time::Duration::from_secs(60)));
}

#[test]
fn the_condition_keeps_its_time_while_it_says_the_same() {
    let condition = |status: &str| {
        json!({"conditions": [{"type": "DisruptionAllowed", "status": status, "reason": "x",
            "lastTransitionTime": "2020-01-01T00:00:00Z"}]})
    };
    let check = |before: &str| {
        let budget = budget(json!({"minAvailable": 1}), condition(before));
        let plan = counted(&budget, &pods(2, 0), 0);
        let condition = plan.status.conditions[0].clone();
        assert_eq!(
            (condition.status.as_str(), condition.reason.as_str()),
            ("True", "SufficientPods")
        );
        assert_eq!(condition.observed_generation, Some(3));
        condition.last_transition_time.0
    };
    assert_eq!(check("True"), "2020-01-01T00:00:00Z");
    assert_eq!(check("False"), NOW);
}

#[test]
fn what_cannot_be_counted_allows_nothing_and_says_why() {
    let budget = budget(
        json!({"maxUnavailable": 1}),
        json!({"disruptionsAllowed": 5}),
    );
    let plan = plan(&budget, &[], Scale::Unknown("no owner".to_owned()), now());
    assert_eq!(plan.status.disruptions_allowed, Some(0));
    let condition = &plan.status.conditions[0];
    assert_eq!(
        (condition.reason.as_str(), condition.message.as_str()),
        ("SyncFailed", "no owner")
    );
    let odd = super::tests::budget(json!({"maxUnavailable": "many"}), Value::Null);
    assert_eq!(
        counted(&odd, &[], 3).status.conditions[0].reason,
        "SyncFailed"
    );
}

#[test]
fn only_fractions_and_the_unavailable_need_the_owners() {
    let check = |spec| needs_scale(&budget(spec, Value::Null));
    assert!(check(json!({"maxUnavailable": 1})));
    assert!(check(json!({"minAvailable": "10%"})));
    assert!(!check(json!({"minAvailable": 1})));
}

proptest! {
    #[test]
    fn evictions_never_go_below_what_is_desired(
        ready in 0..30_usize, sick in 0..10_usize, least in 0..30_i32, going in 0..5_usize,
        evicted in 0..10_usize,
    ) {
        let mut all = pods(ready, sick);
        all.extend((0..going).map(|n| pod(&format!("g{n}"), true, true)));
        let noted: serde_json::Map<String, Value> =
            (0..evicted).map(|n| (format!("r{n}"), json!(NOW))).collect();
        let budget = budget(json!({"minAvailable": least}), json!({"disruptedPods": noted}));
        let counted = counted(&budget, &all, 0);
        let [expected, desired, healthy, allowed] = numbers(&counted);
        prop_assert_eq!(usize::try_from(expected).unwrap(), all.len());
        prop_assert_eq!(usize::try_from(healthy).unwrap(), ready.saturating_sub(evicted));
        prop_assert!(allowed >= 0);
        prop_assert!(allowed == 0 || healthy - allowed >= desired);
        // A second look at its own result changes nothing.
        let again = PodDisruptionBudget { status: Some(counted.status.clone()), ..budget };
        prop_assert_eq!(super::tests::counted(&again, &all, 0).status, counted.status);
    }
}
