//! What `up` asks of the running cluster: changes when the meaning of "ready" changes.
//!
//! Asked with the same kubectl that a user has, and with dig inside a node.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::addresses::ClusterIndex;
use super::files::{Cluster, Node};
use super::{privileged, wait};
use crate::{process, setup};

/// A machine under load is slow; a cluster that is not ready by then has a fault.
const LIMIT: Duration = Duration::from_secs(90);

/// Waits until the API server answers.
pub(crate) fn wait_for_api(cluster: &Cluster) -> Result<()> {
    let ready = || {
        let request = ["get", "--raw", "/readyz", "--request-timeout=2s"];
        cluster.kubeconfig().exists() && process::succeeds(kubectl(cluster).args(request))
    };
    wait::until(LIMIT, || ready().then_some(()))
        .with_context(|| unanswered(cluster, "the API server is not ready", "control-plane"))
}

/// Waits until `count` nodes are ready; returns each one's name and pod range.
pub(crate) fn wait_for_nodes(cluster: &Cluster, nodes: &[Node]) -> Result<Vec<String>> {
    let mut missing = String::new();
    let routes = wait::until(LIMIT, || {
        let request = ["get", "nodes", "--output=json", "--request-timeout=5s"];
        let text = process::capture(kubectl(cluster).args(request)).ok()?;
        let list: Value = serde_json::from_str(&text).ok()?;
        match pod_routes(&list, nodes) {
            Ok(routes) => Some(routes),
            Err(error) => {
                missing = format!("{error:#}");
                None
            }
        }
    });
    let first = nodes.first().map_or("node-1", |node| node.name.as_str());
    routes.with_context(|| unanswered(cluster, &missing, &format!("{first}-agent")))
}

/// `NODE=CIDR` of every node, or which node is not ready and why.
fn pod_routes(list: &Value, nodes: &[Node]) -> Result<Vec<String>> {
    let items = list["items"].as_array().context("a list of nodes")?;
    nodes
        .iter()
        .map(|node| {
            let name = node.name.as_str();
            let item = items
                .iter()
                .find(|item| item["metadata"]["name"] == name)
                .with_context(|| format!("{name} has not registered"))?;
            let conditions = item["status"]["conditions"].as_array();
            let ready = conditions
                .and_then(|all| all.iter().find(|one| one["type"] == "Ready"))
                .with_context(|| format!("{name} has no Ready condition"))?;
            if ready["status"] != "True" {
                bail!(
                    "{name} is not ready: {}",
                    ready["message"].as_str().unwrap_or_default()
                );
            }
            let cidr = item["spec"]["podCIDR"].as_str();
            Ok(format!(
                "{name}={}",
                cidr.with_context(|| format!("{name} has no pod range"))?
            ))
        })
        .collect()
}

/// Waits until the cluster's name server answers on every node.
pub(crate) fn wait_for_dns(cluster: &Cluster, index: ClusterIndex, nodes: &[Node]) -> Result<()> {
    let server = format!("@{}", index.cluster_dns());
    let question = "kubernetes.default.svc.cluster.local";
    for node in nodes {
        let mut words = vec!["exec", cluster.name.as_str(), node.name.as_str(), "--"];
        words.extend(["dig", "+short", "+time=1", "+tries=1", &server, question]);
        wait::until(LIMIT, || {
            let answer = process::capture(&mut privileged::command(&words).ok()?).ok()?;
            answer.trim().parse::<std::net::IpAddr>().ok().map(drop)
        })
        .with_context(|| {
            let what = format!("{} has no answer for {question} from {server}", node.name);
            unanswered(cluster, &what, &format!("{}-agent", node.name))
        })?;
    }
    Ok(())
}

fn kubectl(cluster: &Cluster) -> Command {
    let mut command = Command::new(setup::kubectl::program());
    command.env("KUBECONFIG", cluster.kubeconfig());
    command
}

fn unanswered(cluster: &Cluster, what: &str, log: &str) -> String {
    let log = cluster.log(log);
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    format!(
        "{what} after {} s; log {}:\n{}",
        LIMIT.as_secs(),
        log.display(),
        process::tail(&said)
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::pod_routes;
    use crate::cluster::files::Node;

    fn node(name: &str) -> Node {
        Node {
            name: name.to_owned(),
            index: 1,
            ip: "10.88.0.11".to_owned(),
            pid: 1,
            started: 0,
            agent_socket: String::new(),
            containerd_socket: String::new(),
            bpffs: String::new(),
        }
    }

    fn item(name: &str, ready: &str) -> Value {
        json!({
            "metadata": {"name": name},
            "spec": {"podCIDR": "10.244.0.0/24"},
            "status": {"conditions": [{"type": "Ready", "status": ready, "message": "no CNI"}]},
        })
    }

    #[test]
    fn a_ready_node_gives_a_route() {
        let list = json!({"items": [item("node-1", "True")]});
        assert_eq!(
            pod_routes(&list, &[node("node-1")]).unwrap(),
            ["node-1=10.244.0.0/24"]
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let cases = [
            (json!({"items": []}), "node-1 has not registered"),
            (
                json!({"items": [item("node-1", "False")]}),
                "node-1 is not ready: no CNI",
            ),
        ];
        for (list, expected) in cases {
            let error = pod_routes(&list, &[node("node-1")]).unwrap_err();
            assert_eq!(format!("{error:#}"), expected);
        }
    }
}
