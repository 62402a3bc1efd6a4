//! What the API costs: the control plane's own CPU time per operation, its memory, and how soon it
//! is ready. It starts the real binary on an empty durable store and speaks to it as clients do.
//!
//! CPU time is that of the server's process (controllers and scheduler included), read from /proc:
//! on a busy machine it is the figure that can be compared. Wall rates are printed beside it.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement stops at the first fault and prints what it found"
)]

mod client;
mod limits;
mod report;
mod server;

use std::time::{Duration, Instant};

use client::Client;
use futures::StreamExt as _;
use report::Report;
use serde_json::{Value, json};
use server::Server;

const NODES: u32 = 500;
/// In each of two namespaces.
const PODS: u32 = 3000;
/// For the second start, with those above.
const CONFIG_MAPS: u32 = 43_500;
/// Requests under way at a time.
const CONCURRENCY: usize = 32;

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut report = Report::default();
    let mut server = Server::start(dir.path()).await;
    report.time("ready, empty store", server.ready_after, "ms", 200.0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    report.size("RSS idle", server.rss_mb(), 30.0);
    let client = server.client().await;

    for namespace in ["a", "b"] {
        let body = json!({"metadata": {"name": namespace}});
        assert_eq!(client.post("/api/v1/namespaces", &body).await, 201);
    }
    settled(&server).await;
    each(&client, NODES, |i| ("/api/v1/nodes".to_owned(), node(i))).await;
    settled(&server).await;
    let cost = measured(&server, 2 * PODS, async {
        each(&client, 2 * PODS, |i| {
            let namespace = if i % 2 == 0 { "a" } else { "b" };
            (pods(namespace), pod(i))
        })
        .await;
    })
    .await;
    report.cost("create pod, durable", cost, 0.2);
    settled(&server).await;
    report.size("RSS, 6,000 pods and 500 nodes", server.rss_mb(), 100.0);
    reads(&server, &client, &mut report).await;
    watches(&server, &client, &mut report).await;
    report.size("RSS after the lists and watches", server.rss_mb(), 100.0);

    let cost = measured(&server, CONFIG_MAPS, async {
        each(&client, CONFIG_MAPS, |i| {
            let body =
                json!({"metadata": {"name": format!("m{i}")}, "data": {"k": "v".repeat(300)}});
            ("/api/v1/namespaces/a/configmaps".to_owned(), body)
        })
        .await;
    })
    .await;
    report.cost("create config map, durable", cost, 0.2);
    limits::many(&server, &client, &mut report).await;
    limits::fairness(&server, &client, &mut report).await;
    drop(client);
    server.restart().await;
    report.time("ready, 50,000 objects", server.ready_after, "ms", 2000.0);
    report.size("RSS, 50,000 objects", server.rss_mb(), f64::NAN);
    report.size("binary, stripped", server::binary_mb(dir.path()), 30.0);
    server.stop().await;
    report.print();
}

async fn reads(server: &Server, client: &Client, report: &mut Report) {
    const GETS: u32 = 20_000;
    let cost = measured(server, GETS, async {
        let one = |i: u32| async move {
            let path = format!("{}/p{}", pods("a"), i % PODS * 2);
            assert_eq!(client.get(&path, "").await.0, 200);
        };
        concurrently(GETS, one).await;
    })
    .await;
    report.cost("GET pod", cost, 0.04);
    for (name, accept, target) in [
        ("LIST 3,000 pods, JSON", "application/json", 5.0),
        (
            "LIST 3,000 pods, protobuf",
            "application/vnd.kubernetes.protobuf",
            5.0,
        ),
    ] {
        // The first one makes the messages that the others share.
        let (status, bytes) = client.get(&pods("a"), accept).await;
        assert_eq!(status, 200);
        let cost = measured(server, 40, async {
            for _ in 0..40 {
                assert_eq!(client.get(&pods("a"), accept).await, (200, bytes));
            }
        })
        .await;
        report.cost(&format!("{name} ({:.1} MB)", mb(bytes)), cost, target);
    }
    let cost = measured(server, 20, async {
        for _ in 0..20 {
            client.get(&pods("a"), TABLE).await;
        }
    })
    .await;
    report.cost("LIST 3,000 pods, Table", cost, f64::NAN);
}

