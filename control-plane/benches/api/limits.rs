//! What many clients cost, and whether a flood of one keeps others waiting.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};

use super::client::Client;
use super::report::Report;
use super::server::Server;
use super::{pods, settled};

const IDLE: u16 = 1000;
const SLOW_WATCHES: u16 = 5000;
const LISTS: u16 = 200;
const FLOODERS: usize = 200;
/// How long the flood goes on.
const FLOOD: Duration = Duration::from_secs(5);
/// How often somebody renews a lease meanwhile.
const RENEWAL: Duration = Duration::from_millis(20);

/// Memory that connections, watches that are not read, and lists that are not read take.
pub(crate) async fn many(server: &Server, client: &Client, report: &mut Report) {
    let before = server.rss_mb();
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(server.client().await);
    }
    let each = (server.rss_mb() - before) * 1000.0 / f64::from(IDLE);
    report.each("an idle connection", each, "KB", f64::NAN);
    drop(idle);

    let before = server.rss_mb();
    let revision = server.revision().await;
    let path = format!("{}?watch=1&resourceVersion={revision}", pods("b"));
    let mut watches = Vec::new();
    for _ in 0..SLOW_WATCHES {
        watches.push(server.watch(&path).await);
    }
    let each = (server.rss_mb() - before) * 1000.0 / f64::from(SLOW_WATCHES);
    report.each("a watch", each, "KB", 4.0);
    let each_patch = |i: u32| async move {
        let path = format!("{}/p{}", pods("b"), i % 500 * 2 + 1);
        let body = json!({"metadata": {"annotations": {"slow": i.to_string()}}});
        assert_eq!(client.patch(&path, &body).await, 200);
    };
    super::concurrently(1000, each_patch).await;
    settled(server).await;
    let each = (server.rss_mb() - before) * 1000.0 / f64::from(SLOW_WATCHES);
    report.each("a watch that is not read", each, "KB", f64::NAN);
    drop(watches);

    let before = server.rss_mb();
    let lists = (0..LISTS).map(|_| server.watch("/api/v1/configmaps"));
    let lists = join_all(lists).await;
    settled(server).await;
    let grown = server.rss_mb() - before;
    report.size(
        "growth, 200 lists of 43,500 objects at once",
        grown,
        f64::NAN,
    );
    drop(lists);
}

/// The longest 1 % of lease renewals while a service account asks as fast as it can.
pub(crate) async fn fairness(server: &Server, client: &Client, report: &mut Report) {
    let accounts = "/api/v1/namespaces/a/serviceaccounts";
    let body = json!({"metadata": {"name": "tenant"}});
    assert_eq!(client.post(accounts, &body).await, 201);
    let path = format!("{accounts}/tenant/token");
    let issued = client.post_for(&path, &json!({"spec": {}})).await;
    let token = issued["status"]["token"].as_str().unwrap();
    let leases = "/apis/coordination.k8s.io/v1/namespaces/a/leases";
    let body = json!({"metadata": {"name": "leader"}, "spec": {"holderIdentity": "x"}});
    assert_eq!(client.post(leases, &body).await, 201);
    let tenant = server.client_without_certificate().await;
    let end = Instant::now() + FLOOD;
    let flood = join_all((0..FLOODERS).map(|_| async {
        let mut asked = 0_u32;
        while Instant::now() < end {
            tenant.get_with_token(&pods("a"), token).await;
            asked += 1;
        }
        asked
    }));
    let (asked, slowest) = futures::future::join(flood, renewals(client, leases, end)).await;
    let rate = f64::from(asked.iter().sum::<u32>()) / FLOOD.as_secs_f64();
    let name = format!("lease renewal, p99, in a flood of {rate:.0}/s");
    report.time(&name, slowest, "ms", 100.0);
}

async fn renewals(client: &Client, leases: &str, end: Instant) -> Duration {
    let path = format!("{leases}/leader");
    let mut took = Vec::new();
    let mut timer = tokio::time::interval(RENEWAL);
    while Instant::now() < end {
        timer.tick().await;
        let started = Instant::now();
        let renewed: Value = json!({"spec": {"leaseTransitions": took.len()}});
        assert_eq!(client.patch(&path, &renewed).await, 200);
        took.push(started.elapsed());
    }
    took.sort();
    took[took.len() * 99 / 100]
}
