//! Who gets a seat, in which order, and who is refused.

use std::time::Duration;

use super::classify::classify;
use super::level::{QUEUE_LEN_MAX, Refused};
use super::*;
use crate::auth::{MASTERS, NODES};

fn user(name: &str, groups: &[&str]) -> User {
    User::known(name, groups.iter().map(|group| (*group).to_owned()))
}

fn level(seats: usize) -> Arc<Level> {
    let metrics = FlowMetrics::default();
    Arc::new(Level::with_seats(Priority::GlobalDefault, seats, metrics))
}

const SOON: Duration = Duration::from_secs(5);

#[test]
fn requests_belong_to_the_levels_that_upstream_suggests() {
    let lease = Request {
        group: "coordination.k8s.io",
        resource: "leases",
        ..Request::default()
    };
    let pods = Request {
        resource: "pods",
        ..Request::default()
    };
    let probe = Request {
        probe: true,
        ..Request::default()
    };
    let node = user("system:node:n", &[NODES]);
    let account = user("system:serviceaccount:d:a", &["system:serviceaccounts"]);
    let own = user(
        "system:serviceaccount:kube-system:a",
        &[
            "system:serviceaccounts",
            "system:serviceaccounts:kube-system",
        ],
    );
    let cases = [
        (user("admin", &[MASTERS]), pods, "exempt", "exempt"),
        (User::anonymous(), probe, "exempt", "probes"),
        (node.clone(), lease, "node-high", "system-node-high"),
        (node, pods, "system", "system-nodes"),
        (
            user("system:kube-scheduler", &[]),
            lease,
            "leader-election",
            "system-leader-election",
        ),
        (
            account.clone(),
            lease,
            "leader-election",
            "workload-leader-election",
        ),
        (account, pods, "workload-low", "service-accounts"),
        (own, pods, "workload-high", "kube-system-service-accounts"),
        (user("jane", &[]), pods, "global-default", "global-default"),
        (User::anonymous(), pods, "catch-all", "catch-all"),
    ];
    for (user, request, level, schema) in cases {
        let class = classify(&user, request);
        assert_eq!(
            (class.priority.name(), class.schema),
            (level, schema),
            "{user:?}"
        );
        assert_eq!(class.flow, user.name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_one_flow_delays_another_by_one_request_at_most() {
    let level = level(1);
    let running = level.seat("flood", SOON).await.unwrap();
    let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let mut tasks = tokio::task::JoinSet::new();
    for flow in ["flood"; 20].into_iter().chain(["other"]) {
        let (level, order) = (Arc::clone(&level), Arc::clone(&order));
        tasks.spawn(async move {
            let seat = level.seat(flow, SOON).await.unwrap();
            order.lock().push(flow);
            tokio::task::yield_now().await;
            drop(seat);
        });
        tokio::task::yield_now().await;
    }
    drop(running);
    while tasks.join_next().await.is_some() {}
    let order = order.lock();
    let at = order.iter().position(|flow| *flow == "other").unwrap();
    assert!(at <= 1, "{order:?}");
    assert_eq!(order.len(), 21);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_and_waiting_ends_in_time() {
    let level = level(1);
    let running = level.seat("a", SOON).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..QUEUE_LEN_MAX {
        let level = Arc::clone(&level);
        tasks.spawn(async move { level.seat("a", SOON).await.err() });
    }
    tokio::task::yield_now().await;
    assert_eq!(level.seat("a", SOON).await.err(), Some(Refused::QueueFull));
    while let Some(ended) = tasks.join_next().await {
        assert_eq!(ended.unwrap(), Some(Refused::TimedOut));
    }
    drop(running);
    // Nobody waits any more, and the seat is back.
    let again = level.seat("a", SOON).await.unwrap();
    assert_eq!(
        level.seat("b", Duration::ZERO).await.err(),
        Some(Refused::TimedOut)
    );
    drop(again);
    level.seat("b", SOON).await.unwrap();
}

#[tokio::test]
async fn a_refusal_says_why_and_when_to_come_back() {
    let error = too_many(Priority::WorkloadLow, Refused::QueueFull);
    assert_eq!((error.code, error.reason), (429, "TooManyRequests"));
    assert_eq!(error.details.unwrap().retry_after_seconds, 1);
}
