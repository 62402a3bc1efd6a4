//! `skep ct`: flows of the packet path.

use node_agent_datapath::inspect::names::NameTable;
use node_agent_datapath::inspect::{FlowView, Query};
use serde::Serialize;

use super::Context;
use crate::args::Format;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Table};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FlowItem {
    node: String,
    service_name: String,
    #[serde(flatten)]
    view: FlowView,
}

fn service(view: &FlowView, names: &NameTable) -> String {
    match names.services.get(&view.service) {
        Some(name) => format!("{}/{}", name.namespace, name.name),
        None => format!("#{}", view.service),
    }
}

/// `skep ct list`.
pub(super) async fn list(context: &Context) -> Result<Outcome, Failure> {
    let mut sources = context.sources().await?;
    let mut flows = Vec::new();
    for source in &mut sources.open {
        let views: Vec<FlowView> = source.read(&Query::Flows).await?;
        let names = source.names().await?;
        flows.extend(views.into_iter().map(|view| FlowItem {
            node: source.name.clone(),
            service_name: service(&view, &names),
            view,
        }));
    }
    match context.format {
        Format::Json => output::list("FlowList", &flows),
        Format::Table => {
            let mut table = Table::new(&[
                "NODE",
                "PROTO",
                "SOURCE",
                "DESTINATION",
                "DIRECTION",
                "TRANSLATED",
                "SERVICE",
                "STATE",
                "PACKETS",
                "BYTES",
                "IDLE",
            ]);
            for FlowItem {
                node,
                service_name,
                view,
            } in &flows
            {
                table.row([
                    node.clone(),
                    view.protocol.to_string(),
                    view.source.to_string(),
                    view.destination.to_string(),
                    if view.forward {
                        "to service"
                    } else {
                        "from backend"
                    }
                    .to_owned(),
                    view.translated.to_string(),
                    service_name.clone(),
                    view.state.clone(),
                    view.packets.to_string(),
                    view.bytes.to_string(),
                    format!("{}s", view.idle_seconds),
                ]);
            }
            output::table(&table, context.no_headers);
        }
    }
    Ok(sources.outcome)
}
