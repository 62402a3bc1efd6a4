//! `metadata.managedFields`: who owns what. Changes with the form of its entries.

use serde_json::{Map, Value, json};

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
    let written: Vec<Value> = entries.iter().map(to_value).collect();
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

fn to_value(entry: &Entry) -> Value {
    let mut value = json!({
        "manager": entry.manager,
        "operation": entry.operation.text(),
        "apiVersion": entry.api_version,
        "fieldsType": "FieldsV1",
        "fieldsV1": entry.fields.to_fields(),
    });
    for (name, text) in [("time", &entry.time), ("subresource", &entry.subresource)] {
        if !text.is_empty() {
            value[name] = Value::String(text.clone());
        }
    }
    value
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
