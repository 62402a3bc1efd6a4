//! Who gets a seat, in which order, and who is refused.

use serde_json::json;

use super::seats::Place;
use super::*;
use crate::auth::{MASTERS, NODES};
use crate::http::ResourcePath;

const SOON: Duration = Duration::from_secs(5);

fn user(name: &str, groups: &[&str]) -> User {
    User::known(name, groups.iter().map(|group| (*group).to_owned()))
}

fn flow() -> Flow {
    Flow::new(FlowMetrics::default())
}

impl Flow {
    /// With `schemas` and `levels` beside those that every cluster begins with.
    fn and(schemas: &[Value], levels: &[Value]) -> Self {
        let flow = flow();
        flow.set(schemas, levels);
        flow
    }

    fn set(&self, schemas: &[Value], levels: &[Value]) {
        let own = (flow_control::schemas(), flow_control::levels());
        self.configure(own.0.iter().chain(schemas), own.1.iter().chain(levels));
    }

    fn level(&self, name: &str) -> LevelId {
        let rules = self.rules.load();
        let of = |schema: &&Arc<Schema>| &*schema.spec.level == name;
        rules.schemas.iter().find(of).unwrap().level.unwrap()
    }

    fn seat(&self, level: &str, flow: u64, width: u64) -> Option<Seat> {
        match self.seats.ask(self.level(level), flow, width) {
            Asked::Seat(seat) => Some(seat),
            _ => None,
        }
    }

    fn place(&self, level: &str, flow: u64) -> Place {
        match self.seats.ask(self.level(level), flow, 1) {
            Asked::Place(place) => place,
            other => panic!("{other:?}"),
        }
    }

    /// All seats that the level gets now.
    fn fill(&self, level: &str) -> Vec<Seat> {
        std::iter::from_fn(|| self.seat(level, 0, 1)).collect()
    }
}

fn path(group: &str, plural: &str, namespace: &str, subresource: &str) -> ResourcePath {
    ResourcePath {
        group: group.to_owned(),
        version: "v1".to_owned(),
        namespace: namespace.to_owned(),
        plural: plural.to_owned(),
        name: "x".to_owned(),
        subresource: subresource.to_owned(),
    }
}

fn ask<'a>(verb: &'a str, path: &'a ResourcePath) -> Request<'a> {
    Request {
        verb,
        path: "",
        resource: Some(path),
        width: 1,
    }
}

fn schema(name: &str, level: &str, precedence: i64, rule: &Value) -> Value {
    json!({"metadata": {"name": name, "uid": format!("uid-{name}")}, "spec": {
        "matchingPrecedence": precedence, "priorityLevelConfiguration": {"name": level},
        "rules": [rule]}})
}

fn level(name: &str, limited: &Value) -> Value {
    json!({"metadata": {"name": name, "uid": format!("uid-{name}")},
        "spec": {"type": "Limited", "limited": limited}})
}

fn all_of(subject: &Value) -> Value {
    json!({"subjects": [subject],
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
            "namespaces": ["*"], "clusterScope": true}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]})
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "group": {"name": name}})
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn requests_belong_to_the_levels_that_upstream_suggests() {
    let flow = flow();
    let account = user("system:serviceaccount:d:a", &["system:serviceaccounts"]);
    let own = user(
        "system:serviceaccount:kube-system:a",
        &[
            "system:serviceaccounts",
            "system:serviceaccounts:kube-system",
        ],
    );
    let node = user("system:node:n", &[NODES]);
    let scheduler = user("system:kube-scheduler", &[]);
    let lease = path("coordination.k8s.io", "leases", "kube-system", "");
    let pods = path("", "pods", "d", "");
    let status = path("", "nodes", "", "status");
    let cases = [
        (user("admin", &[MASTERS]), "get", &pods, "exempt", "exempt"),
        (
            node.clone(),
            "update",
            &lease,
            "node-high",
            "system-node-high",
        ),
        (
            node.clone(),
            "patch",
            &status,
            "node-high",
            "system-node-high",
        ),
        (node, "get", &pods, "system", "system-nodes"),
        (
            scheduler.clone(),
            "update",
            &lease,
            "leader-election",
            "system-leader-election",
        ),
        (
            scheduler.clone(),
            "list",
            &lease,
            "workload-high",
            "kube-scheduler",
        ),
        (scheduler, "get", &pods, "workload-high", "kube-scheduler"),
        (
            own.clone(),
            "update",
            &lease,
            "leader-election",
            "system-leader-election",
        ),
        (
            own,
            "get",
            &pods,
            "workload-high",
            "kube-system-service-accounts",
        ),
        (
            account.clone(),
            "update",
            &lease,
            "workload-low",
            "service-accounts",
        ),
        (account, "get", &pods, "workload-low", "service-accounts"),
        (
            user("jane", &[]),
            "get",
            &pods,
            "global-default",
            "global-default",
        ),
        (
            User::anonymous(),
            "get",
            &pods,
            "global-default",
            "global-default",
        ),
    ];
    for (user, verb, path, level, schema) in cases {
        let Sorted(sorted) = flow.sort(&user, &ask(verb, path));
        let got = (&*sorted.spec.level, &*sorted.spec.name);
        assert_eq!(got, (level, schema), "{verb} {path:?} of {user:?}");
    }
    let probe = Request {
        verb: "get",
        path: "/readyz",
        resource: None,
        width: 1,
    };
    let Sorted(sorted) = flow.sort(&User::anonymous(), &probe);
    assert_eq!(&*sorted.spec.name, "probes");
}

