//! Ownership of fields: server-side apply and the bookkeeping of all other writes. One reason to
//! change: how managers share an object.
//!
//! `apply` merges what a manager wants into the live object, takes away what it applied before and
//! wants no longer (unless others own it), and refuses to change what others own unless forced.
//! `update` notes after any other write which fields its manager changed. Both return the object with
//! `metadata.managedFields`, in canonical form; defaulting and validation come next.
//!
//! An object is owned in one version at a time: conversion between versions of a kind is the
//! caller's, before.

mod created;
mod managers;
mod set;
mod shape;
#[cfg(test)]
mod tests;
mod walk;

use std::sync::OnceLock;

use serde_json::{Map, Value};

pub use self::managers::{Entry, Operation, UPDATES_MAX, read};
pub use self::set::{Element, FieldSet, FieldsError};
use self::shape::{Node, Place};
use self::walk::Walk;
use crate::decode::{self, DecodeError};
use crate::schema::{Schema, TypeId};

/// Owner of what an object had before anyone applied to it.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Whether objects have a canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// That of [`decode::check`]: built-in kinds.
    Canonical,
    /// None: custom kinds, whose fields have no Go types.
    Free,
}

/// Who writes, and to what.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    pub schema: &'a Schema,
    pub type_id: TypeId,
    pub form: Form,
    /// `fieldManager`, or the start of the user agent.
    pub manager: &'a str,
    pub api_version: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// Fields this endpoint does not write (`status` for the object, all else for its status).
    pub ignored: &'a FieldSet,
    /// RFC 3339.
    pub now: &'a str,
}

/// One field that another manager owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The cause's message: `conflict with "kubectl" using apps/v1`.
    pub message: String,
    /// The cause's field: `.spec.replicas`.
    pub field: String,
}

/// Why nothing was applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Answer 409 with one `FieldManagerConflict` cause each.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// The configuration does not fit the schema: answer 400.
    #[error("{0}")]
    Schema(String),
    /// A value of the configuration has the wrong type: answer 400.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The live object's entries are damaged: answer 500, or reset them.
    #[error(transparent)]
    ManagedFields(#[from] FieldsError),
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!(
            "Apply failed with 1 conflict: {}: {}",
            one.message, one.field
        );
    }
    let mut lines = Vec::new();
    let mut last = None;
    for conflict in conflicts {
        if last != Some(&conflict.message) {
            lines.push(format!(
                "{}:",
                conflict.message.replacen("conflict", "conflicts", 1)
            ));
            last = Some(&conflict.message);
        }
        lines.push(format!("- {}", conflict.field));
    }
    format!(
        "Apply failed with {} conflicts: {}",
        conflicts.len(),
        lines.join("\n")
    )
}

/// What happens to fields that others own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConflict {
    Refuse,
    Take,
}

/// Applies `config` to `live`. `config` is parsed but not checked, for only what it states is owned;
/// `live` and the result are canonical.
/// `live` is nothing when the object does not exist yet. An apply that changes nothing returns the
/// live object with its entries untouched.
///
/// # Errors
/// [`ApplyError`].
pub fn apply(
    writer: &Writer<'_>,
    live: Option<&Value>,
    config: &Value,
    on_conflict: OnConflict,
) -> Result<Value, ApplyError> {
    let walk = Walk {
        schema: writer.schema,
    };
    let root = Node::Fields(writer.type_id);
    let empty = Value::Object(Map::new());
    let present = without_entries(live.unwrap_or(&empty));
    let config = without_entries(config);
    let mut entries = live.map_or(Ok(Vec::new()), read)?;
    if live.is_some() && entries.is_empty() {
        entries.push(first_entry(writer, &present)?);
    }
    let before = entries.clone();
    let wanted = walk
        .fields(root, &config)?
        .difference(never_owned())
        .outside(writer.ignored);
    let mut own = writer.entry(Operation::Apply, wanted);
    let last = match entries.iter().position(|entry| entry.same_owner(&own)) {
        Some(at) => {
            let previous = entries.swap_remove(at);
            own.time = previous.time;
            previous.fields
        }
        None => FieldSet::default(),
    };
    let merged = walk.merge(root, Some(&present), &config)?;
    let merged = prune(walk, root, &merged, &last, &own, &entries)?;
    let merged = match writer.form {
        Form::Canonical => decode::check(writer.schema, writer.type_id, merged)?.0,
        Form::Free => merged,
    };
    let difference = walk.compare(
        Place {
            node: root,
            own: false,
        },
        Some(&present),
        Some(&merged),
    )?;
    // A field that is stated and yet gone was set to what absent means: `paused: false`.
    let zeroed = difference.removed.intersection(&own.fields);
    let changed = difference.changed.union(&zeroed).outside(writer.ignored);
    let conflicts = conflicts(&entries, &changed);
    if on_conflict == OnConflict::Refuse && !conflicts.is_empty() {
        return Err(ApplyError::Conflicts(conflicts));
    }
    release(&mut entries, &changed, &difference.removed);
    entries.push(own);
    let unchanged_owners =
        entries.len() == before.len() && entries.iter().all(|entry| before.contains(entry));
    if let (Some(live), true, true) = (live, merged == present, unchanged_owners) {
        return Ok(live.clone());
    }
    if let Some(own) = entries.last_mut() {
        writer.now.clone_into(&mut own.time);
    }
    let mut result = merged;
    managers::write(&mut result, entries);
    Ok(result)
}

