use std::collections::BTreeSet;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::*;
use crate::testing::{node, pod};

fn cluster(nodes: &[(&str, Value)]) -> Cache {
    let mut cache = Cache::new();
    for (name, extra) in nodes {
        cache.put_node(&node(name, extra.clone()));
    }
    cache
}

fn choose(cache: &mut Cache, info: &PodInfo) -> Result<String, String> {
    let mut rng = StdRng::seed_from_u64(7);
    let id = Decider::new()
        .choose(cache, info, None, &mut rng)
        .map_err(|reason| reason.message)?;
    Ok(cache.nodes().name(id).to_string())
}

/// Every node that some seed chooses.
fn chosen(cache: &mut Cache, info: &PodInfo) -> BTreeSet<String> {
    (0..50)
        .map(|seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            let id = Decider::new()
                .choose(cache, info, None, &mut rng)
                .expect("fits");
            cache.nodes().name(id).to_string()
        })
        .collect()
}

fn put(cache: &mut Cache, info: &std::sync::Arc<PodInfo>, node: &str) {
    cache.put_pod(info, &node.into(), true);
}

#[test]
fn each_filter_says_why_in_the_words_that_users_know() {
    let taint =
        |effect: &str| json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": effect}]}});
    let plain = || pod("p", "1", json!({}), json!({}));
    let cases: Vec<(Vec<(&str, Value)>, _, &str)> = vec![
        (vec![], plain(), "no nodes available to schedule pods"),
        (
            vec![("a", json!({})), ("b", json!({}))],
            pod("p", "5", json!({}), json!({})),
            "0/2 nodes are available: 2 Insufficient cpu.",
        ),
        (
            vec![("a", json!({"status": {"allocatable": {"pods": "0"}}}))],
            pod("p", "5", json!({}), json!({})),
            "0/1 nodes are available: 1 Insufficient cpu, 1 Too many pods.",
        ),
        (
            vec![("a", json!({}))],
            pod(
                "p",
                "1",
                json!({}),
                json!({"nodeSelector": {"disk": "ssd"}}),
            ),
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
        ),
        (
            vec![("a", taint("NoSchedule"))],
            plain(),
            "0/1 nodes are available: 1 node(s) had untolerated taint {k: v}.",
        ),
        (
            vec![
                ("a", taint("NoExecute")),
                ("b", json!({"spec": {"unschedulable": true}})),
            ],
            plain(),
            "0/2 nodes are available: 1 node(s) had untolerated taint {k: v}, 1 node(s) were \
             unschedulable.",
        ),
        (
            vec![("a", json!({}))],
            pod(
                "p",
                "1",
                json!({}),
                json!({"containers": [{"name": "c", "resources": {
                "requests": {"example.com/gpu": "1"}}}]}),
            ),
            "0/1 nodes are available: 1 Insufficient example.com/gpu.",
        ),
    ];
    for (nodes, info, expected) in cases {
        assert_eq!(
            choose(&mut cluster(&nodes), &info),
            Err(expected.to_owned())
        );
    }
}

#[test]
fn two_pods_do_not_share_a_port_of_a_node_unless_their_addresses_differ() {
    let with = |name: &str, ip: &str| {
        let port = json!({"containerPort": 80, "hostPort": 80, "hostIP": ip, "protocol": "TCP"});
        pod(
            name,
            "1",
            json!({}),
            json!({"containers": [{"name": "c", "ports": [port]}]}),
        )
    };
    let refused =
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.";
    for (first, second, fits) in [
        ("", "", false),
        ("10.0.0.1", "", false),
        ("10.0.0.1", "10.0.0.2", true),
    ] {
        let mut cache = cluster(&[("a", json!({}))]);
        put(&mut cache, &with("first", first), "a");
        let expected = if fits {
            Ok("a".to_owned())
        } else {
            Err(refused.to_owned())
        };
        assert_eq!(
            choose(&mut cache, &with("second", second)),
            expected,
            "{first} {second}"
        );
    }
}

