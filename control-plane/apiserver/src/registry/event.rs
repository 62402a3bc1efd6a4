//! Event: what happened to an object; kept for an hour. Stored in the core form; the
//! `events.k8s.io` form is a view of the same objects.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::strategy::Strategy;
use super::{FieldReader, View};
use crate::field::{FieldError, Path};
use crate::tables::{Column, Table, column, human_duration, seconds_since, since, wide};
use crate::tree;

/// How long an event is kept (upstream's `--event-ttl`).
const TTL: std::time::Duration = std::time::Duration::from_secs(3600);

#[derive(Debug)]
pub(super) struct Event;

pub(super) const FIELDS: &[(&str, FieldReader)] = &[
    ("involvedObject.kind", |p| p.involved_object.kind.or("")),
    ("involvedObject.namespace", |p| {
        p.involved_object.namespace.or("")
    }),
    ("involvedObject.name", |p| p.involved_object.name.or("")),
    ("involvedObject.uid", |p| p.involved_object.uid.or("")),
    ("involvedObject.apiVersion", |p| {
        p.involved_object.api_version.or("")
    }),
    ("involvedObject.resourceVersion", |p| {
        p.involved_object.resource_version.or("")
    }),
    ("involvedObject.fieldPath", |p| {
        p.involved_object.field_path.or("")
    }),
    ("reason", |p| p.reason.or("")),
    ("reportingComponent", |p| p.reporting_component.or("")),
    ("source", |p| {
        let source = p.source.component.or("");
        if source.is_empty() {
            p.reporting_component.or("")
        } else {
            source
        }
    }),
    ("type", |p| p.kind_type.or("")),
];

/// The same fields under the names of the view; order as in [`FIELDS`].
pub(super) const FIELDS_VIEW: &[(&str, FieldReader)] = &[
    ("regarding.kind", |p| p.involved_object.kind.or("")),
    ("regarding.namespace", |p| {
        p.involved_object.namespace.or("")
    }),
    ("regarding.name", |p| p.involved_object.name.or("")),
    ("regarding.uid", |p| p.involved_object.uid.or("")),
    ("regarding.apiVersion", |p| {
        p.involved_object.api_version.or("")
    }),
    ("regarding.resourceVersion", |p| {
        p.involved_object.resource_version.or("")
    }),
    ("regarding.fieldPath", |p| {
        p.involved_object.field_path.or("")
    }),
    ("reason", |p| p.reason.or("")),
    ("reportingController", |p| p.reporting_component.or("")),
    ("source", |p| p.source.component.or("")),
    ("type", |p| p.kind_type.or("")),
];

pub(super) const VIEW: View = View {
    stored: "v1",
    show,
    store,
};

/// Names of the two forms: core, events.k8s.io.
const RENAMED: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn show(stored: Value) -> Value {
    rename(stored, "events.k8s.io/v1", |name| {
        RENAMED
            .iter()
            .find(|(core, _)| *core == name)
            .map(|(_, view)| *view)
    })
}

fn store(shown: Value) -> Value {
    rename(shown, "v1", |name| {
        RENAMED
            .iter()
            .find(|(_, view)| *view == name)
            .map(|(core, _)| *core)
    })
}

fn rename(
    value: Value,
    api_version: &str,
    new_name: impl Fn(&str) -> Option<&'static str>,
) -> Value {
    let Value::Object(map) = value else {
        return value;
    };
    let renamed = map
        .into_iter()
        .map(|(name, field)| match name.as_str() {
            "apiVersion" => (name, Value::from(api_version)),
            other => (
                new_name(other).map_or_else(|| other.to_owned(), str::to_owned),
                field,
            ),
        })
        .collect();
    Value::Object(renamed)
}

