//! Strategic merge patch: merge keys and strategies come from the schema table, directives from the
//! patch. Changes when upstream's semantics do (`apimachinery/pkg/util/strategicpatch`).
//!
//! Directives: `$patch: replace|delete` in maps and list items, `$retainKeys`,
//! `$deleteFromPrimitiveList/FIELD`, `$setElementOrder/FIELD`.

use serde_json::{Map, Value};

use super::PatchError;
use super::order::{self, Key};
use crate::schema::{Field, Schema, Shape, TypeId};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_LIST: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// Applies a strategic merge patch to an object of a type.
///
/// # Errors
/// [`PatchError`] for unknown directives, list items without their merge key and orders that
/// contradict the list.
pub fn strategic(
    schema: &Schema,
    type_id: TypeId,
    document: Value,
    patch: Value,
) -> Result<Value, PatchError> {
    let (Value::Object(document), Value::Object(patch)) = (document, patch) else {
        return Err(PatchError::Strategic(
            "document and patch must be objects to be merged strategically".to_owned(),
        ));
    };
    let merge = Merge { schema };
    Ok(Value::Object(merge.map(
        document,
        patch,
        Sub::Type(type_id),
    )?))
}

/// What is known of a map's or list item's fields.
#[derive(Clone, Copy)]
enum Sub<'a> {
    Type(TypeId),
    /// Values of a map.
    Values(&'a Shape),
    /// Nothing: maps merge, lists replace.
    Unknown,
}

/// How one field merges.
#[derive(Clone, Copy)]
struct Meta<'a> {
    sub: Sub<'a>,
    /// Lists merge instead of replacing.
    merge: bool,
    /// Maps are replaced as a whole.
    replace: bool,
    key: Option<&'a str>,
}

struct Merge<'a> {
    schema: &'a Schema,
}

impl<'a> Merge<'a> {
    fn map(
        &self,
        mut original: Map<String, Value>,
        mut patch: Map<String, Value>,
        sub: Sub<'a>,
    ) -> Result<Map<String, Value>, PatchError> {
        if let Some(directive) = patch.remove(PATCH) {
            return match directive.as_str() {
                Some("replace") => Ok(patch),
                Some("delete") => Ok(Map::new()),
                _ => Err(unknown_directive(&directive, patch)),
            };
        }
        retain_keys(&mut original, &mut patch)?;
        self.ordered_lists(&mut original, &mut patch, sub)?;
        for (key, value) in patch {
            let (name, deletes) = match key.strip_prefix(DELETE_LIST) {
                Some(name) => (name.to_owned(), true),
                None => (key, false),
            };
            if value.is_null() {
                original.shift_remove(&name);
                continue;
            }
            let Some(present) = original.get_mut(&name) else {
                if !deletes {
                    insert_new(&mut original, name, value);
                }
                continue;
            };
            match (present.take(), value) {
                (Value::Object(present_map), Value::Object(value)) => {
                    let meta = self.meta(sub, &name)?;
                    *present = Value::Object(match meta.replace {
                        true => value,
                        false => self.map(present_map, value, meta.sub)?,
                    });
                }
                (Value::Array(present_list), Value::Array(value)) => {
                    let meta = self.meta(sub, &name)?;
                    *present = Value::Array(self.list(present_list, value, meta, deletes)?);
                }
                (unchanged, _) if deletes => *present = unchanged,
                (_, value @ (Value::Object(_) | Value::Array(_))) => {
                    original.shift_remove(&name);
                    insert_new(&mut original, name, value);
                }
                (_, value) => *present = value,
            }
        }
        Ok(original)
    }