const TABLE: &str = "application/json;as=Table;g=meta.k8s.io;v=v1";

async fn watches(server: &Server, client: &Client, report: &mut Report) {
    const PATCHES: u32 = 4000;
    let patch = |i: u32| async move {
        let path = format!("{}/p{}", pods("b"), i % 500 * 2 + 1);
        let body = json!({"metadata": {"annotations": {"n": i.to_string()}}});
        assert_eq!(client.patch(&path, &body).await, 200);
    };
    let alone = measured(server, PATCHES, concurrently(PATCHES, patch)).await;
    report.cost("merge PATCH pod, durable", alone, f64::NAN);
    for (watchers, events) in [(1, 8000_u32), (200, 2000), (1000, 1000)] {
        let mut streams = Vec::new();
        for _ in 0..watchers {
            let path = format!(
                "{}?watch=1&resourceVersion={}",
                pods("b"),
                server.revision().await
            );
            streams.push(server.watch(&path).await);
        }
        settled(server).await;
        let cost = measured(server, events, async {
            let seen = futures::future::join_all(streams.iter_mut().map(|s| s.lines(events)));
            futures::future::join(seen, concurrently(events, patch)).await;
        })
        .await;
        let own = (cost.cpu_ms - alone.cpu_ms).max(0.0) * 1000.0 / f64::from(watchers);
        let name = format!("watch event to each of {watchers} watchers");
        report.event(&name, own, cost.rate * f64::from(watchers), 2.0);
    }
}

/// Server CPU time and rate of one operation.
#[derive(Debug, Clone, Copy)]
struct Cost {
    cpu_ms: f64,
    rate: f64,
}

async fn measured(server: &Server, count: u32, work: impl Future<Output = ()>) -> Cost {
    let (started, before) = (Instant::now(), server.cpu());
    work.await;
    let (took, cpu) = (started.elapsed(), server.cpu() - before);
    Cost {
        cpu_ms: cpu.as_secs_f64() * 1000.0 / f64::from(count),
        rate: f64::from(count) / took.as_secs_f64(),
    }
}

/// Waits until the server has nothing to do: what one measurement set off does not count for the
/// next.
async fn settled(server: &Server) {
    for _ in 0..100 {
        let before = server.cpu();
        tokio::time::sleep(Duration::from_millis(200)).await;
        if server.cpu() - before <= Duration::from_millis(10) {
            return;
        }
    }
}

async fn each(client: &Client, count: u32, body: impl Fn(u32) -> (String, Value)) {
    let one = |i: u32| {
        let (path, body) = body(i);
        async move { assert_eq!(client.post(&path, &body).await, 201, "{path}") }
    };
    concurrently(count, one).await;
}

async fn concurrently<F: Future<Output = ()>>(count: u32, one: impl Fn(u32) -> F) {
    futures::stream::iter(0..count)
        .map(one)
        .buffer_unordered(CONCURRENCY)
        .collect::<()>()
        .await;
}

fn pods(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

fn pod(i: u32) -> Value {
    json!({
        "metadata": {"name": format!("p{i}"), "labels": {"app": "web", "pod-template-hash": "5d4f8"}},
        "spec": {
            "nodeName": format!("n{}", i % NODES),
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "web", "image": "skep.local/hello:1",
                "env": [{"name": "A", "value": "b"}],
                "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                "readinessProbe": {"httpGet": {"path": "/", "port": 8080}},
            }],
        },
    })
}

fn node(i: u32) -> Value {
    json!({"metadata": {"name": format!("n{i}"), "labels": {"kubernetes.io/hostname": format!("n{i}")}}})
}

fn mb(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}