const COLUMNS: &[Column] = &[
    column(
        "Last Seen",
        "string",
        "The time at which the most recent occurrence of this event was recorded.",
    ),
    column(
        "Type",
        "string",
        "Type of this event (Normal, Warning), new types could be added in the future",
    ),
    column(
        "Reason",
        "string",
        "This should be a short, machine understandable string that gives the reason for the transition into the object's current status.",
    ),
    column("Object", "string", "The object that this event is about."),
    wide(
        "Subobject",
        "string",
        "If referring to a piece of an object instead of an entire object, this should contain a valid JSON/Go field access statement.",
    ),
    wide("Source", "string", "The component reporting this event."),
    column(
        "Message",
        "string",
        "A human-readable description of the status of this operation.",
    ),
    wide(
        "First Seen",
        "string",
        "The time at which the event was first recorded.",
    ),
    wide(
        "Count",
        "string",
        "The number of times this event has occurred.",
    ),
    wide("Name", "string", "Name must be unique within a namespace."),
];

pub(super) static TABLE: Table = Table {
    columns: COLUMNS,
    row,
};

/// The first text that is set.
fn first_text<'a>(object: &'a Value, paths: &[&[&str]]) -> &'a str {
    paths
        .iter()
        .map(|path| tree::text(object, path))
        .find(|t| !t.is_empty())
        .unwrap_or_default()
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    // The same code serves both forms: whichever names are there are read.
    let first = first_text(
        object,
        &[
            &["firstTimestamp"],
            &["deprecatedFirstTimestamp"],
            &["eventTime"],
        ],
    );
    let last = first_text(
        object,
        &[
            &["series", "lastObservedTime"],
            &["lastTimestamp"],
            &["deprecatedLastTimestamp"],
        ],
    );
    let about = if object.get("involvedObject").is_some() {
        "involvedObject"
    } else {
        "regarding"
    };
    let kind = tree::text(object, &[about, "kind"]).to_lowercase();
    let name = tree::text(object, &[about, "name"]);
    let reporter = first_text(object, &[&["reportingComponent"], &["reportingController"]]);
    let source = {
        let component = first_text(
            object,
            &[&["source", "component"], &["deprecatedSource", "component"]],
        );
        let host = first_text(
            object,
            &[&["source", "host"], &["deprecatedSource", "host"]],
        );
        let component = if component.is_empty() {
            reporter
        } else {
            component
        };
        if host.is_empty() {
            component.to_owned()
        } else {
            format!("{component}, {host}")
        }
    };
    let count = tree::int(object, &["series", "count"])
        .or_else(|| tree::int(object, &["count"]))
        .or_else(|| tree::int(object, &["deprecatedCount"]))
        .unwrap_or(1);
    vec![
        json!(interval(first, last, count, object, now)),
        json!(tree::text(object, &["type"])),
        json!(tree::text(object, &["reason"])),
        json!(if name.is_empty() {
            kind
        } else {
            format!("{kind}/{name}")
        }),
        json!(tree::text(object, &[about, "fieldPath"])),
        json!(source),
        json!(first_text(object, &[&["message"], &["note"]]).trim()),
        since(first, now),
        json!(count),
        json!(tree::text(object, &["metadata", "name"])),
    ]
}

fn interval(first: &str, last: &str, count: i64, object: &Value, now: Timestamp) -> String {
    let seen = |time: &str| {
        seconds_since(time, now).map_or_else(|| "<unknown>".to_owned(), human_duration)
    };
    if tree::at(object, &["series"]).is_object() {
        return format!("{} (x{count} over {})", seen(last), seen(first));
    }
    seen(if last.is_empty() { first } else { last })
}

impl Strategy for Event {
    fn creates_on_update(&self) -> bool {
        true
    }

    fn ttl(&self) -> Option<std::time::Duration> {
        Some(TTL)
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let about = tree::text(object, &["involvedObject", "namespace"]);
        let namespace = tree::text(object, &["metadata", "namespace"]);
        let allowed = if about.is_empty() {
            matches!(namespace, "default" | "kube-system")
        } else {
            about == namespace
        };
        if !allowed {
            let path = Path::root("involvedObject").child("namespace");
            errors.push(FieldError::invalid(
                &path,
                about,
                "does not match event.namespace",
            ));
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_view_renames_there_and_back() {
        let core = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"},
            "involvedObject": {"kind": "Pod"}, "message": "m", "count": 3, "reason": "r"});
        let view = show(core.clone());
        assert_eq!(view["apiVersion"], "events.k8s.io/v1");
        assert_eq!(view["regarding"]["kind"], "Pod");
        assert_eq!(view["deprecatedCount"], 3);
        assert_eq!(store(view), core);
    }
}
