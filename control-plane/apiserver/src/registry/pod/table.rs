//! Printer columns of pods: one word that says how a pod is.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::tables::{AGE, Column, NAME, Table, age, column, human_duration, seconds_since, wide};
use crate::tree;

const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Ready",
        "string",
        "The aggregate readiness state of this pod for accepting traffic.",
    ),
    column(
        "Status",
        "string",
        "The aggregate status of the containers in this pod.",
    ),
    column(
        "Restarts",
        "string",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
    ),
    AGE,
    wide(
        "IP",
        "string",
        "podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated.",
    ),
    wide(
        "Node",
        "string",
        "NodeName indicates in which node this pod is scheduled.",
    ),
    wide(
        "Nominated Node",
        "string",
        "nominatedNodeName is set only when this pod preempts other pods on the node.",
    ),
    wide(
        "Readiness Gates",
        "string",
        "If specified, all readiness gates will be evaluated for pod readiness.",
    ),
];

pub(in crate::registry) static TABLE: Table = Table {
    columns: COLUMNS,
    row,
};

fn row(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = Summary::of(pod);
    let or_none = |path: &[&str]| {
        let text = tree::text(pod, path);
        json!(if text.is_empty() { "<none>" } else { text })
    };
    vec![
        json!(tree::text(pod, &["metadata", "name"])),
        json!(format!("{}/{}", summary.ready, summary.total)),
        json!(summary.reason),
        json!(restarts(&summary, now)),
        age(pod, now),
        or_none(&["status", "podIP"]),
        or_none(&["spec", "nodeName"]),
        or_none(&["status", "nominatedNodeName"]),
        json!(gates(pod)),
    ]
}

/// What the columns say of one pod.
struct Summary<'a> {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: &'a str,
}

fn restarts(summary: &Summary<'_>, now: Timestamp) -> String {
    match seconds_since(summary.last_restart, now) {
        Some(seconds) if summary.restarts > 0 => {
            format!("{} ({} ago)", summary.restarts, human_duration(seconds))
        }
        _ => summary.restarts.to_string(),
    }
}

fn condition(pod: &Value, kind: &str) -> bool {
    tree::list(pod, &["status", "conditions"])
        .iter()
        .any(|c| tree::text(c, &["type"]) == kind && tree::text(c, &["status"]) == "True")
}