#[test]
fn the_seats_of_the_first_levels_are_upstreams() {
    let levels: Vec<LevelSpec> = flow_control::levels().iter().map(LevelSpec::read).collect();
    let limits: Vec<(String, u64, u64)> = config::limits(levels.iter())
        .into_iter()
        .map(|(level, _, limits)| (level.name.to_string(), limits.nominal, limits.min))
        .collect();
    let expected = [
        ("catch-all", 13, 13),
        ("global-default", 49, 24),
        ("leader-election", 25, 25),
        ("node-high", 98, 73),
        ("system", 74, 50),
        ("workload-high", 98, 49),
        ("workload-low", 245, 24),
    ];
    let expected = expected.map(|(name, nominal, min)| (name.to_owned(), nominal, min));
    assert_eq!(limits, expected);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn rules_match_as_upstream_matches_them() {
    let user = |name: &str| user(name, &["g"]);
    let subject = json!({"kind": "ServiceAccount",
        "serviceAccount": {"namespace": "d", "name": "*"}});
    let rule = |resources: Value, namespaces: Value, cluster: bool| {
        json!({"subjects": [subject], "resourceRules": [{"verbs": ["get"], "apiGroups": [""],
            "resources": resources, "namespaces": namespaces, "clusterScope": cluster}]})
    };
    let pod = path("", "pods", "n", "");
    let log = path("", "pods", "n", "log");
    let node = path("", "nodes", "", "");
    let (account, other) = ("system:serviceaccount:d:a", "system:serviceaccount:e:a");
    let cases = [
        (
            rule(json!(["pods"]), json!(["n"]), false),
            account,
            "get",
            &pod,
            true,
        ),
        (
            rule(json!(["pods"]), json!(["n"]), false),
            other,
            "get",
            &pod,
            false,
        ),
        (
            rule(json!(["pods"]), json!(["n"]), false),
            account,
            "list",
            &pod,
            false,
        ),
        (
            rule(json!(["pods"]), json!(["n"]), false),
            account,
            "get",
            &log,
            false,
        ),
        (
            rule(json!(["pods/log"]), json!(["n"]), false),
            account,
            "get",
            &log,
            true,
        ),
        (
            rule(json!(["pods/log"]), json!(["n"]), false),
            account,
            "get",
            &pod,
            false,
        ),
        (
            rule(json!(["*"]), json!(["m"]), false),
            account,
            "get",
            &pod,
            false,
        ),
        (
            rule(json!(["*"]), json!(["*"]), false),
            account,
            "get",
            &log,
            true,
        ),
        (
            rule(json!(["*"]), json!(["*"]), false),
            account,
            "get",
            &node,
            false,
        ),
        (
            rule(json!(["*"]), json!([]), true),
            account,
            "get",
            &node,
            true,
        ),
        (
            rule(json!(["*"]), json!([]), true),
            account,
            "get",
            &pod,
            false,
        ),
    ];
    for (rule, name, verb, path, expected) in cases {
        let flow = Flow::and(&[schema("s", "workload-high", 2, &rule)], &[]);
        let Sorted(sorted) = flow.sort(&user(name), &ask(verb, path));
        assert_eq!(
            &*sorted.spec.name == "s",
            expected,
            "{rule} {name} {verb} {path:?}"
        );
    }
    let urls = json!({"subjects": [group("*")],
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/a/*", "/b"]}]});
    let flow = Flow::and(&[schema("s", "workload-high", 2, &urls)], &[]);
    for (path, expected) in [("/a/x", true), ("/b", true), ("/b/x", false), ("/a", false)] {
        let request = Request {
            verb: "get",
            path,
            resource: None,
            width: 1,
        };
        let Sorted(sorted) = flow.sort(&user("u"), &request);
        assert_eq!(&*sorted.spec.name == "s", expected, "{path}");
    }
}

#[test]
fn the_lowest_precedence_wins_and_a_schema_without_its_level_is_passed_over() {
    let pods = path("", "pods", "d", "");
    let jane = user("jane", &["team"]);
    let schemas = [
        schema("later", "workload-high", 50, &all_of(&group("team"))),
        schema("first", "tenant", 40, &all_of(&group("team"))),
        schema("also", "tenant", 40, &all_of(&group("team"))),
    ];
    let flow = Flow::and(&schemas, &[]);
    let Sorted(sorted) = flow.sort(&jane, &ask("get", &pods));
    assert_eq!(&*sorted.spec.name, "later", "there is no level `tenant`");
    flow.set(
        &schemas,
        &[level("tenant", &json!({"nominalConcurrencyShares": 5}))],
    );
    let sorted = flow.sort(&jane, &ask("get", &pods));
    assert_eq!(
        &*sorted.0.spec.name, "also",
        "by name where precedences are equal"
    );
    let mut headers = HeaderMap::new();
    sorted.tell(&mut headers);
    assert_eq!(headers[&SCHEMA_UID], "uid-also");
    assert_eq!(headers[&LEVEL_UID], "uid-tenant");
}

#[test]
fn the_catch_all_is_there_whatever_is_deleted() {
    let flow = flow();
    flow.configure(std::iter::empty(), std::iter::empty());
    let pods = path("", "pods", "d", "");
    let Sorted(sorted) = flow.sort(&user("jane", &[]), &ask("get", &pods));
    assert_eq!(&*sorted.spec.name, "catch-all");
    assert_eq!(flow.fill("catch-all").len(), 600);
}

#[test]
fn a_level_borrows_what_others_lend_and_owners_get_it_back_first() {
    let flow = flow();
    let mut borrowed = flow.fill("global-default");
    let lent: usize = 25 + 25 + 24 + 49 + 221;
    assert_eq!(borrowed.len(), 24 + lent, "its own and all that is lent");
    let mut own = flow.fill("workload-high");
    assert_eq!(own.len(), 49, "what it never lends");
    let (mut more, mut owner) = (
        flow.place("global-default", 1),
        flow.place("workload-high", 1),
    );
    borrowed.pop();
    own.push(owner.seat.try_recv().unwrap());
    more.seat.try_recv().unwrap_err();
}

#[test]
fn a_borrowing_limit_holds() {
    let limited = json!({"nominalConcurrencyShares": 245, "borrowingLimitPercent": 10,
        "limitResponse": {"type": "Reject"}});
    let tenant = schema("t", "tenant", 40, &all_of(&group("team")));
    let flow = Flow::and(&[tenant], &[level("tenant", &limited)]);
    assert_eq!(flow.fill("tenant").len(), 300 + 30);
}

#[test]
fn a_wide_request_takes_more_seats_and_no_more_than_its_level_has() {
    let flow = flow();
    let wide = flow.seat("workload-low", 0, 1000).unwrap();
    assert_eq!(
        format!("{wide:?}"),
        format!("Seat(10 of level {})", flow.level("workload-low"))
    );
    let narrow = flow.seat("catch-all", 0, 1000).unwrap();
    assert_eq!(
        format!("{narrow:?}"),
        format!("Seat(2 of level {})", flow.level("catch-all"))
    );
    drop((wide, narrow));
    assert!(flow.seats.idle());
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_one_flow_delays_another_by_one_request_at_most() {
    let queuing = json!({"type": "Queue",
        "queuing": {"queues": 64, "handSize": 1, "queueLengthLimit": 50}});
    let limited = json!({"nominalConcurrencyShares": 0, "limitResponse": queuing});
    let tenant = schema("t", "tenant", 40, &all_of(&group("team")));
    let flow = Flow::and(&[tenant], &[level("tenant", &limited)]);
    let closed = flow.place("tenant", 1);
    drop(closed);
    let one = json!({"nominalConcurrencyShares": 1, "borrowingLimitPercent": 0,
        "limitResponse": queuing});
    flow.set(
        &[schema("t", "tenant", 40, &all_of(&group("team")))],
        &[level("tenant", &one)],
    );
    let mut running = flow.fill("tenant");
    assert_eq!(running.len(), 3);
    let mut flood: Vec<Place> = (0..20).map(|_| flow.place("tenant", 7)).collect();
    let mut other = flow.place("tenant", 8);
    // Two go, and two come: one of the flood, and the other.
    running.truncate(1);
    let granted: Vec<Seat> = flood
        .iter_mut()
        .filter_map(|place| place.seat.try_recv().ok())
        .collect();
    assert_eq!(granted.len(), 1);
    other.seat.try_recv().unwrap();
    drop((flood, other, granted, running));
    assert!(flow.seats.idle());
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_and_waiting_ends_in_time() {
    let queuing = json!({"type": "Queue",
        "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 3}});
    let limited = json!({"nominalConcurrencyShares": 1, "borrowingLimitPercent": 0,
        "limitResponse": queuing});
    let tenant = schema("t", "tenant", 40, &all_of(&group("team")));
    let flow = Arc::new(Flow::and(&[tenant], &[level("tenant", &limited)]));
    let running = flow.fill("tenant");
    let admit = || {
        let flow = Arc::clone(&flow);
        async move {
            let (jane, pods) = (user("jane", &["team"]), path("", "pods", "d", ""));
            let request = ask("get", &pods);
            let sorted = flow.sort(&jane, &request);
            flow.admit(&sorted, &jane, &request).await.map(|_| ())
        }
    };
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..3 {
        tasks.spawn(admit());
    }
    tokio::task::yield_now().await;
    let full = admit().await.unwrap_err();
    assert_eq!((full.code, full.reason), (429, "TooManyRequests"));
    assert!(
        full.message
            .ends_with("priority level tenant: its queue is full"),
        "{full}"
    );
    assert_eq!(full.details.unwrap().retry_after_seconds, 1);
    while let Some(ended) = tasks.join_next().await {
        let late = ended.unwrap().unwrap_err();
        assert!(
            late.message.ends_with("no seat came free in time"),
            "{late}"
        );
    }
    drop(running);
    tokio::time::timeout(SOON, admit()).await.unwrap().unwrap();
    assert!(flow.seats.idle());
}

#[tokio::test(start_paused = true)]
async fn no_configuration_starves_heartbeats_and_leaders() {
    // Everything of everybody first goes to a level that has no seat at all.
    let trap = schema("trap", "trap", 2, &all_of(&group("*")));
    let none = json!({"nominalConcurrencyShares": 0, "limitResponse": {"type": "Reject"}});
    let flow = Flow::and(&[trap], &[level("trap", &none)]);
    let lease = path("coordination.k8s.io", "leases", "d", "");
    let status = path("", "nodes", "", "status");
    let pods = path("", "pods", "d", "");
    let node = user("system:node:n", &[NODES]);
    let account = user("system:serviceaccount:d:a", &["system:serviceaccounts"]);
    for (user, request, vital) in [
        (&node, ask("update", &lease), true),
        (&node, ask("patch", &status), true),
        (&account, ask("update", &lease), true),
        (&node, ask("list", &lease), false),
        (&account, ask("update", &pods), false),
        (&account, ask("patch", &status), false),
    ] {
        let sorted = flow.sort(user, &request);
        assert_eq!(&*sorted.0.spec.name, "trap");
        let admitted = flow.admit(&sorted, user, &request).await;
        assert_eq!(admitted.is_ok(), vital, "{request:?}");
    }
    assert!(flow.seats.idle());
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_a_level_that_goes_is_served() {
    let queuing = json!({"type": "Queue",
        "queuing": {"queues": 4, "handSize": 1, "queueLengthLimit": 50}});
    let limited = json!({"nominalConcurrencyShares": 1, "borrowingLimitPercent": 0,
        "limitResponse": queuing});
    let tenant = [schema("t", "tenant", 40, &all_of(&group("team")))];
    let flow = Flow::and(&tenant, &[level("tenant", &limited)]);
    let id = flow.level("tenant");
    let running = flow.fill("tenant");
    let mut places = [flow.place("tenant", 1), flow.place("tenant", 2)];
    flow.set(&[], &[]);
    drop(running);
    let first = places[0].seat.try_recv().unwrap();
    places[1].seat.try_recv().unwrap_err();
    drop(first);
    drop(places[1].seat.try_recv().unwrap());
    drop(places);
    assert!(flow.seats.idle());
    assert!(
        matches!(flow.seats.ask(id, 1, 1), Asked::NoLevel),
        "it is forgotten"
    );
}

#[test]
fn a_hand_is_of_different_queues_and_always_the_same() {
    for flow in (0..2000_u64).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15)) {
        for (queues, hand) in [(1, 1), (2, 2), (16, 4), (64, 6), (128, 6), (20, 20)] {
            let queuing = Queuing {
                queues,
                hand,
                length: 1,
            };
            let dealt = seats::hand(flow, queuing);
            let different: std::collections::BTreeSet<u32> = dealt.iter().copied().collect();
            assert_eq!(different.len(), hand as usize, "{dealt:?}");
            assert!(dealt.iter().all(|at| *at < queues), "{dealt:?}");
            assert_eq!(dealt, seats::hand(flow, queuing));
        }
    }
}
