use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::reference::World;
use super::*;
use crate::pod_info::PodInfo;
use crate::testing::{node, pod, pod_in};

const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";

/// The cache and the lists, kept equal.
#[derive(Default)]
struct Both {
    cache: Cache,
    world: World,
}

impl Both {
    fn put_node(&mut self, name: &str, zone: Option<&str>) {
        let labels = zone.map_or(json!({}), |zone| json!({ZONE: zone}));
        let node = node(name, json!({"metadata": {"labels": labels}}));
        self.cache.put_node(&node);
        self.world
            .nodes
            .insert(name.to_owned(), node.metadata.labels);
    }

    fn put_namespace(&mut self, name: &str, env: &str) {
        let labels = BTreeMap::from([("env".to_owned(), env.to_owned())]);
        self.cache.put_namespace(&name.into(), &labels);
        self.world.namespaces.insert(name.to_owned(), labels);
    }

    fn put_pod(&mut self, info: &Arc<PodInfo>, on: &str, counts: bool) {
        self.cache.put_pod(info, &on.into(), counts);
        self.world.pods.retain(|(other, _)| other.key != info.key);
        self.world.pods.push((Arc::clone(info), on.to_owned()));
    }

    fn remove_pod(&mut self, info: &PodInfo) {
        self.cache.remove_pod(&info.key);
        self.world.pods.retain(|(other, _)| other.key != info.key);
    }

    /// What the filter says of each node: nothing, or why not.
    fn refusals(&mut self, info: &PodInfo) -> BTreeMap<String, Option<String>> {
        let concerned = Concerned::ensure(&mut self.cache, info);
        let filter = PodAffinity::new(&self.cache, info, &concerned);
        let nodes = &self.cache.nodes;
        let refusal = |id| {
            let mut why = Reasons::new();
            let admitted = filter
                .as_ref()
                .is_none_or(|filter| filter.admits(id, &mut why));
            assert_eq!(admitted, why.is_empty());
            why.first().map(ToString::to_string)
        };
        nodes
            .iter()
            .map(|id| (nodes.name(id).to_string(), refusal(id)))
            .collect()
    }

    fn scores(&mut self, info: &PodInfo) -> BTreeMap<String, i64> {
        let concerned = Concerned::ensure(&mut self.cache, info);
        let ids: Vec<NodeId> = self.cache.nodes.iter().collect();
        let scores = scores(&self.cache, info, &concerned, &ids).unwrap_or(vec![0; ids.len()]);
        let name = |id: &NodeId| self.cache.nodes.name(*id).to_string();
        ids.iter().map(name).zip(scores).collect()
    }

    fn expected_refusals(&self, info: &PodInfo) -> BTreeMap<String, Option<String>> {
        let nodes = self.world.nodes.keys();
        nodes
            .map(|node| {
                let refusal = self.world.refusal(info, node).map(str::to_owned);
                (node.clone(), refusal)
            })
            .collect()
    }

    fn expected_scores(&self, info: &PodInfo) -> BTreeMap<String, i64> {
        let nodes = self.world.nodes.keys();
        let raw: BTreeMap<String, i64> = nodes
            .map(|node| (node.clone(), self.world.preference(info, node)))
            .collect();
        let least = raw.values().copied().min().unwrap_or(0);
        let most = raw.values().copied().max().unwrap_or(0);
        raw.into_iter()
            .map(|(node, sum)| (node, 100 * (sum - least) / (most - least).max(1)))
            .collect()
    }
}

fn term(app: &str, topology: &str) -> Value {
    json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": topology})
}

fn required(kind: &str, terms: &[Value]) -> Value {
    json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": terms}}})
}

fn preferred(kind: &str, weight: i32, term: &Value) -> Value {
    let weighted = json!([{"weight": weight, "podAffinityTerm": term}]);
    json!({"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution": weighted}}})
}

/// Nodes `a1` and `a2` in zone `a`, `b1` in zone `b`, `none` in no zone.
fn zones() -> Both {
    let mut both = Both::default();
    for (name, zone) in [
        ("a1", Some("a")),
        ("a2", Some("a")),
        ("b1", Some("b")),
        ("none", None),
    ] {
        both.put_node(name, zone);
    }
    both
}

