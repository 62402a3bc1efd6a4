//! `skep drops`: what was dropped or refused, and why.

use node_agent_datapath::inspect::{CounterView, Counters, Query};
use serde::Serialize;

use super::Context;
use crate::args::{DropsArguments, Format};
use crate::failure::{Failure, Outcome};
use crate::output::{self, Table};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Kind {
    Drop,
    Verdict,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct CounterItem {
    node: String,
    kind: Kind,
    #[serde(flatten)]
    view: CounterView,
}

fn items(node: &str, counters: Counters, all: bool) -> Vec<CounterItem> {
    let item = |kind: Kind| {
        move |view: CounterView| CounterItem {
            node: node.to_owned(),
            kind,
            view,
        }
    };
    let drops = counters.drops.into_iter().map(item(Kind::Drop));
    let drops = drops.filter(|counter| all || counter.view.packets > 0);
    let verdicts = counters
        .verdicts
        .into_iter()
        .filter(|_| all)
        .map(item(Kind::Verdict));
    drops.chain(verdicts).collect()
}

/// `skep drops`.
pub(super) async fn run(context: &Context, arguments: &DropsArguments) -> Result<Outcome, Failure> {
    let mut sources = context.sources().await?;
    let mut counters = Vec::new();
    for source in &mut sources.open {
        let read: Counters = source.read(&Query::Counters).await?;
        counters.extend(items(&source.name, read, arguments.all));
    }
    match context.format {
        Format::Json => output::list("CounterList", &counters),
        Format::Table => {
            let mut table = Table::new(&["NODE", "KIND", "REASON", "COUNT", "BYTES"]);
            for counter in &counters {
                let kind = match counter.kind {
                    Kind::Drop => "drop",
                    Kind::Verdict => "verdict",
                };
                table.row([
                    counter.node.clone(),
                    kind.to_owned(),
                    counter.view.name.clone(),
                    counter.view.packets.to_string(),
                    counter.view.bytes.to_string(),
                ]);
            }
            output::table(&table, context.no_headers);
        }
    }
    Ok(sources.outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_happened_is_shown_unless_all_is_asked_for() {
        let counter = |name: &str, packets| CounterView {
            name: name.into(),
            packets,
            bytes: 0,
        };
        let counters = || Counters {
            drops: vec![counter("malformed", 0), counter("no_backend", 3)],
            verdicts: vec![counter("to_pod", 5)],
        };
        let shown = |all| {
            let items = items("node-1", counters(), all);
            items
                .into_iter()
                .map(|item| item.view.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(shown(false), ["no_backend"]);
        assert_eq!(shown(true), ["malformed", "no_backend", "to_pod"]);
    }
}
