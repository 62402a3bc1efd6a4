//! Disruption budgets: what they count, what eviction makes of it, and `kubectl drain`.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::{Cluster, Options, Output, shared, until};

const SOON: Duration = Duration::from_secs(60);

fn deployment(namespace: &str, replicas: u8) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: kept, namespace: {namespace}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: kept}}}}
  template:
    metadata: {{labels: {{app: kept}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {{name: main, image: skep.local/busybox, imagePullPolicy: IfNotPresent, command: [sleep, '3600']}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{name: kept, namespace: {namespace}}}
spec:
  maxUnavailable: 1
  selector: {{matchLabels: {{app: kept}}}}
"
    )
}

fn json(cluster: &Cluster, words: &[&str]) -> Result<Value> {
    let output = cluster
        .kubectl(&[words, &["--output=json"]].concat())?
        .success()?;
    Ok(serde_json::from_str(&output.stdout)?)
}

/// Waits until the budget allows `allowed` disruptions of `expected` pods.
fn counted(cluster: &Cluster, namespace: &str, expected: u8, allowed: u8) -> Result<()> {
    until(SOON, "the budget is counted", || {
        let budget = json(cluster, &["get", "pdb", "kept", "-n", namespace])?;
        let status = &budget["status"];
        ensure!(status["expectedPods"] == expected, "{status}");
        ensure!(status["currentHealthy"] == expected, "{status}");
        ensure!(status["disruptionsAllowed"] == allowed, "{status}");
        let condition = &status["conditions"][0];
        ensure!(condition["type"] == "DisruptionAllowed", "{status}");
        Ok(())
    })
}

fn evict(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    version: &str,
    more: &str,
) -> Result<Output> {
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/eviction");
    let body = format!(
        r#"{{"apiVersion":"policy/{version}","kind":"Eviction","metadata":{{"name":"{pod}","namespace":"{namespace}"}}{more}}}"#
    );
    cluster.kubectl_with_input(&["create", "--raw", &path, "--filename=-"], &body)
}

fn pods(cluster: &Cluster, namespace: &str) -> Result<Vec<String>> {
    let list = json(cluster, &["get", "pods", "-n", namespace, "-l", "app=kept"])?;
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let name = |pod: &Value| {
        pod["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    Ok(items
        .iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .map(name)
        .collect())
}

#[test]
fn a_budget_holds_back_the_second_eviction() -> Result<()> {
    let cluster = shared()?;
    let namespace = "disruption-evict";
    cluster.namespace(namespace)?;
    cluster.apply(&deployment(namespace, 3))?.success()?;
    counted(&cluster, namespace, 3, 1)?;
    let names = pods(&cluster, namespace)?;
    let dry = r#","deleteOptions":{"dryRun":["All"]}"#;
    evict(&cluster, namespace, &names[0], "v1", dry)?.success()?;
    let wrong = r#","deleteOptions":{"preconditions":{"uid":"another"}}"#;
    let conflict = evict(&cluster, namespace, &names[0], "v1", wrong)?;
    conflict.failure_saying("the UID in the precondition (another)")?;
    counted(&cluster, namespace, 3, 1)?;
    // The deployment shall not replace pods while the budget is looked at.
    let pause = ["scale", "deploy/kept", "-n", namespace, "--replicas=3"];
    cluster.kubectl(&pause)?.success()?;
    evict(&cluster, namespace, &names[0], "v1beta1", "")?.success()?;
    let second = evict(&cluster, namespace, &names[1], "v1", "")?;
    let refusal = "Cannot evict pod as it would violate the pod's disruption budget.";
    second.failure_saying(refusal)?;
    counted(&cluster, namespace, 3, 1)?;
    let table = cluster
        .kubectl(&["get", "pdb", "-n", namespace])?
        .success()?;
    ensure!(
        table.stdout.contains("ALLOWED DISRUPTIONS"),
        "{}",
        table.stdout
    );
    Ok(())
}

#[test]
fn drain_moves_pods_one_at_a_time() -> Result<()> {
    let cluster = Cluster::up("drain", Options::default())?;
    cluster.apply(&deployment("default", 4))?.success()?;
    counted(&cluster, "default", 4, 1)?;
    let drain = [
        "drain",
        "node-1",
        "--ignore-daemonsets",
        "--force",
        "--timeout=120s",
    ];
    let output = cluster.kubectl(&drain)?.success()?;
    ensure!(
        output.stdout.contains("node/node-1 drained"),
        "{}",
        output.stdout
    );
    let moved = json(&cluster, &["get", "pods", "-l", "app=kept"])?;
    let items = moved["items"].as_array().cloned().unwrap_or_default();
    for pod in items
        .iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
    {
        ensure!(
            pod["spec"]["nodeName"] == "node-2",
            "{}",
            pod["metadata"]["name"]
        );
    }
    cluster.kubectl(&["uncordon", "node-1"])?.success()?;
    cluster.down()
}