/// Notes in `new` who changed what since `live` (nothing at creation). Entries that `new` carries are
/// taken as they are, an empty one resets them, none means those of `live`.
///
/// # Errors
/// [`ApplyError::Schema`] when `new` is not checked; it has no entries then.
pub fn update(
    writer: &Writer<'_>,
    live: Option<&Value>,
    new: &mut Value,
) -> Result<(), ApplyError> {
    let mut entries = match (resets(new), read(new)) {
        (true, _) => Vec::new(),
        (false, Ok(entries)) if !entries.is_empty() && writer.subresource.is_empty() => entries,
        _ => live.map(read).and_then(Result::ok).unwrap_or_default(),
    };
    if let Some(metadata) = new.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.shift_remove("managedFields");
    }
    let place = Place {
        node: Node::Fields(writer.type_id),
        own: false,
    };
    if live.is_none() && entries.is_empty() {
        let without = created::Without {
            never: never_owned(),
            ignored: writer.ignored,
        };
        if let Some(fields) = created::fields(writer.schema, place, new, without)? {
            let entry = writer.entry(Operation::Update, FieldSet::default());
            managers::write_one(new, &entry, writer.now, fields);
        }
        return Ok(());
    }
    let walk = Walk {
        schema: writer.schema,
    };
    let empty = Value::Object(Map::new());
    // The entries themselves differ as well; nobody owns them.
    let difference = walk.compare(place, Some(live.unwrap_or(&empty)), Some(new))?;
    let changed = difference.changed.outside(writer.ignored);
    release(&mut entries, &changed, &difference.removed);
    let own = changed.difference(never_owned());
    if !own.is_empty() {
        let mut entry = writer.entry(Operation::Update, own);
        if let Some(at) = entries.iter().position(|other| other.same_owner(&entry)) {
            entry.fields = entry.fields.union(&entries.swap_remove(at).fields);
        }
        writer.now.clone_into(&mut entry.time);
        entries.push(entry);
    }
    managers::write(new, entries);
    Ok(())
}

impl Writer<'_> {
    fn entry(&self, operation: Operation, fields: FieldSet) -> Entry {
        Entry {
            manager: self.manager.to_owned(),
            operation,
            api_version: self.api_version.to_owned(),
            subresource: self.subresource.to_owned(),
            time: String::new(),
            fields,
        }
    }
}

/// The owner of what was there before the first apply.
fn first_entry(writer: &Writer<'_>, live: &Value) -> Result<Entry, ApplyError> {
    let walk = Walk {
        schema: writer.schema,
    };
    let fields = walk
        .fields(Node::Fields(writer.type_id), live)?
        .difference(never_owned());
    let first = Writer {
        manager: BEFORE_FIRST_APPLY,
        subresource: "",
        ..*writer
    };
    Ok(Entry {
        time: writer.now.to_owned(),
        ..first.entry(Operation::Update, fields)
    })
}

/// Takes away what the manager applied last and wants no longer, unless someone else owns it.
fn prune(
    walk: Walk<'_>,
    root: Node<'_>,
    merged: &Value,
    last: &FieldSet,
    own: &Entry,
    others: &[Entry],
) -> Result<Value, ApplyError> {
    if last.is_empty() {
        return Ok(merged.clone());
    }
    let whole = |set: &FieldSet| walk.with_parents(root, set);
    let last = whole(last);
    let all = whole(&walk.fields(root, merged)?);
    let bare = walk.without(root, merged, &last)?;
    let owned = others
        .iter()
        .fold(own.fields.clone(), |set, entry| set.union(&entry.fields));
    let keep = whole(&walk.fields(root, &bare)?).union(&whole(&owned));
    let added_back = walk.without(root, merged, &all.difference(&keep))?;
    let left = whole(&walk.fields(root, &added_back)?);
    walk.without(root, merged, &all.difference(&left).intersection(&last))
}

fn conflicts(others: &[Entry], changed: &FieldSet) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    for entry in others {
        let message = format!("conflict with {}", entry.describe());
        for field in entry.fields.intersection(changed).paths() {
            conflicts.push(Conflict {
                message: message.clone(),
                field,
            });
        }
    }
    conflicts
}

/// Others own no longer what was changed or removed.
fn release(entries: &mut Vec<Entry>, changed: &FieldSet, removed: &FieldSet) {
    for entry in entries.iter_mut() {
        entry.fields = entry.fields.difference(changed).difference(removed);
    }
    entries.retain(|entry| !entry.fields.is_empty());
}

/// Whether the entries are exactly one empty one: the way to start over.
fn resets(object: &Value) -> bool {
    let entries = object
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array);
    match entries.map(Vec::as_slice) {
        Some([Value::Object(entry)]) => entry
            .values()
            .all(|value| value.as_str().is_some_and(str::is_empty)),
        _ => false,
    }
}

fn without_entries(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.shift_remove("managedFields");
    }
    object
}

/// What the server itself keeps.
fn never_owned() -> &'static FieldSet {
    static SET: OnceLock<FieldSet> = OnceLock::new();
    SET.get_or_init(|| {
        let names = [
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "clusterName",
            "generation",
            "managedFields",
            "resourceVersion",
        ];
        let top = FieldSet::default()
            .with(&["apiVersion"])
            .with(&["kind"])
            .with(&["metadata"]);
        names
            .iter()
            .fold(top, |set, name| set.with(&["metadata", name]))
    })
}