fn gates(pod: &Value) -> String {
    let gates = tree::list(pod, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates
        .iter()
        .filter(|gate| condition(pod, tree::text(gate, &["conditionType"])))
        .count();
    format!("{open}/{}", gates.len())
}

/// `ExitCode:1` or `Signal:9` of a container that gave no reason.
fn exit(terminated: &Value) -> String {
    match tree::int(terminated, &["signal"]).filter(|signal| *signal != 0) {
        Some(signal) => format!("Signal:{signal}"),
        None => format!(
            "ExitCode:{}",
            tree::int(terminated, &["exitCode"]).unwrap_or_default()
        ),
    }
}

impl<'a> Summary<'a> {
    fn of(pod: &'a Value) -> Self {
        let phase = tree::text(pod, &["status", "phase"]);
        let own_reason = tree::text(pod, &["status", "reason"]);
        let gated = tree::list(pod, &["status", "conditions"])
            .iter()
            .any(|c| tree::text(c, &["reason"]) == "SchedulingGated");
        let reason = match (gated, own_reason) {
            (true, _) => "SchedulingGated",
            (false, "") => phase,
            (false, reason) => reason,
        };
        let mut summary = Self {
            reason: reason.to_owned(),
            ready: 0,
            total: tree::list(pod, &["spec", "containers"]).len(),
            restarts: 0,
            last_restart: "",
        };
        summary.total += tree::list(pod, &["spec", "initContainers"])
            .iter()
            .filter(|c| restartable(c))
            .count();
        let initializing = summary.init_containers(pod);
        if !initializing || condition(pod, "Initialized") {
            summary.containers(pod);
        }
        if tree::at(pod, &["metadata", "deletionTimestamp"]).is_string() {
            if own_reason == "NodeLost" {
                "Unknown".clone_into(&mut summary.reason);
            } else if !matches!(phase, "Failed" | "Succeeded") {
                "Terminating".clone_into(&mut summary.reason);
            }
        }
        summary
    }

    fn count_restarts(&mut self, status: &'a Value) {
        self.restarts += tree::int(status, &["restartCount"]).unwrap_or_default();
        let ended = tree::text(status, &["lastState", "terminated", "finishedAt"]);
        // RFC 3339 in UTC with seconds sorts as text.
        if ended > self.last_restart {
            self.last_restart = ended;
        }
    }

    /// Reads the init containers; true while one of them is not done.
    fn init_containers(&mut self, pod: &'a Value) -> bool {
        let specs = tree::list(pod, &["spec", "initContainers"]);
        for (i, status) in tree::list(pod, &["status", "initContainerStatuses"])
            .iter()
            .enumerate()
        {
            self.count_restarts(status);
            let name = tree::text(status, &["name"]);
            let sidecar = specs
                .iter()
                .any(|spec| tree::text(spec, &["name"]) == name && restartable(spec));
            let terminated = tree::at(status, &["state", "terminated"]);
            let waiting = tree::text(status, &["state", "waiting", "reason"]);
            if terminated.is_object() && tree::int(terminated, &["exitCode"]) == Some(0) {
                continue;
            }
            if sidecar && tree::flag(status, &["started"]) {
                self.ready += usize::from(tree::flag(status, &["ready"]));
                continue;
            }
            self.reason = if terminated.is_object() {
                match tree::text(terminated, &["reason"]) {
                    "" => format!("Init:{}", exit(terminated)),
                    reason => format!("Init:{reason}"),
                }
            } else if !waiting.is_empty() && waiting != "PodInitializing" {
                format!("Init:{waiting}")
            } else {
                format!("Init:{i}/{}", specs.len())
            };
            return true;
        }
        false
    }

    fn containers(&mut self, pod: &'a Value) {
        self.restarts = 0;
        self.last_restart = "";
        let mut running = false;
        for status in tree::list(pod, &["status", "containerStatuses"])
            .iter()
            .rev()
        {
            self.count_restarts(status);
            let waiting = tree::text(status, &["state", "waiting", "reason"]);
            let terminated = tree::at(status, &["state", "terminated"]);
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.reason);
            } else if terminated.is_object() {
                self.reason = match tree::text(terminated, &["reason"]) {
                    "" => exit(terminated),
                    reason => reason.to_owned(),
                };
            } else if tree::flag(status, &["ready"])
                && tree::at(status, &["state", "running"]).is_object()
            {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            let word = if condition(pod, "Ready") {
                "Running"
            } else {
                "NotReady"
            };
            word.clone_into(&mut self.reason);
        }
    }
}

fn restartable(container: &Value) -> bool {
    tree::text(container, &["restartPolicy"]) == "Always"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(pod: &Value) -> Vec<String> {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        row(pod, now)[..4]
            .iter()
            .map(|v| v.as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn a_crash_loop_shows_its_reason_and_when_it_last_ended() {
        let pod = json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c"}]},
            "status": {"phase": "Running", "containerStatuses": [{
                "name": "c", "restartCount": 3, "ready": false,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"finishedAt": "2026-01-01T00:09:00Z"}}}]}});
        assert_eq!(cells(&pod), ["p", "0/1", "CrashLoopBackOff", "3 (60s ago)"]);
    }

    #[test]
    fn a_pod_that_waits_for_an_init_container_says_which() {
        let pod = json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "a"}, {"name": "b"}]},
            "status": {"phase": "Pending", "initContainerStatuses": [
                {"name": "a", "state": {"terminated": {"exitCode": 0}}},
                {"name": "b", "state": {"running": {}}}]}});
        assert_eq!(cells(&pod), ["p", "0/1", "Init:1/2", "0"]);
    }

    #[test]
    fn a_deleted_pod_is_terminating_until_it_has_ended() {
        let mut pod = json!({
            "metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": "c"}]}, "status": {"phase": "Running"}});
        assert_eq!(cells(&pod)[2], "Terminating");
        pod["status"]["phase"] = json!("Succeeded");
        assert_eq!(cells(&pod)[2], "Succeeded");
    }
}
