//! The first walk of the README, as a user types it, with each of the stores.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{Cluster, Options, Store, until};

/// A loaded machine starts a pod in seconds.
const SOON: Duration = Duration::from_secs(60);

#[test]
fn the_walk_works_with_the_embedded_store() -> Result<()> {
    walk("walk-embedded", Store::Embedded)
}

#[test]
fn the_walk_works_with_etcd() -> Result<()> {
    walk("walk-etcd", Store::Etcd)
}

fn walk(name: &str, store: Store) -> Result<()> {
    let cluster = Cluster::up(
        name,
        Options {
            store,
            ..Options::default()
        },
    )?;
    nodes_are_shown(&cluster)?;
    cluster.apply_file("examples/hello.yaml")?;
    let rollout = ["rollout", "status", "deploy/hello", "--timeout=60s"];
    cluster.kubectl(&rollout)?.success()?.without_warning()?;
    start_client(&cluster)?;
    requests_reach_every_pod_on_every_node(&cluster)?;
    logs_are_shown(&cluster)?;
    deleted_pods_are_replaced(&cluster)?;
    the_kernels_view_is_shown(&cluster)?;
    cluster.down()
}

fn nodes_are_shown(cluster: &Cluster) -> Result<()> {
    let shown = cluster
        .kubectl(&["get", "nodes", "-o", "wide"])?
        .success()?
        .without_warning()?;
    for node in ["node-1", "node-2"] {
        let line = shown.stdout.lines().find(|line| line.starts_with(node));
        let line = line.with_context(|| format!("no line of {node} in:\n{}", shown.stdout))?;
        ensure!(line.contains(" Ready "), "{line}");
        ensure!(line.contains("containerd://"), "{line}");
    }
    Ok(())
}

fn start_client(cluster: &Cluster) -> Result<()> {
    let image = "--image=skep.local/busybox";
    let run = [
        "run",
        "client",
        image,
        "--restart=Never",
        "--",
        "sleep",
        "3600",
    ];
    cluster.kubectl(&run)?.success()?.without_warning()?;
    let wait = [
        "wait",
        "--for=condition=Ready",
        "pod/client",
        "--timeout=60s",
    ];
    cluster.kubectl(&wait)?.success()?;
    Ok(())
}

/// By name, through the virtual address, from a pod.
fn request(cluster: &Cluster) -> Result<String> {
    let url = "http://hello.default.svc.cluster.local/";
    let answer = cluster
        .kubectl(&["exec", "client", "--", "wget", "-qO-", url])?
        .success()?;
    Ok(answer.text().to_owned())
}

fn requests_reach_every_pod_on_every_node(cluster: &Cluster) -> Result<()> {
    let pods = hello_pods(cluster)?;
    ensure!(pods.len() == 4, "{pods:?}");
    let on = |node: &str| pods.values().filter(|pod| pod.node == node).count();
    ensure!(
        on("node-1") == 2 && on("node-2") == 2,
        "not spread evenly: {pods:?}"
    );
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    // 40 fair picks miss one of four with a chance of 4 x (3/4)^40, 1 in 25,000.
    for _ in 0..40 {
        *seen.entry(request(cluster)?).or_default() += 1;
    }
    let expected: Vec<String> = pods
        .iter()
        .map(|(name, pod)| format!("pod {name}, node {}, address {}", pod.node, pod.address))
        .collect();
    for answer in seen.keys() {
        ensure!(
            expected.contains(answer),
            "{answer:?} is none of {expected:#?}"
        );
    }
    ensure!(seen.len() == 4, "40 requests reached only {seen:#?}");
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
struct Pod {
    node: String,
    address: String,
}

/// Ready pods of the deployment that are not being deleted, by name.
fn hello_pods(cluster: &Cluster) -> Result<BTreeMap<String, Pod>> {
    let get = ["get", "pods", "-l", "app=hello", "-o", "json"];
    let list: Value = serde_json::from_str(&cluster.kubectl(&get)?.success()?.stdout)?;
    let items = list["items"].as_array().context("a list of pods")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let is_ready = |pod: &&Value| {
        let conditions = pod["status"]["conditions"].as_array();
        let ready = conditions.is_some_and(|all| {
            all.iter()
                .any(|c| c["type"] == "Ready" && c["status"] == "True")
        });
        ready && pod["metadata"]["deletionTimestamp"].is_null()
    };
    Ok(items
        .iter()
        .filter(is_ready)
        .map(|pod| {
            let (node, address) = (
                text(&pod["spec"]["nodeName"]),
                text(&pod["status"]["podIP"]),
            );
            (text(&pod["metadata"]["name"]), Pod { node, address })
        })
        .collect())
}

fn logs_are_shown(cluster: &Cluster) -> Result<()> {
    let logs = cluster.kubectl(&["logs", "deploy/hello"])?.success()?;
    ensure!(
        logs.stdout.contains("hello: listening on"),
        "{}",
        logs.stdout
    );
    Ok(())
}

fn deleted_pods_are_replaced(cluster: &Cluster) -> Result<()> {
    let before = hello_pods(cluster)?;
    let delete = ["delete", "pod", "-l", "app=hello", "--wait=false"];
    cluster.kubectl(&delete)?.success()?.without_warning()?;
    let after = until(SOON, "four new pods are ready", || {
        let pods = hello_pods(cluster)?;
        let new = pods
            .keys()
            .filter(|name| !before.contains_key(*name))
            .count();
        ensure!(new == 4 && pods.len() == 4, "{pods:?}");
        Ok(pods)
    })?;
    let answer = request(cluster)?;
    ensure!(
        after.keys().any(|name| answer.contains(name.as_str())),
        "{answer:?}"
    );
    Ok(())
}

/// `skep lb list` shows the service's address with four backends on both nodes.
fn the_kernels_view_is_shown(cluster: &Cluster) -> Result<()> {
    let jsonpath = "-o=jsonpath={.spec.clusterIP}";
    let address = cluster
        .kubectl(&["get", "service", "hello", jsonpath])?
        .success()?;
    let pods = hello_pods(cluster)?;
    until(SOON, "skep lb list shows the service on every node", || {
        let shown = cluster.skep(&["lb", "list"])?.success()?.stdout;
        for node in ["node-1", "node-2"] {
            ensure!(shown.contains(node), "no {node} in:\n{shown}");
        }
        ensure!(
            shown.contains(address.text()),
            "no {} in:\n{shown}",
            address.text()
        );
        for pod in pods.values() {
            ensure!(
                shown.contains(&pod.address),
                "no {} in:\n{shown}",
                pod.address
            );
        }
        Ok(())
    })
}
