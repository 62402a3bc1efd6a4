//! `skep programs`: what is loaded and where it is called.

use node_agent_datapath::inspect::{AttachmentView, ProgramView, Programs, Query};
use serde::Serialize;

use super::Context;
use crate::args::Format;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Table};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProgramItem {
    node: String,
    #[serde(flatten)]
    view: ProgramView,
    attached_to: Vec<AttachmentView>,
}

/// The hooks of one program, shortened when there are many.
fn hooks(item: &ProgramItem) -> String {
    const SHOWN: usize = 3;
    let targets: Vec<&str> = item
        .attached_to
        .iter()
        .map(|attachment| attachment.target.as_str())
        .collect();
    match targets.len() {
        0..=SHOWN => targets.join(", "),
        more => format!("{}, and {} more", targets[..SHOWN].join(", "), more - SHOWN),
    }
}

/// `skep programs`.
pub(super) async fn run(context: &Context) -> Result<Outcome, Failure> {
    let mut sources = context.sources().await?;
    let mut items = Vec::new();
    for source in &mut sources.open {
        let read: Programs = source.read(&Query::Programs).await?;
        for view in read.programs {
            let of_it = |attachment: &&AttachmentView| attachment.program_id == view.id;
            items.push(ProgramItem {
                node: source.name.clone(),
                attached_to: read.attachments.iter().filter(of_it).cloned().collect(),
                view,
            });
        }
    }
    match context.format {
        Format::Json => output::list("ProgramList", &items),
        Format::Table => {
            let mut table = Table::new(&[
                "NODE",
                "OBJECT",
                "PROGRAM",
                "ID",
                "VERIFIED",
                "BYTES",
                "ATTACHED TO",
            ]);
            for item in &items {
                table.row([
                    item.node.clone(),
                    item.view.object.clone(),
                    item.view.name.clone(),
                    item.view.id.to_string(),
                    item.view.verified_instructions.to_string(),
                    item.view.machine_bytes.to_string(),
                    hooks(item),
                ]);
            }
            output::table(&table, context.no_headers);
        }
    }
    Ok(sources.outcome)
}
