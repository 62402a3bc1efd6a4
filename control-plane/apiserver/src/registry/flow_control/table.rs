//! The columns of flow schemas and priority levels.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::tables::{self, AGE, NAME, Table, age, column};
use crate::tree;

pub(in crate::registry) static SCHEMA_TABLE: Table = Table {
    columns: &[
        NAME,
        column("PriorityLevel", "string", "The level of matching requests."),
        column(
            "MatchingPrecedence",
            "string",
            "Schemas are tried from the lowest number on.",
        ),
        column("DistinguisherMethod", "string", "What tells flows apart."),
        AGE,
        column("MissingPL", "string", "Whether the level does not exist."),
    ],
    row: schema_row,
};

pub(in crate::registry) static LEVEL_TABLE: Table = Table {
    columns: &[
        NAME,
        column("Type", "string", "Whether requests are limited."),
        column(
            "NominalConcurrencyShares",
            "string",
            "The level's part of the server.",
        ),
        column("Queues", "string", "Number of queues."),
        column(
            "HandSize",
            "string",
            "Number of queues that a flow may use.",
        ),
        column(
            "QueueLengthLimit",
            "string",
            "Requests that wait in one queue at most.",
        ),
        AGE,
    ],
    row: level_row,
};

fn schema_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let dangling = tree::list(object, &["status", "conditions"])
        .iter()
        .find(|condition| condition["type"] == "Dangling");
    let missing = dangling.map_or("?", |condition| tree::text(condition, &["status"]));
    let level = ["spec", "priorityLevelConfiguration", "name"];
    vec![
        tables::name(object),
        tables::text_or(object, &level, "<none>"),
        json!(tree::int(object, &["spec", "matchingPrecedence"]).unwrap_or_default()),
        tables::text_or(object, &["spec", "distinguisherMethod", "type"], "<none>"),
        age(object, now),
        json!(missing),
    ]
}

fn level_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let part = if tree::at(object, &["spec", "limited"]).is_null() {
        "exempt"
    } else {
        "limited"
    };
    let queuing = |name| {
        let path = ["spec", "limited", "limitResponse", "queuing", name];
        tables::scalar_or(object, &path, "<none>")
    };
    let shares = ["spec", part, "nominalConcurrencyShares"];
    vec![
        tables::name(object),
        tables::text_or(object, &["spec", "type"], ""),
        tables::scalar_or(object, &shares, "<none>"),
        queuing("queues"),
        queuing("handSize"),
        queuing("queueLengthLimit"),
        age(object, now),
    ]
}