#[test]
fn tolerations_open_tainted_and_cordoned_nodes() {
    let taints = json!({"spec": {"unschedulable": true, "taints": [
        {"key": "k", "value": "v", "effect": "NoSchedule"},
        {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"},
    ]}});
    let mut cache = cluster(&[("a", taints)]);
    let tolerating = |list: Value| pod("p", "1", json!({}), json!({"tolerations": list}));
    let all = tolerating(json!([{"operator": "Exists"}]));
    assert_eq!(choose(&mut cache, &all), Ok("a".to_owned()));
    let one = tolerating(json!([{"key": "k", "operator": "Equal", "value": "v"}]));
    choose(&mut cache, &one).expect_err("the cordon's taint is not tolerated");
}

#[test]
fn required_affinity_takes_any_of_its_terms_and_all_of_a_terms_requirements() {
    let labeled = |pairs: Value| json!({"metadata": {"labels": pairs}});
    let mut cache = cluster(&[
        ("a", labeled(json!({"disk": "ssd", "cores": "8"}))),
        ("b", labeled(json!({"disk": "hdd", "cores": "32"}))),
        ("c", labeled(json!({}))),
    ]);
    let requiring = |terms: Value| {
        let required = json!({"nodeSelectorTerms": terms});
        pod(
            "p",
            "1",
            json!({}),
            json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": required}}}),
        )
    };
    let expression = |key: &str, operator: &str, values: &[&str]| json!({"key": key, "operator": operator, "values": values});
    let cases = [
        (
            json!([{"matchExpressions": [expression("disk", "In", &["ssd"])]}]),
            vec!["a"],
        ),
        (
            json!([{"matchExpressions": [expression("disk", "NotIn", &["ssd"])]}]),
            vec!["b", "c"],
        ),
        (
            json!([{"matchExpressions": [expression("cores", "Gt", &["8"])]}]),
            vec!["b"],
        ),
        (
            json!([{"matchExpressions": [expression("cores", "Lt", &["9"])]}]),
            vec!["a"],
        ),
        (
            json!([{"matchExpressions": [expression("disk", "DoesNotExist", &[])]}]),
            vec!["c"],
        ),
        (
            json!([{"matchFields": [expression("metadata.name", "In", &["b"])]}]),
            vec!["b"],
        ),
        (
            json!([
                {"matchExpressions": [expression("disk", "In", &["ssd"]), expression("cores", "Gt", &["8"])]},
                {"matchFields": [expression("metadata.name", "In", &["c"])]},
            ]),
            vec!["c"],
        ),
        (json!([{}]), vec![]),
    ];
    for (terms, expected) in cases {
        let info = requiring(terms.clone());
        if expected.is_empty() {
            assert!(choose(&mut cache, &info).is_err(), "{terms}");
        } else {
            let expected: BTreeSet<String> = expected.into_iter().map(str::to_owned).collect();
            assert_eq!(chosen(&mut cache, &info), expected, "{terms}");
        }
    }
}

#[test]
fn the_emptier_node_is_preferred() {
    let mut cache = cluster(&[("a", json!({})), ("b", json!({}))]);
    put(&mut cache, &pod("x", "2", json!({}), json!({})), "a");
    let info = pod("p", "1", json!({}), json!({}));
    assert_eq!(chosen(&mut cache, &info), BTreeSet::from(["b".to_owned()]));
}

#[test]
fn preferred_affinity_and_soft_taints_outweigh_an_emptier_node() {
    let mut cache = cluster(&[
        ("a", json!({"metadata": {"labels": {"disk": "ssd"}}})),
        ("b", json!({})),
    ]);
    put(&mut cache, &pod("x", "1", json!({}), json!({})), "a");
    let preferring = pod(
        "p",
        "1",
        json!({}),
        json!({"affinity": {"nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 10, "preference": {
            "matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}}]}}}),
    );
    assert_eq!(
        chosen(&mut cache, &preferring),
        BTreeSet::from(["a".to_owned()])
    );

    let soft = json!({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}});
    let mut cache = cluster(&[("a", json!({})), ("b", soft)]);
    put(&mut cache, &pod("x", "1", json!({}), json!({})), "a");
    let plain = pod("p", "1", json!({}), json!({}));
    assert_eq!(chosen(&mut cache, &plain), BTreeSet::from(["a".to_owned()]));
}

fn zoned(zone: &str) -> Value {
    json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}})
}

fn spread_pod(name: &str, when: &str) -> std::sync::Arc<PodInfo> {
    pod(
        name,
        "100m",
        json!({"app": "web"}),
        json!({"topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": when,
            "labelSelector": {"matchLabels": {"app": "web"}},
        }]}),
    )
}

#[test]
fn a_hard_spread_constraint_holds_pod_after_pod() {
    let mut cache = cluster(&[("a1", zoned("a")), ("a2", zoned("a")), ("b1", zoned("b"))]);
    let zone_of = |name: &str| name[..1].to_owned();
    let mut counts = std::collections::BTreeMap::from([("a".to_owned(), 0), ("b".to_owned(), 0)]);
    for number in 0..12 {
        let info = spread_pod(&format!("p{number}"), "DoNotSchedule");
        let name = choose(&mut cache, &info).expect("fits");
        *counts.get_mut(&zone_of(&name)).expect("zone") += 1;
        put(&mut cache, &info, &name);
        let (a, b): (i32, i32) = (counts["a"], counts["b"]);
        assert!((a - b).abs() <= 1, "{counts:?}");
    }
    // With zone b full the skew would be exceeded in zone a, and there is no room in b.
    cache.put_node(&node(
        "b1",
        json!({
            "metadata": {"labels": {"topology.kubernetes.io/zone": "b"}},
            "spec": {}, "status": {"allocatable": {"pods": "0"}},
        }),
    ));
    put(&mut cache, &spread_pod("more", "DoNotSchedule"), "a1");
    assert_eq!(
        choose(&mut cache, &spread_pod("last", "DoNotSchedule")),
        Err(
            "0/3 nodes are available: 1 Too many pods, 2 node(s) didn't match pod topology spread \
             constraints."
                .to_owned()
        )
    );
}

#[test]
fn a_soft_spread_constraint_and_the_default_one_level_out() {
    for own in [true, false] {
        let mut cache = cluster(&[("a1", zoned("a")), ("b1", zoned("b")), ("c1", zoned("c"))]);
        let mut rng = StdRng::seed_from_u64(3);
        let mut decider = Decider::new();
        let selector = LabelSelector {
            match_labels: [("app".to_owned(), "web".to_owned())].into(),
            ..LabelSelector::default()
        };
        let mut counts = std::collections::BTreeMap::new();
        for number in 0..9 {
            let name = format!("p{number}");
            let info = if own {
                spread_pod(&name, "ScheduleAnyway")
            } else {
                pod(&name, "100m", json!({"app": "web"}), json!({}))
            };
            let id = decider
                .choose(&mut cache, &info, Some(&selector), &mut rng)
                .expect("fits");
            cache.assume(&info, id);
            *counts
                .entry(cache.nodes().name(id).to_string())
                .or_insert(0) += 1;
        }
        assert_eq!(
            counts.into_values().collect::<Vec<_>>(),
            [3, 3, 3],
            "own constraint: {own}"
        );
    }
}

#[test]
fn a_large_cluster_is_sampled_and_a_small_one_is_not() {
    let sizes = [5, 99, 100, 200, 1000, 5000, 20_000].map(sample_size);
    assert_eq!(sizes, [5, 99, 100, 100, 420, 500, 1000]);
}