fn admitted(both: &mut Both, info: &PodInfo) -> Vec<String> {
    let refusals = both.refusals(info);
    assert_eq!(refusals, both.expected_refusals(info));
    let admitted = refusals
        .into_iter()
        .filter(|(_, refusal)| refusal.is_none());
    admitted.map(|(node, _)| node).collect()
}

#[test]
fn a_pod_goes_where_the_pods_are_that_it_must_be_near() {
    let mut both = zones();
    let web = |name: &str| pod(name, "1", json!({"app": "web"}), json!({}));
    let near = pod(
        "p",
        "1",
        json!({}),
        required("podAffinity", &[term("web", ZONE)]),
    );
    assert_eq!(admitted(&mut both, &near), [] as [&str; 0]);
    both.put_pod(&web("w"), "a1", true);
    assert_eq!(admitted(&mut both, &near), ["a1", "a2"]);
    // A pod that is being deleted is still there.
    both.put_pod(&web("w"), "a1", false);
    assert_eq!(admitted(&mut both, &near), ["a1", "a2"]);
    both.put_node("a2", Some("b"));
    assert_eq!(admitted(&mut both, &near), ["a1"]);
    both.put_pod(&web("w"), "b1", true);
    assert_eq!(admitted(&mut both, &near), ["a2", "b1"]);
}

#[test]
fn the_first_pod_of_a_kind_that_wants_to_be_together_goes_anywhere_in_a_domain() {
    let mut both = zones();
    let member = |name: &str| {
        let spec = required("podAffinity", &[term("web", ZONE)]);
        pod(name, "1", json!({"app": "web"}), spec)
    };
    assert_eq!(admitted(&mut both, &member("p")), ["a1", "a2", "b1"]);
    both.put_pod(&member("p"), "b1", true);
    assert_eq!(admitted(&mut both, &member("q")), ["b1"]);
}

#[test]
fn pods_that_must_be_apart_are_whoever_comes_first() {
    let mut both = zones();
    let alone = |name: &str| {
        let spec = required("podAntiAffinity", &[term("web", HOST)]);
        pod(name, "1", json!({"app": "web"}), spec)
    };
    for node in ["a1", "a2", "b1", "none"] {
        let info = alone(node);
        assert!(admitted(&mut both, &info).contains(&node.to_owned()));
        both.put_pod(&info, node, true);
    }
    let words = "node(s) didn't match pod anti-affinity rules";
    assert!(
        both.refusals(&alone("p"))
            .values()
            .all(|why| why.as_deref() == Some(words))
    );
    // One that says nothing itself is kept away, too.
    let silent = pod("silent", "1", json!({"app": "web"}), json!({}));
    let words = "node(s) didn't satisfy existing pods anti-affinity rules";
    assert!(
        both.refusals(&silent)
            .values()
            .all(|why| why.as_deref() == Some(words))
    );
    both.remove_pod(&alone("b1"));
    assert_eq!(admitted(&mut both, &silent), ["b1"]);
    assert_eq!(
        admitted(&mut both, &pod("other", "1", json!({}), json!({}))).len(),
        4
    );
}

#[test]
fn all_required_terms_must_hold_for_the_same_pods() {
    let mut both = zones();
    both.put_pod(&pod("w", "1", json!({"app": "web"}), json!({})), "a1", true);
    both.put_pod(&pod("d", "1", json!({"app": "db"}), json!({})), "a1", true);
    let terms = [term("web", ZONE), term("db", HOST)];
    let near = pod("p", "1", json!({}), required("podAffinity", &terms));
    assert_eq!(admitted(&mut both, &near), [] as [&str; 0]);
}