    /// Processes `$setElementOrder/FIELD` together with the patch's list FIELD, and takes both out
    /// of the patch.
    fn ordered_lists(
        &self,
        original: &mut Map<String, Value>,
        patch: &mut Map<String, Value>,
        sub: Sub<'a>,
    ) -> Result<(), PatchError> {
        let directives: Vec<String> = patch
            .keys()
            .filter(|key| key.starts_with(ELEMENT_ORDER))
            .cloned()
            .collect();
        for directive in directives {
            let Some(Value::Array(order)) = patch.shift_remove(&directive) else {
                return Err(PatchError::Strategic(
                    "invalid patch format of setElementOrder list".to_owned(),
                ));
            };
            let name = directive[ELEMENT_ORDER.len()..].to_owned();
            let meta = self.meta(sub, &name)?;
            let key = Key(meta.key);
            let patch_list = match patch.get(&name) {
                Some(Value::Array(_)) => match patch.shift_remove(&name) {
                    Some(Value::Array(list)) => Some(list),
                    _ => None,
                },
                None => None,
                // A null removes the field; the order is of no use then.
                Some(_) => continue,
            };
            if let Some(list) = &patch_list {
                let kept: Vec<&Value> = list.iter().filter(|item| !is_deletion(item)).collect();
                order::check_consistent(&kept, &order, key)?;
            }
            let original_list = match original.get(&name) {
                Some(Value::Array(list)) => Some(list.clone()),
                _ => None,
            };
            let server_order = original_list.clone().unwrap_or_default();
            let merged = match (original_list, patch_list) {
                (Some(original), None) => original,
                (None, Some(patch)) => match without_directives(Value::Array(patch)) {
                    Some(Value::Array(list)) => list,
                    _ => continue,
                },
                (Some(original), Some(patch)) => self.list(original, patch, meta, false)?,
                (None, None) => continue,
            };
            let merged = order::arrange(merged, &order, &server_order, key);
            original.insert(name, Value::Array(merged));
        }
        Ok(())
    }

    fn list(
        &self,
        original: Vec<Value>,
        patch: Vec<Value>,
        meta: Meta<'a>,
        deletes: bool,
    ) -> Result<Vec<Value>, PatchError> {
        if !meta.merge && !deletes {
            return Ok(patch);
        }
        let maps = |list: &[Value]| list.iter().filter(|item| item.is_object()).count();
        let (found, len) = (maps(&original) + maps(&patch), original.len() + patch.len());
        if found != 0 && found != len {
            return Err(PatchError::Strategic(
                "list element types are not identical".to_owned(),
            ));
        }
        if found == 0 {
            if deletes {
                return Ok(original
                    .into_iter()
                    .filter(|item| !patch.contains(item))
                    .collect());
            }
            let mut merged: Vec<Value> = Vec::with_capacity(len);
            for item in original.iter().chain(&patch) {
                if !merged.contains(item) {
                    merged.push(item.clone());
                }
            }
            return Ok(order::arrange(merged, &patch, &original, Key(None)));
        }
        let Some(key) = meta.key else {
            return Err(PatchError::Strategic(format!(
                "cannot merge lists without merge key for {}",
                self.sub_name(meta.sub)
            )));
        };
        let (original, patch) = special_items(original, patch, key)?;
        let merged = self.items(original.clone(), patch.clone(), meta.sub, key)?;
        Ok(order::arrange(merged, &patch, &original, Key(Some(key))))
    }

    /// Merges list items by key; new ones go to the end.
    fn items(
        &self,
        mut list: Vec<Value>,
        patch: Vec<Value>,
        sub: Sub<'a>,
        key: &str,
    ) -> Result<Vec<Value>, PatchError> {
        for item in patch {
            let Some(value) = item.get(key) else {
                return Err(no_merge_key(&item, key));
            };
            let found = list
                .iter_mut()
                .find(|present| present.get(key) == Some(value));
            match (found, item) {
                (Some(present), Value::Object(item)) => {
                    if let Value::Object(fields) = present.take() {
                        *present = Value::Object(self.map(fields, item, sub)?);
                    }
                }
                (_, item) => list.extend(without_directives(without_nulls(item))),
            }
        }
        Ok(list)
    }

    fn meta(&self, sub: Sub<'a>, name: &str) -> Result<Meta<'a>, PatchError> {
        let plain = |sub| Meta {
            sub,
            merge: false,
            replace: false,
            key: None,
        };
        match sub {
            Sub::Unknown => Ok(plain(Sub::Unknown)),
            Sub::Values(shape) => Ok(plain(sub_of(shape))),
            Sub::Type(id) => {
                let ty = self.schema.get(id);
                match ty.field(name) {
                    Some(field) => Ok(field_meta(field)),
                    None => Err(PatchError::Strategic(format!(
                        "unable to find api field in struct {} for the json field \"{name}\"",
                        ty.short_name()
                    ))),
                }
            }
        }
    }

    fn sub_name(&self, sub: Sub<'_>) -> String {
        match sub {
            Sub::Type(id) => self.schema.get(id).short_name().to_owned(),
            Sub::Values(_) | Sub::Unknown => "interface {}".to_owned(),
        }
    }
}

fn field_meta(field: &Field) -> Meta<'_> {
    Meta {
        sub: sub_of(&field.shape),
        merge: field.patch.merge,
        replace: field.patch.replace,
        key: field.patch_merge_key.as_deref(),
    }
}

