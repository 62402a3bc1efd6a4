//! Walks over objects along the schema: the fields of an object, the difference of two, the union of
//! two, an object without some fields. Changes when the rules of ownership do
//! (`sigs.k8s.io/structured-merge-diff`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::ApplyError;
use super::set::{Element, FieldSet};
use super::shape::{Node, Place, below, element_of};
use crate::schema::Schema;

/// What changed between two objects.
#[derive(Default)]
pub(super) struct Difference {
    /// Fields that are new or have another value.
    pub(super) changed: FieldSet,
    pub(super) removed: FieldSet,
}

#[derive(Clone, Copy)]
pub(super) struct Walk<'a> {
    pub(super) schema: &'a Schema,
}

impl<'a> Walk<'a> {
    /// The fields `value` sets.
    pub(super) fn fields(self, node: Node<'a>, value: &Value) -> Result<FieldSet, ApplyError> {
        let mut set = FieldSet::default();
        match (node, value) {
            (Node::Fields(id), Value::Object(fields)) => {
                for (name, value) in fields {
                    let element = Element::Field(name.clone());
                    let place = self.below(node, &element)?;
                    let mut child = self.within(&element, place.node, value)?;
                    // A field that the schema does not name is like a map's entry.
                    let named = self.schema.get(id).field(name).is_some();
                    child.member |= is_nothing(value) || !named;
                    set.keep(&element, child);
                }
            }
            (Node::Map(_) | Node::Open, Value::Object(entries)) => {
                for (key, value) in entries {
                    let element = Element::Field(key.clone());
                    let place = self.below(node, &element)?;
                    let mut child = self.within(&element, place.node, value)?;
                    child.member = true;
                    set.keep(&element, child);
                }
            }
            (Node::List { .. } | Node::Set(_), Value::Array(items)) => {
                for item in items {
                    let element = element_of(self.schema, node, item)?;
                    let place = self.below(node, &element)?;
                    let mut child = self.within(&element, place.node, item)?;
                    child.member = true;
                    if set.children.contains_key(&element) {
                        return Err(ApplyError::Schema(format!(
                            "duplicate entries for key {element}"
                        )));
                    }
                    set.keep(&element, child);
                }
            }
            (Node::Leaf | Node::Open, _) => set.member = true,
            _ => {}
        }
        Ok(set)
    }

    /// [`Self::fields`] of a child; a refusal names the way to it.
    fn within(
        self,
        element: &Element,
        node: Node<'a>,
        value: &Value,
    ) -> Result<FieldSet, ApplyError> {
        self.fields(node, value).map_err(|error| match error {
            ApplyError::Schema(reason) if reason.starts_with(['.', '[']) => {
                ApplyError::Schema(format!("{element}{reason}"))
            }
            ApplyError::Schema(reason) => ApplyError::Schema(format!("{element}: {reason}")),
            other => other,
        })
    }

