//! The columns of autoscalers.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::metrics::SOURCES;
use super::view::VIEW;
use crate::tables::{self, AGE, Column, NAME, Table, age, column};
use crate::tree;

/// How many metrics a row shows.
const METRICS_SHOWN: usize = 2;

const COLUMNS: &[Column] = &[
    NAME,
    column("Reference", "string", "What is scaled."),
    column("Targets", "string", "Measured and wanted, one a metric."),
    column("MinPods", "string", "Least number of replicas."),
    column("MaxPods", "string", "Largest number of replicas."),
    column("Replicas", "string", "Present number of replicas."),
    AGE,
];

pub(in crate::registry) static TABLE: Table = Table {
    columns: COLUMNS,
    row,
};

/// The same for the view, whose objects are in their own form.
pub(in crate::registry) static TABLE_V1: Table = Table {
    columns: COLUMNS,
    row: |object, now| row(&(VIEW.store)(object.clone()), now),
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let target = tree::at(object, &["spec", "scaleTargetRef"]);
    let (kind, name) = (tree::text(target, &["kind"]), tree::text(target, &["name"]));
    vec![
        tables::name(object),
        json!(format!("{kind}/{name}")),
        json!(targets(object)),
        tables::scalar_or(object, &["spec", "minReplicas"], "<unset>"),
        json!(tree::int(object, &["spec", "maxReplicas"]).unwrap_or_default()),
        json!(tree::int(object, &["status", "currentReplicas"]).unwrap_or_default()),
        age(object, now),
    ]
}

fn targets(object: &Value) -> String {
    let specs = tree::list(object, &["spec", "metrics"]);
    let current = tree::list(object, &["status", "currentMetrics"]);
    let texts: Vec<String> = specs
        .iter()
        .enumerate()
        .map(|(i, spec)| target(spec, current.get(i).unwrap_or(&Value::Null)))
        .collect();
    match texts.len().checked_sub(METRICS_SHOWN) {
        _ if texts.is_empty() => "<none>".to_owned(),
        None | Some(0) => texts.join(", "),
        Some(more) => format!("{} + {more} more...", texts[..METRICS_SHOWN].join(", ")),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn target(spec: &Value, status: &Value) -> String {
    let kind = tree::text(spec, &["type"]);
    let Some((_, field)) = SOURCES.iter().find(|(name, _)| *name == kind) else {
        return "<unknown type>".to_owned();
    };
    let wanted = |name| scalar(tree::at(spec, &[field, "target", name]));
    let measured = |name| scalar(tree::at(status, &[field, "current", name]));
    let unknown = || "<unknown>".to_owned();
    let resource = kind.ends_with("Resource");
    if let Some(average) = wanted("averageValue") {
        let current = measured("averageValue").unwrap_or_else(unknown);
        return match kind {
            "Object" | "External" => format!("{current}/{average} (avg)"),
            _ if resource => {
                format!(
                    "{}: {current}/{average}",
                    tree::text(spec, &[field, "name"])
                )
            }
            _ => format!("{current}/{average}"),
        };
    }
    if resource {
        let percent = |text: Option<String>| text.map(|text| text + "%");
        let current = percent(measured("averageUtilization")).unwrap_or_else(unknown);
        let target = percent(wanted("averageUtilization"));
        let target = target.unwrap_or_else(|| "<auto>".to_owned());
        return format!("{}: {current}/{target}", tree::text(spec, &[field, "name"]));
    }
    let current = measured("value").unwrap_or_else(unknown);
    format!("{current}/{}", wanted("value").unwrap_or_else(unknown))
}
