//! `skep maps`: the maps themselves.

use node_agent_datapath::inspect::{Fields, MapDump, MapView, Query};
use serde::Serialize;
use serde_json::Value;

use super::Context;
use crate::args::Format;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Table};

#[derive(Debug, Serialize)]
struct OnNode<T> {
    node: String,
    #[serde(flatten)]
    view: T,
}

async fn read_all<T: serde::de::DeserializeOwned>(
    context: &Context,
    query: &Query,
) -> Result<(Vec<OnNode<T>>, Outcome), Failure> {
    let mut sources = context.sources().await?;
    let mut all = Vec::new();
    for source in &mut sources.open {
        let view: T = source.read(query).await?;
        all.push(OnNode {
            node: source.name.clone(),
            view,
        });
    }
    Ok((all, sources.outcome))
}

fn bytes(count: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    match count {
        0..KIB => format!("{count} B"),
        KIB..MIB => format!("{} KiB", count.div_ceil(KIB)),
        _ => format!("{}.{} MiB", count / MIB, count % MIB * 10 / MIB),
    }
}

/// Share of the capacity in use.
fn share(view: &MapView) -> String {
    let Some(used) = view.used else {
        return String::new();
    };
    if view.capacity == 0 {
        return String::new();
    }
    format!("{}%", u64::from(used) * 100 / u64::from(view.capacity))
}

/// `skep maps list`.
pub(super) async fn list(context: &Context) -> Result<Outcome, Failure> {
    let (nodes, outcome) = read_all::<Vec<MapView>>(context, &Query::Maps).await?;
    let maps: Vec<OnNode<MapView>> = nodes
        .into_iter()
        .flat_map(|answer| {
            let node = answer.node;
            answer.view.into_iter().map(move |view| OnNode {
                node: node.clone(),
                view,
            })
        })
        .collect();
    match context.format {
        Format::Json => output::list("MapList", &maps),
        Format::Table => {
            let mut table = Table::new(&[
                "NODE", "MAP", "ID", "KIND", "KEY", "VALUE", "USED", "CAPACITY", "FULL", "MEMORY",
            ]);
            for OnNode { node, view } in &maps {
                table.row([
                    node.clone(),
                    view.name.clone(),
                    view.id.to_string(),
                    view.kind.clone(),
                    view.key_bytes.to_string(),
                    view.value_bytes.to_string(),
                    view.used.map(|used| used.to_string()).unwrap_or_default(),
                    view.capacity.to_string(),
                    share(view),
                    bytes(view.memory_bytes),
                ]);
            }
            output::table(&table, context.no_headers);
        }
    }
    Ok(outcome)
}

fn value(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(fields) => format!("{{{}}}", line(fields)),
        other => other.to_string(),
    }
}

fn line(fields: &Fields) -> String {
    let fields: Vec<String> = fields
        .iter()
        .map(|(name, field)| format!("{name}={}", value(field)))
        .collect();
    fields.join(" ")
}

/// `skep maps dump`.
pub(super) async fn dump(context: &Context, name: &str) -> Result<Outcome, Failure> {
    let query = Query::Map {
        name: name.to_owned(),
    };
    let (dumps, outcome) = read_all::<MapDump>(context, &query).await?;
    match context.format {
        Format::Json => output::list("MapDumpList", &dumps),
        Format::Table => {
            let mut table = Table::new(&["NODE", "KEY", "VALUE"]);
            for OnNode { node, view } in &dumps {
                for element in &view.elements {
                    table.row([node.clone(), line(&element.key), line(&element.value)]);
                }
            }
            output::table(&table, context.no_headers);
        }
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sizes_are_short() {
        for (count, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (65_537, "65 KiB"),
            (1 << 20, "1.0 MiB"),
            (5_767_168, "5.5 MiB"),
        ] {
            assert_eq!(bytes(count), expected);
        }
    }

    #[test]
    fn an_element_is_one_line_of_named_fields() {
        let Value::Object(fields) = json!({ "main": "a", "ready": { "base": 1, "len": 2 } }) else {
            panic!("an object");
        };
        assert_eq!(line(&fields), "main=a ready={base=1 len=2}");
    }
}