#[test]
fn terms_reach_other_namespaces_by_name_and_by_label() {
    let mut both = zones();
    both.put_namespace("shop", "prod");
    let web = pod_in("shop", "w", "1", json!({"app": "web"}), json!({}));
    both.put_pod(&web, "b1", true);
    let with = |extra: &str, value: Value| {
        let mut term = term("web", ZONE);
        if !extra.is_empty() {
            term[extra] = value;
        }
        pod("p", "1", json!({}), required("podAffinity", &[term]))
    };
    for (extra, value, expected) in [
        ("", json!(null), 0),
        ("namespaces", json!(["shop"]), 1),
        ("namespaceSelector", json!({}), 1),
        (
            "namespaceSelector",
            json!({"matchLabels": {"env": "prod"}}),
            1,
        ),
        (
            "namespaceSelector",
            json!({"matchLabels": {"env": "test"}}),
            0,
        ),
    ] {
        let found = admitted(&mut both, &with(extra, value.clone()));
        assert_eq!(found.len(), expected, "{extra} {value}");
    }
    let by_label = with("namespaceSelector", json!({"matchLabels": {"env": "test"}}));
    both.put_namespace("shop", "test");
    assert_eq!(admitted(&mut both, &by_label), ["b1"]);
}

#[test]
fn preferences_of_both_sides_count() {
    let mut both = zones();
    let drawing = preferred("podAffinity", 10, &term("web", ZONE));
    both.put_pod(&pod("d", "1", json!({}), drawing), "a1", true);
    let pushing = preferred("podAntiAffinity", 10, &term("web", ZONE));
    both.put_pod(&pod("x", "1", json!({"app": "x"}), pushing), "b1", true);
    let web = pod("p", "1", json!({"app": "web"}), json!({}));
    let expected = [("a1", 100), ("a2", 100), ("b1", 0), ("none", 50)];
    let expected: BTreeMap<String, i64> = expected.map(|(n, s)| (n.to_owned(), s)).into();
    assert_eq!(both.scores(&web), expected);
    assert_eq!(both.expected_scores(&web), expected);
    let toward = preferred("podAffinity", 100, &term("x", ZONE));
    let torn = pod("p", "1", json!({"app": "web"}), toward);
    assert_eq!(both.scores(&torn)["b1"], 100);
    assert_eq!(both.scores(&torn), both.expected_scores(&torn));
}

fn labels() -> impl Strategy<Value = Value> {
    let app = prop_oneof![
        Just(json!({})),
        Just(json!({"app": "x"})),
        Just(json!({"app": "y"}))
    ];
    (
        app,
        prop_oneof![Just(None), Just(Some("1")), Just(Some("2"))],
    )
        .prop_map(|(mut labels, v)| {
            if let Some(v) = v {
                labels["v"] = json!(v);
            }
            labels
        })
}

fn random_term() -> impl Strategy<Value = Value> {
    let selector = prop_oneof![
        3 => Just(json!({"matchLabels": {"app": "x"}})),
        2 => Just(json!({"matchLabels": {"app": "y", "v": "1"}})),
        1 => Just(json!({})),
        1 => Just(json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["x", "y"]}]})),
        1 => Just(json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]})),
        1 => Just(json!({"matchExpressions": [{"key": "v", "operator": "NotIn", "values": ["1"]}]})),
        1 => Just(Value::Null),
    ];
    let scope = prop_oneof![
        4 => Just(json!({})),
        1 => Just(json!({"namespaces": ["other"]})),
        1 => Just(json!({"namespaces": ["other", "default"]})),
        1 => Just(json!({"namespaceSelector": {}})),
        1 => Just(json!({"namespaceSelector": {"matchLabels": {"env": "prod"}}})),
    ];
    let keys = prop_oneof![
        4 => Just(json!({})),
        1 => Just(json!({"matchLabelKeys": ["v"]})),
        1 => Just(json!({"mismatchLabelKeys": ["v"]})),
    ];
    let topology = prop_oneof![Just(ZONE), Just(HOST), Just("absent")];
    (selector, scope, keys, topology).prop_map(|(selector, scope, keys, topology)| {
        let mut term = json!({"topologyKey": topology});
        if !selector.is_null() {
            term["labelSelector"] = selector;
        }
        for (key, value) in [scope, keys].iter().filter_map(Value::as_object).flatten() {
            term[key] = value.clone();
        }
        term
    })
}

