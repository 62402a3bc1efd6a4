//! `skep nodes`: which nodes there are and how they can be read.

use serde::Serialize;

use super::Context;
use crate::args::Format;
use crate::cluster::Node;
use crate::failure::{DENIED, Failure, Outcome};
use crate::output::{self, Table};
use crate::source::{NodeSource, Via};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeItem {
    #[serde(flatten)]
    node: Node,
    /// `agent`, `pins`, or why it cannot be read.
    read_from: String,
}

/// `skep nodes`.
pub(super) async fn run(context: &Context) -> Result<Outcome, Failure> {
    let mut items = Vec::new();
    let mut outcome = Outcome::Done;
    for node in &context.nodes {
        let read_from = match NodeSource::open(node).await {
            Ok(source) => match source.via() {
                Via::Agent => "agent".to_owned(),
                Via::Pins => "pins".to_owned(),
            },
            // One machine, one user: the others would say the same.
            Err(failure) if failure.code == DENIED => return Err(failure),
            Err(failure) => {
                outcome = Outcome::Partial;
                failure.message
            }
        };
        items.push(NodeItem {
            node: node.clone(),
            read_from,
        });
    }
    match context.format {
        Format::Json => output::list("NodeList", &items),
        Format::Table => {
            let mut table = Table::new(&["NODE", "ADDRESS", "PID", "READ FROM"]);
            for NodeItem { node, read_from } in items {
                table.row([
                    node.name,
                    node.ip.unwrap_or_default(),
                    node.pid.map(|pid| pid.to_string()).unwrap_or_default(),
                    read_from,
                ]);
            }
            output::table(&table, context.no_headers);
        }
    }
    Ok(outcome)
}
