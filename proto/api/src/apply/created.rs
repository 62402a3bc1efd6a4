//! The fields of a new object as `FieldsV1`, in one walk: most writes with an owner are creations, and
//! the difference to nothing is the object itself. Changes with [`super::walk`].

use serde_json::{Map, Value};

use super::ApplyError;
use super::set::{Element, FieldSet};
use super::shape::{Node, Place, element_of, field_below, item_below};
use super::walk::is_nothing;
use crate::schema::Schema;

/// What a walk leaves out.
#[derive(Clone, Copy)]
pub(super) struct Without<'a> {
    /// Its members say nothing; what is below them may.
    pub(super) never: &'a FieldSet,
    /// Its members and all below them are left out.
    pub(super) ignored: &'a FieldSet,
}

static NONE: FieldSet = FieldSet {
    member: false,
    children: std::collections::BTreeMap::new(),
};

/// `FieldsV1` of everything that `value` sets; nothing when that is nothing.
///
/// # Errors
/// [`ApplyError::Schema`] for a list item without its keys.
pub(super) fn fields(
    schema: &Schema,
    place: Place<'_>,
    value: &Value,
    without: Without<'_>,
) -> Result<Option<Map<String, Value>>, ApplyError> {
    if without.ignored.member {
        return Ok(None);
    }
    let counts = !without.never.member;
    let node = place.node;
    let is_list = matches!(node, Node::List { .. } | Node::Set(_));
    let is_leaf = matches!(node, Node::Leaf)
        || (matches!(node, Node::Open) && !value.is_object())
        || (!is_list && is_nothing(value));
    if is_leaf {
        return Ok(counts.then(Map::new));
    }
    let own = place.own && counts;
    let mut below = Map::new();
    if own {
        below.insert(".".to_owned(), Value::Object(Map::new()));
    }
    match value {
        Value::Object(entries) => {
            let mut names: Vec<&String> = entries.keys().collect();
            names.sort_unstable();
            for name in names {
                let Some(place) = field_below(schema, node, name) else {
                    continue;
                };
                let without = without.below(name);
                if let Some(child) = fields(schema, place, &entries[name], without)? {
                    below.insert(format!("f:{name}"), Value::Object(child));
                }
            }
        }
        Value::Array(items) => {
            for (element, item) in elements(schema, node, items)? {
                let Some(place) = item_below(schema, node) else {
                    continue;
                };
                if let Some(child) = fields(schema, place, item, Without::NOTHING)? {
                    below.insert(element.text(), Value::Object(child));
                }
            }
        }
        _ => {}
    }
    Ok(match (below.len(), own) {
        (0, _) => None,
        (1, true) => Some(Map::new()),
        _ => Some(below),
    })
}

/// The items by what finds them, in order; of duplicates the first.
fn elements<'v>(
    schema: &Schema,
    node: Node<'_>,
    items: &'v [Value],
) -> Result<Vec<(Element, &'v Value)>, ApplyError> {
    let mut elements = Vec::with_capacity(items.len());
    for item in items {
        elements.push((element_of(schema, node, item)?, item));
    }
    // Stable, so that the first of duplicates stays the first.
    elements.sort_by(|a, b| a.0.cmp(&b.0));
    elements.dedup_by(|later, first| later.0 == first.0);
    Ok(elements)
}

impl<'a> Without<'a> {
    const NOTHING: Without<'static> = Without {
        never: &NONE,
        ignored: &NONE,
    };

    fn below(self, name: &str) -> Self {
        if self.never.is_empty() && self.ignored.is_empty() {
            return Self::NOTHING;
        }
        let element = Element::Field(name.to_owned());
        Self {
            never: self.never.children.get(&element).unwrap_or(&NONE),
            ignored: self.ignored.children.get(&element).unwrap_or(&NONE),
        }
    }
}
