use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::plugins::spread;
use crate::testing::{node, pod};

#[derive(Debug, Clone)]
enum Op {
    PutNode(u8),
    RemoveNode(u8),
    Assume(u8, u8, u8),
    Confirm(u8, u8, u8, bool),
    Forget(u8),
    Remove(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let (pod, node, cpu) = (0_u8..12, 0_u8..4, 1_u8..4);
    prop_oneof![
        2 => node.clone().prop_map(Op::PutNode),
        1 => node.clone().prop_map(Op::RemoveNode),
        3 => (pod.clone(), node.clone(), cpu.clone()).prop_map(|(p, n, c)| Op::Assume(p, n, c)),
        4 => (pod.clone(), node, cpu, proptest::bool::weighted(0.8))
            .prop_map(|(p, n, c, counts)| Op::Confirm(p, n, c, counts)),
        1 => pod.clone().prop_map(Op::Forget),
        2 => pod.prop_map(Op::Remove),
    ]
}

fn info(number: u8, cpu: u8) -> Arc<PodInfo> {
    let port = json!({"containerPort": 1, "hostPort": 1000 + i32::from(number), "protocol": "TCP"});
    let labels = json!({"app": format!("a{}", number % 3)});
    let spread = json!([{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": format!("a{}", number % 3)}},
    }]);
    let container = json!({"name": "c", "ports": [port], "resources": {"requests": {
        "cpu": cpu.to_string(), "memory": "1Gi", "example.com/gpu": "1"}}});
    let spec = json!({"containers": [container], "topologySpreadConstraints": spread});
    pod(&format!("p{number}"), "0", labels, spec)
}

fn node_name(number: u8) -> String {
    format!("n{number}")
}

/// What the cache should say, kept the slow way.
#[derive(Default)]
struct Model {
    nodes: std::collections::BTreeSet<u8>,
    /// Pod -> node, CPUs, assumed, counts.
    pods: BTreeMap<u8, (u8, u8, bool, bool)>,
}

/// Pods on a node that the first spreading constraint of `asking` counts; `None` when nobody counts them.
fn counted(cache: &Cache, asking: &PodInfo, node: NodeId) -> Option<i64> {
    let key = group_key([&asking.spread_hard[0].selection], Leaving::DoNotCount);
    let counts = cache.groups.get(key)?;
    let here = counts.iter().find(|(other, _)| *other == node);
    Some(here.map_or(0, |(_, pods)| pods))
}

fn check(cache: &mut Cache, model: &Model) {
    for number in 0..3 {
        let asking = info(number, 1);
        spread::ensure(cache, &asking.spread_hard);
    }
    assert_eq!(cache.nodes.len(), model.nodes.len());
    for number in &model.nodes {
        let id = cache.nodes.id(&node_name(*number)).expect("known");
        let here: Vec<_> = model
            .pods
            .iter()
            .filter(|(_, (on, ..))| on == number)
            .collect();
        let cpus: i64 = here.iter().map(|(_, (_, cpu, ..))| i64::from(*cpu)).sum();
        let row = id.index();
        assert_eq!(
            cache.nodes.requested_cpu[row],
            cpus * 1000,
            "cpu of {number}"
        );
        assert_eq!(
            cache.nodes.pods[row],
            i64::try_from(here.len()).expect("few"),
            "pods of {number}"
        );
        assert_eq!(
            cache.nodes.requested[row].other("example.com/gpu"),
            cache.nodes.pods[row]
        );
        for pod in 0..12 {
            let taken = here.iter().any(|(other, _)| **other == pod);
            let ports = &info(pod, 1).host_ports;
            assert_eq!(
                cache.nodes.has_conflicting_port(id, ports),
                taken,
                "port of {pod}"
            );
        }
        for group in 0..3 {
            let asking = info(group, 1);
            let counted = counted(cache, &asking, id).unwrap_or(0);
            let expected = here
                .iter()
                .filter(|(pod, (.., counts))| *pod % 3 == group && *counts)
                .count();
            assert_eq!(
                counted,
                i64::try_from(expected).expect("few"),
                "group {group} on {number}"
            );
        }
    }
}

proptest! {
    #[test]
    fn what_nodes_have_taken_is_always_the_sum_over_their_pods(
        ops in proptest::collection::vec(op(), 1..60),
    ) {
        let mut cache = Cache::new();
        let mut model = Model::default();
        for op in ops {
            match op {
                Op::PutNode(number) => {
                    cache.put_node(&node(&node_name(number), json!({})));
                    model.nodes.insert(number);
                }
                Op::RemoveNode(number) => {
                    cache.remove_node(&node_name(number));
                    model.nodes.remove(&number);
                }
                Op::Assume(pod, number, cpu) => {
                    if let Some(id) = cache.nodes.id(&node_name(number)) {
                        cache.assume(&info(pod, cpu), id);
                        model.pods.insert(pod, (number, cpu, true, true));
                    }
                }
                Op::Confirm(pod, number, cpu, counts) => {
                    cache.put_pod(&info(pod, cpu), &node_name(number).into(), counts);
                    model.pods.insert(pod, (number, cpu, false, counts));
                }
                Op::Forget(pod) => {
                    cache.forget(&info(pod, 1).key);
                    if model.pods.get(&pod).is_some_and(|(_, _, assumed, _)| *assumed) {
                        model.pods.remove(&pod);
                    }
                }
                Op::Remove(pod) => {
                    let had = cache.remove_pod(&info(pod, 1).key);
                    prop_assert_eq!(had, model.pods.remove(&pod).is_some());
                }
            }
            check(&mut cache, &model);
        }
        prop_assert_eq!(cache.pod_count(), model.pods.len());
    }
}

#[test]
fn groups_are_bounded_and_counted_anew_when_asked_for_again() {
    let mut cache = Cache::new();
    cache.put_node(&node("n", json!({})));
    let first = info(0, 1);
    cache.put_pod(&first, &"n".into(), true);
    let id = cache.nodes.id("n").expect("known");
    let ask = |cache: &mut Cache, app: &str| {
        let labels = json!({"app": app});
        let constraint = json!([{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": labels},
        }]);
        let spec = json!({"topologySpreadConstraints": constraint});
        let asking = pod("asking", "1", labels, spec);
        spread::ensure(cache, &asking.spread_hard);
        counted(cache, &asking, id)
    };
    assert_eq!(ask(&mut cache, "a0"), Some(1));
    for number in 0..=groups::GROUPS_MAX {
        ask(&mut cache, &format!("other-{number}"));
    }
    assert_eq!(counted(&cache, &first, id), None);
    assert_eq!(ask(&mut cache, "a0"), Some(1));
}