    fn below(self, node: Node<'a>, element: &Element) -> Result<Place<'a>, ApplyError> {
        below(self.schema, node, element)
            .ok_or_else(|| ApplyError::Schema(format!("{element}: field not declared in schema")))
    }

    /// What `new` changes about `old`.
    pub(super) fn compare(
        self,
        place: Place<'a>,
        old: Option<&Value>,
        new: Option<&Value>,
    ) -> Result<Difference, ApplyError> {
        let nothing = |value: Option<&Value>| value.is_none_or(is_nothing);
        let list = matches!(place.node, Node::List { .. } | Node::Set(_));
        let scalar = |value: Option<&Value>| value.is_some_and(|value| !value.is_object());
        let open = matches!(place.node, Node::Open) && (scalar(old) || scalar(new));
        let leaf =
            open || matches!(place.node, Node::Leaf) || (!list && nothing(old) && nothing(new));
        let mut difference = Difference::default();
        if old.is_some() && old == new {
            return Ok(difference);
        }
        if leaf {
            difference.changed.member = new.is_some() && old != new;
            difference.removed.member = old.is_some() && new.is_none();
            return Ok(difference);
        }
        let (old_children, new_children) = (
            self.children(place.node, old)?,
            self.children(place.node, new)?,
        );
        let elements: BTreeSet<&Element> = old_children.keys().chain(new_children.keys()).collect();
        for element in elements {
            let Some(child) = below(self.schema, place.node, element) else {
                continue;
            };
            let (old, new) = (old_children.get(element), new_children.get(element));
            let child = self.compare(child, old.copied(), new.copied())?;
            difference.changed.keep(element, child.changed);
            difference.removed.keep(element, child.removed);
        }
        difference.changed.member = place.own && old.is_none() && new.is_some();
        difference.removed.member = old.is_some() && new.is_none();
        Ok(difference)
    }

    /// The children of a value by element; of duplicates the first.
    fn children<'v>(
        self,
        node: Node<'a>,
        value: Option<&'v Value>,
    ) -> Result<BTreeMap<Element, &'v Value>, ApplyError> {
        let mut children = BTreeMap::new();
        match value {
            Some(Value::Object(fields)) => {
                for (name, value) in fields {
                    children.insert(Element::Field(name.clone()), value);
                }
            }
            Some(Value::Array(items)) => {
                for item in items {
                    children
                        .entry(element_of(self.schema, node, item)?)
                        .or_insert(item);
                }
            }
            _ => {}
        }
        Ok(children)
    }

    /// `live` with what `config` says.
    pub(super) fn merge(
        self,
        node: Node<'a>,
        live: Option<&Value>,
        config: &Value,
    ) -> Result<Value, ApplyError> {
        match (node, live, config) {
            (
                Node::Fields(_) | Node::Map(_) | Node::Open,
                Some(Value::Object(live)),
                Value::Object(config),
            ) => {
                let mut merged = live.clone();
                for (name, value) in config {
                    let place = self.below(node, &Element::Field(name.clone()))?;
                    let value = self.merge(place.node, live.get(name), value)?;
                    merged.insert(name.clone(), value);
                }
                Ok(Value::Object(merged))
            }
            (Node::List { .. } | Node::Set(_), Some(Value::Array(live)), Value::Array(config)) => {
                Ok(Value::Array(self.merge_list(node, live, config)?))
            }
            (_, _, config) => Ok(config.clone()),
        }
    }

    /// Weaves two lists: shared items in the order of the config, the live ones where they stood.
    fn merge_list(
        self,
        node: Node<'a>,
        live: &[Value],
        config: &[Value],
    ) -> Result<Vec<Value>, ApplyError> {
        let index = |items: &[Value]| -> Result<Vec<Element>, ApplyError> {
            items
                .iter()
                .map(|item| element_of(self.schema, node, item))
                .collect()
        };
        let (live_keys, config_keys) = (index(live)?, index(config)?);
        let in_live = |key: &Element| live_keys.iter().position(|other| other == key);
        let mut shared = config_keys
            .iter()
            .filter(|key| in_live(key).is_some())
            .peekable();
        let mut merged = Vec::with_capacity(live.len().max(config.len()));
        let mut taken: BTreeSet<&Element> = BTreeSet::new();
        let (mut l, mut c) = (0, 0);
        while l < live.len() || c < config.len() {
            if let (Some(live_key), Some(config_key)) = (live_keys.get(l), config_keys.get(c)) {
                let next_shared = shared.peek().copied();
                let elsewhere = live_key != config_key && config_keys.contains(live_key);
                if elsewhere && next_shared.is_some_and(|next| next != live_key) {
                    // Its turn comes when the config names it.
                    l += 1;
                    continue;
                }
            }
            if let Some(live_key) = live_keys.get(l) {
                if !config_keys.contains(live_key) {
                    merged.push(live[l].clone());
                    l += 1;
                    continue;
                }
                if taken.contains(live_key) {
                    l += 1;
                    continue;
                }
            }
            let Some(key) = config_keys.get(c) else {
                continue;
            };
            let place = self.below(node, key)?;
            let present = in_live(key).map(|at| &live[at]);
            merged.push(self.merge(place.node, present, &config[c])?);
            taken.insert(key);
            if shared.peek().is_some_and(|next| *next == key) {
                shared.next();
            }
            if live_keys.get(l) == Some(key) {
                l += 1;
            }
            c += 1;
        }
        Ok(merged)
    }

    /// `value` without the members of `set`; containers that become empty go too.
    pub(super) fn without(
        self,
        node: Node<'a>,
        value: &Value,
        set: &FieldSet,
    ) -> Result<Value, ApplyError> {
        match (node, value) {
            (Node::Fields(_) | Node::Map(_) | Node::Open, Value::Object(fields)) => {
                let mut kept = Map::with_capacity(fields.len());
                for (name, value) in fields {
                    let element = Element::Field(name.clone());
                    let place = below(self.schema, node, &element);
                    if let Some(value) = self.kept(place, value, set.children.get(&element))? {
                        kept.insert(name.clone(), value);
                    }
                }
                Ok(Value::Object(kept))
            }
            (Node::List { .. } | Node::Set(_), Value::Array(items)) => {
                let mut kept = Vec::with_capacity(items.len());
                for item in items {
                    let element = element_of(self.schema, node, item)?;
                    let place = below(self.schema, node, &element);
                    kept.extend(self.kept(place, item, set.children.get(&element))?);
                }
                Ok(Value::Array(kept))
            }
            (_, value) => Ok(value.clone()),
        }
    }

    fn kept(
        self,
        place: Option<Place<'a>>,
        value: &Value,
        remove: Option<&FieldSet>,
    ) -> Result<Option<Value>, ApplyError> {
        match (place, remove) {
            (_, Some(remove)) if remove.member => Ok(None),
            (Some(place), Some(remove)) => {
                let kept = self.without(place.node, value, remove)?;
                Ok(Some(kept).filter(|kept| !is_empty(kept) || is_empty(value)))
            }
            _ => Ok(Some(value.clone())),
        }
    }

    /// The set with every named field on the way to a member made a member too.
    pub(super) fn with_parents(self, node: Node<'a>, set: &FieldSet) -> FieldSet {
        let mut whole = FieldSet {
            member: set.member,
            children: BTreeMap::new(),
        };
        for (element, child) in &set.children {
            let child = match below(self.schema, node, element) {
                Some(place) => {
                    let mut child = self.with_parents(place.node, child);
                    child.member |= matches!(node, Node::Fields(_));
                    child
                }
                None => child.clone(),
            };
            whole.children.insert(element.clone(), child);
        }
        whole
    }
}

/// Null or an empty object: what counts as a leaf where fields are expected.
pub(super) fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(Map::is_empty)
}

fn is_empty(value: &Value) -> bool {
    is_nothing(value) || value.as_array().is_some_and(Vec::is_empty)
}