fn spec() -> impl Strategy<Value = Value> {
    let terms = |most| proptest::collection::vec(random_term(), 0..=most);
    let weighted = || proptest::collection::vec((random_term(), 1..=100), 0..=2);
    (terms(2), terms(1), weighted(), weighted()).prop_map(|(near, apart, drawn, pushed)| {
        let weighted = |terms: Vec<(Value, i32)>| -> Vec<Value> {
            let terms = terms.into_iter();
            terms
                .map(|(term, weight)| json!({"weight": weight, "podAffinityTerm": term}))
                .collect()
        };
        json!({"affinity": {
            "podAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": near,
                "preferredDuringSchedulingIgnoredDuringExecution": weighted(drawn),
            },
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": apart,
                "preferredDuringSchedulingIgnoredDuringExecution": weighted(pushed),
            },
        }})
    })
}

#[derive(Debug, Clone)]
enum Op {
    /// A node's zone is this one now.
    Zone(u8, Option<u8>),
    /// A namespace is in this environment now.
    Env(bool, bool),
    Put {
        name: u8,
        elsewhere: bool,
        labels: Value,
        spec: Value,
        on: u8,
        counts: bool,
    },
    Remove(u8),
    /// The next pod: what is said of it must be right.
    Ask {
        elsewhere: bool,
        labels: Value,
        spec: Value,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let maybe_spec = || prop_oneof![1 => Just(json!({})), 3 => spec()];
    prop_oneof![
        1 => (0..4_u8, proptest::option::of(0..2_u8)).prop_map(|(n, zone)| Op::Zone(n, zone)),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(elsewhere, prod)| Op::Env(elsewhere, prod)),
        6 => (0..10_u8, any::<bool>(), labels(), maybe_spec(), 0..4_u8, any::<bool>()).prop_map(
            |(name, elsewhere, labels, spec, on, counts)| {
                Op::Put { name, elsewhere, labels, spec, on, counts }
            }
        ),
        2 => (0..10_u8).prop_map(Op::Remove),
        4 => (any::<bool>(), labels(), maybe_spec())
            .prop_map(|(elsewhere, labels, spec)| Op::Ask { elsewhere, labels, spec }),
    ]
}

fn namespace(elsewhere: bool) -> &'static str {
    if elsewhere { "other" } else { "default" }
}

proptest! {
    #[test]
    fn counts_kept_up_to_date_say_the_same_as_looking_at_every_pod(
        ops in proptest::collection::vec(op(), 1..40),
    ) {
        let mut both = Both::default();
        for number in 0..4 {
            both.put_node(&format!("n{number}"), None);
        }
        let mut pods: BTreeMap<u8, Arc<PodInfo>> = BTreeMap::new();
        for op in ops {
            match op {
                Op::Zone(number, zone) => {
                    let zone = zone.map(|zone| zone.to_string());
                    both.put_node(&format!("n{number}"), zone.as_deref());
                }
                Op::Env(elsewhere, prod) => {
                    both.put_namespace(namespace(elsewhere), if prod { "prod" } else { "test" });
                }
                Op::Put { name, elsewhere, labels, spec, on, counts } => {
                    let text = format!("p{name}");
                    let info = pod_in(namespace(elsewhere), &text, "1m", labels, spec);
                    if let Some(before) = pods.insert(name, Arc::clone(&info)) {
                        both.remove_pod(&before);
                    }
                    both.put_pod(&info, &format!("n{on}"), counts);
                }
                Op::Remove(name) => {
                    if let Some(info) = pods.remove(&name) {
                        both.remove_pod(&info);
                    }
                }
                Op::Ask { elsewhere, labels, spec } => {
                    let info = pod_in(namespace(elsewhere), "asking", "1m", labels, spec);
                    prop_assert_eq!(both.refusals(&info), both.expected_refusals(&info));
                    prop_assert_eq!(both.scores(&info), both.expected_scores(&info));
                }
            }
        }
    }
}
