//! `skep status`: are the agents well, and are their maps up to date.

use std::time::{SystemTime, UNIX_EPOCH};

use node_agent_datapath::inspect::{Query, WriterView};
use proto::inspect::v1::StatusResponse;
use serde::Serialize;

use super::Context;
use crate::args::Format;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Table};
use crate::source::NodeSource;

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ComponentItem {
    name: String,
    healthy: bool,
    message: String,
    revision_applied: u64,
}

/// Status of one node.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeStatus {
    node: String,
    /// An agent answers.
    running: bool,
    version: String,
    pid: Option<u32>,
    up_seconds: Option<u64>,
    connected: bool,
    control_plane: String,
    revision_seen: Option<u64>,
    revision_applied: Option<u64>,
    pods: Option<u32>,
    services: Option<u32>,
    lag_p50_us: Option<u64>,
    lag_p99_us: Option<u64>,
    components: Vec<ComponentItem>,
    /// From the maps themselves.
    writer_generation: u64,
    writer_silent_ms: Option<u64>,
    /// Why the node counts as degraded, if it does.
    trouble: Vec<String>,
}

fn trouble(status: Option<&StatusResponse>, writer: &WriterView) -> Vec<String> {
    let Some(status) = status else {
        let silent = writer.silent_ms.map_or_else(
            || "never heard of".to_owned(),
            |ms| format!("last alive {} s ago", ms / 1000),
        );
        return vec![format!(
            "no agent runs ({silent}); services answer as they were then"
        )];
    };
    let mut all = Vec::new();
    if !status.connected {
        all.push("not connected to the control plane".to_owned());
    }
    let ill = status
        .components
        .iter()
        .filter(|component| !component.healthy);
    all.extend(
        ill.filter(|component| !component.message.is_empty())
            .map(|component| format!("{}: {}", component.name, component.message)),
    );
    all
}

fn node_status(
    node: &str,
    status: Option<StatusResponse>,
    writer: &WriterView,
    now: u64,
) -> NodeStatus {
    let trouble = trouble(status.as_ref(), writer);
    let from_maps = NodeStatus {
        node: node.to_owned(),
        revision_applied: Some(writer.applied_revision),
        writer_generation: writer.generation,
        writer_silent_ms: writer.silent_ms,
        trouble,
        ..NodeStatus::default()
    };
    let Some(status) = status else {
        return from_maps;
    };
    let components = status
        .components
        .into_iter()
        .map(|component| ComponentItem {
            name: component.name,
            healthy: component.healthy,
            message: component.message,
            revision_applied: component.revision_applied,
        });
    let lag = status.lag.filter(|lag| lag.changes > 0);
    NodeStatus {
        running: true,
        version: status.version,
        pid: Some(status.pid),
        up_seconds: Some(now.saturating_sub(status.started_unix_seconds)),
        connected: status.connected,
        control_plane: status.control_plane,
        revision_seen: Some(status.revision_seen),
        revision_applied: Some(status.revision_applied),
        pods: Some(status.pods),
        services: Some(status.services),
        lag_p50_us: lag.map(|lag| lag.p50_us),
        lag_p99_us: lag.map(|lag| lag.p99_us),
        components: components.collect(),
        ..from_maps
    }
}

async fn read(source: &mut NodeSource, now: u64) -> Result<NodeStatus, Failure> {
    let status = source.status().await?;
    let writer: WriterView = source.read(&Query::Writer).await?;
    Ok(node_status(&source.name, status, &writer, now))
}

fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn milliseconds(us: Option<u64>) -> String {
    us.map(|us| format!("{}.{:02}ms", us / 1000, us % 1000 / 10))
        .unwrap_or_default()
}

fn table(nodes: &[NodeStatus]) -> Table {
    let mut table = Table::new(&[
        "NODE",
        "AGENT",
        "UP",
        "CONTROL PLANE",
        "REVISION",
        "PODS",
        "SERVICES",
        "LAG P50",
        "LAG P99",
        "TROUBLE",
    ]);
    for node in nodes {
        let number = |value: Option<u32>| value.map(|value| value.to_string()).unwrap_or_default();
        let revision = match (node.revision_applied, node.revision_seen) {
            (Some(applied), Some(seen)) if applied != seen => format!("{applied} of {seen}"),
            (Some(applied), _) => applied.to_string(),
            (None, _) => String::new(),
        };
        let agent = if node.running { "running" } else { "down" };
        let link = match (node.running, node.connected) {
            (false, _) => "",
            (true, true) => "connected",
            (true, false) => "disconnected",
        };
        table.row([
            node.node.clone(),
            agent.to_owned(),
            node.up_seconds.map(age).unwrap_or_default(),
            link.to_owned(),
            revision,
            number(node.pods),
            number(node.services),
            milliseconds(node.lag_p50_us),
            milliseconds(node.lag_p99_us),
            node.trouble.join("; "),
        ]);
    }
    table
}

/// `skep status`.
pub(super) async fn run(context: &Context) -> Result<Outcome, Failure> {
    let mut sources = context.sources().await?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs());
    let mut nodes = Vec::new();
    for source in &mut sources.open {
        nodes.push(read(source, now).await?);
    }
    match context.format {
        Format::Json => output::list("NodeStatusList", &nodes),
        Format::Table => output::table(&table(&nodes), context.no_headers),
    }
    let degraded = nodes.iter().any(|node| !node.trouble.is_empty());
    Ok(match (sources.outcome, degraded) {
        (Outcome::Done, true) => Outcome::Degraded,
        (outcome, _) => outcome,
    })
}

#[cfg(test)]
mod tests {
    use proto::inspect::v1::{Component, Lag};

    use super::*;

    const WRITER: WriterView = WriterView {
        abi_version: 1,
        generation: 2,
        applied_revision: 40,
        silent_ms: Some(65_000),
    };

    fn agent() -> StatusResponse {
        StatusResponse {
            node: "node-1".into(),
            version: "0.1.0".into(),
            pid: 7,
            started_unix_seconds: 1000,
            connected: true,
            control_plane: "10.88.0.1:6444".into(),
            revision_seen: 42,
            revision_applied: 41,
            pods: 3,
            services: 2,
            components: vec![],
            lag: Some(Lag {
                changes: 5,
                p50_us: 1_500,
                p99_us: 7_340,
                max_us: 9_000,
            }),
        }
    }

    #[test]
    fn a_running_agent_shows_how_far_it_is_and_a_dead_one_what_is_in_force() {
        let nodes = [
            node_status("node-1", Some(agent()), &WRITER, 1061),
            node_status("node-2", None, &WRITER, 1061),
        ];
        let expected = "\
NODE     AGENT     UP       CONTROL PLANE   REVISION   PODS     SERVICES   LAG P50   LAG P99   TROUBLE
node-1   running   61s      connected       41 of 42   3        2          1.50ms    7.34ms    <none>
node-2   down      <none>   <none>          40         <none>   <none>     <none>    <none>    no agent runs (last alive 65 s ago); services answer as they were then
";
        assert_eq!(table(&nodes).text(false), expected);
        assert!(nodes[0].trouble.is_empty());
    }

    #[test]
    fn trouble_is_what_is_not_as_it_should_be() {
        let mut status = agent();
        status.connected = false;
        status.components.push(Component {
            name: "proxy".into(),
            healthy: false,
            message: "no room".into(),
            revision_applied: 1,
        });
        assert_eq!(
            trouble(Some(&status), &WRITER),
            ["not connected to the control plane", "proxy: no room"]
        );
    }
}
