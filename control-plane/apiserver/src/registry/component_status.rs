//! ComponentStatus: how a part of the control plane is. Read only, and kept nowhere.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::strategy::Strategy;
use crate::tables::{Column, NAME, Table, column};
use crate::tree;

#[derive(Debug)]
pub(super) struct ComponentStatus;

const COLUMNS: &[Column] = &[
    NAME,
    column("Status", "string", "Status of the component conditions"),
    column("Message", "string", "Message of the component conditions"),
    column("Error", "string", "Error of the component conditions"),
];

pub(super) static TABLE: Table = Table {
    columns: COLUMNS,
    row,
};

fn row(object: &Value, _now: Timestamp) -> Vec<Value> {
    let condition = tree::list(object, &["conditions"])
        .iter()
        .find(|condition| condition["type"] == "Healthy");
    let of = |field| condition.map_or("", |condition| tree::text(condition, &[field]));
    let status = match of("status") {
        "True" => "Healthy",
        "False" => "Unhealthy",
        _ => "Unknown",
    };
    vec![
        json!(tree::text(object, &["metadata", "name"])),
        json!(status),
        json!(of("message")),
        json!(of("error")),
    ]
}

impl Strategy for ComponentStatus {
    fn deprecation(&self) -> Option<&str> {
        Some("v1 ComponentStatus is deprecated in v1.19+")
    }

    fn is_virtual(&self) -> bool {
        true
    }
}
