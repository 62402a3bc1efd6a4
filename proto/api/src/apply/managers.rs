//! `metadata.managedFields`: who owns what. Changes with the form of its entries.

use serde_json::{Map, Value};

use super::set::{FieldSet, FieldsError};

/// Entries of updates; when there are more, the oldest are joined.
pub const UPDATES_MAX: usize = 10;
const ANCIENT: &str = "ancient-changes";

/// How a manager came to own its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn text(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub manager: String,
    pub operation: Operation,
    pub api_version: String,
    /// Empty for the object itself.
    pub subresource: String,
    /// RFC 3339, empty when unknown.
    pub time: String,
    pub fields: FieldSet,
}

impl Entry {
    /// Whether both are the same owner. An applier is the same in every version, an updater not.
    pub(super) fn same_owner(&self, other: &Self) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// As conflicts name it.
    pub(super) fn describe(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
            if !self.time.is_empty() {
                text.push_str(&format!(" at {}", self.time));
            }
        }
        text
    }
}

/// Reads the entries of an object; none when it has none.
///
/// # Errors
/// [`FieldsError`] for an entry whose fields are malformed.
pub fn read(object: &Value) -> Result<Vec<Entry>, FieldsError> {
    let entries = object
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array);
    entries
        .into_iter()
        .flatten()
        .map(|entry| {
            let text = |name: &str| {
                entry
                    .get(name)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            };
            Ok(Entry {
                manager: text("manager"),
                operation: match text("operation").as_str() {
                    "Apply" => Operation::Apply,
                    "Update" => Operation::Update,
                    other => return Err(FieldsError(format!("operation {other}"))),
                },
                api_version: text("apiVersion"),
                subresource: text("subresource"),
                time: text("time"),
                fields: FieldSet::from_fields(entry.get("fieldsV1").unwrap_or(&Value::Null))?,
            })
        })
        .collect()
}

/// Writes the entries into an object, in upstream's order: appliers first, then by time.
pub(super) fn write(object: &mut Value, mut entries: Vec<Entry>) {
    join_ancient(&mut entries);
    entries.retain(|entry| !entry.fields.is_empty());
    entries.sort_by(|a, b| {
        let key = |entry: &Entry| {
            (
                entry.operation == Operation::Update,
                entry.time.clone(),
                entry.manager.clone(),
                entry.api_version.clone(),
                entry.subresource.clone(),
            )
        };
        key(a).cmp(&key(b))
    });
    let written: Vec<Value> = entries
        .iter()
        .map(|entry| to_value(entry, &entry.time, entry.fields.to_fields()))
        .collect();
    put(object, written);
}

/// Writes the one entry of a new object, whose fields are `FieldsV1` already.
pub(super) fn write_one(object: &mut Value, entry: &Entry, time: &str, fields: Map<String, Value>) {
    put(object, vec![to_value(entry, time, Value::Object(fields))]);
}

fn put(object: &mut Value, written: Vec<Value>) {
    let Some(object) = object.as_object_mut() else {
        return;
    };
    let metadata = object
        .entry("metadata")
        .or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(metadata) = metadata {
        match written.is_empty() {
            true => metadata.shift_remove("managedFields"),
            false => metadata.insert("managedFields".to_owned(), written.into()),
        };
    }
}

fn to_value(entry: &Entry, time: &str, fields: Value) -> Value {
    let mut value = Map::with_capacity(7);
    let text = |value: &mut Map<String, Value>, name: &str, text: &str| {
        value.insert(name.to_owned(), Value::String(text.to_owned()));
    };
    text(&mut value, "manager", &entry.manager);
    text(&mut value, "operation", entry.operation.text());
    text(&mut value, "apiVersion", &entry.api_version);
    text(&mut value, "fieldsType", "FieldsV1");
    // Moved: the tree of fields is most of the entry.
    value.insert("fieldsV1".to_owned(), fields);
    for (name, stated) in [("time", time), ("subresource", &entry.subresource)] {
        if !stated.is_empty() {
            text(&mut value, name, stated);
        }
    }
    Value::Object(value)
}

/// Bounds the entries of updates: the oldest beyond [`UPDATES_MAX`] become one of their version.
fn join_ancient(entries: &mut Vec<Entry>) {
    let (mut updates, mut kept): (Vec<Entry>, Vec<Entry>) = entries
        .drain(..)
        .partition(|entry| entry.operation == Operation::Update);
    updates.sort_by(|a, b| (&a.time, &a.manager).cmp(&(&b.time, &b.manager)));
    let recent = match updates.len() > UPDATES_MAX {
        // One place is the joined entry's.
        true => updates.split_off(updates.len() - (UPDATES_MAX - 1)),
        false => std::mem::take(&mut updates),
    };
    for old in updates {
        let joined = Entry {
            manager: ANCIENT.to_owned(),
            ..old
        };
        match kept.iter_mut().find(|entry| entry.same_owner(&joined)) {
            Some(present) => {
                present.fields = present.fields.union(&joined.fields);
                present.time = joined.time;
            }
            None => kept.push(joined),
        }
    }
    kept.extend(recent);
    *entries = kept;
}