/// What is known inside a value of this shape; of a list, inside its items.
fn sub_of(shape: &Shape) -> Sub<'_> {
    match shape {
        Shape::Ref(id) => Sub::Type(*id),
        Shape::List(item) => sub_of(item),
        Shape::Map(value) | Shape::MapOfLists(value) => Sub::Values(value),
        Shape::Scalar(_) => Sub::Unknown,
    }
}

/// `$retainKeys`: what is not listed goes, and the patch may set nothing else.
fn retain_keys(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
) -> Result<(), PatchError> {
    let Some(keys) = patch.shift_remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let refused = || PatchError::Strategic("invalid patch format of retainKeys".to_owned());
    let keys = keys.as_array().ok_or_else(refused)?;
    let listed = |name: &str| keys.iter().any(|key| key == name);
    for (name, value) in patch.iter() {
        let directive = name.starts_with(DELETE_LIST) || name.starts_with(ELEMENT_ORDER);
        if !value.is_null() && !directive && !listed(name) {
            return Err(refused());
        }
    }
    original.retain(|name, _| listed(name));
    Ok(())
}

/// Takes items with directives out of a list patch: deletions act on the original, a replacement
/// makes the rest of the patch the original.
fn special_items(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut plain = Vec::with_capacity(patch.len());
    let mut replace = false;
    for item in patch {
        match item.get(PATCH).map(Value::as_str) {
            None => plain.push(item),
            Some(Some("delete")) => {
                let value = item.get(key).ok_or_else(|| no_merge_key(&item, key))?;
                original.retain(|present| present.get(key) != Some(value));
            }
            Some(Some("replace")) => replace = true,
            Some(Some("merge")) => {
                return Err(PatchError::Strategic(
                    "merging lists cannot yet be specified in the patch".to_owned(),
                ));
            }
            Some(_) => {
                let directive = item.get(PATCH).cloned().unwrap_or_default();
                return Err(unknown_directive(&directive, item));
            }
        }
    }
    Ok(if replace {
        (plain, Vec::new())
    } else {
        (original, plain)
    })
}

fn is_deletion(item: &Value) -> bool {
    item.get(PATCH)
        .is_some_and(|directive| directive == "delete")
}

/// Sets a field the original does not have: without nulls and directives.
fn insert_new(original: &mut Map<String, Value>, name: String, value: Value) {
    let plain = without_directives(without_nulls(value));
    if let Some(value) = plain.filter(|_| !name.starts_with('$')) {
        original.insert(name, value);
    }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| (name, without_nulls(value)))
                .collect(),
        ),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

/// The value without directives; nothing when it is to be deleted.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(fields) => {
            if fields
                .get(PATCH)
                .is_some_and(|directive| directive == "delete")
            {
                return None;
            }
            let plain = fields
                .into_iter()
                .filter(|(name, _)| {
                    name != PATCH
                        && name != RETAIN_KEYS
                        && !name.starts_with(DELETE_LIST)
                        && !name.starts_with(ELEMENT_ORDER)
                })
                .filter_map(|(name, value)| Some((name, without_directives(value)?)));
            Some(Value::Object(plain.collect()))
        }
        Value::Array(items) => {
            // An item that only says `$patch: replace` is no item.
            let only_directive = |item: &Value| {
                item.as_object()
                    .is_some_and(|map| map.len() == 1 && map.contains_key(PATCH))
            };
            let items = items.into_iter().filter(|item| !only_directive(item));
            Some(items.filter_map(without_directives).collect())
        }
        other => Some(other),
    }
}

fn unknown_directive(directive: &Value, map: impl Into<Value>) -> PatchError {
    let directive = directive
        .as_str()
        .map_or_else(|| directive.to_string(), str::to_owned);
    PatchError::UnknownDirective {
        directive,
        map: map.into().to_string(),
    }
}

fn no_merge_key(item: &Value, key: &str) -> PatchError {
    PatchError::NoMergeKey {
        map: item.to_string(),
        key: key.to_owned(),
    }
}
