//! What the schema says about ownership at one place of an object; changes with the schema's list
//! and map types.

use serde_json::Value;

use super::ApplyError;
use super::set::Element;
use crate::schema::{Field, ListType, Schema, Shape, Text, TypeId};

/// Keys of list items that have a value when they are absent: type, key, JSON text of the value.
const KEY_DEFAULTS: [(&str, &str, &str); 2] = [
    ("io.k8s.api.core.v1.ContainerPort", "protocol", "\"TCP\""),
    ("io.k8s.api.core.v1.ServicePort", "protocol", "\"TCP\""),
];

/// How a value is owned.
#[derive(Clone, Copy)]
pub(super) enum Node<'a> {
    /// As a whole.
    Leaf,
    /// Field by field.
    Fields(TypeId),
    /// Key by key.
    Map(&'a Shape),
    /// Item by item, found by keys.
    List { item: &'a Shape, keys: &'a [Text] },
    /// Item by item, found by value.
    Set(&'a Shape),
    /// As the value is: an object key by key, anything else as a whole.
    Open,
}

/// A place: how its value is owned, and whether the place itself counts as a field when it is new.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) node: Node<'a>,
    /// A map, a pointer or a list item: absent and empty differ.
    pub(super) own: bool,
}

/// The place of a field of an object type.
pub(super) fn of_field<'a>(schema: &'a Schema, field: &'a Field) -> Place<'a> {
    let node = match &field.shape {
        Shape::List(item) => match field.list_type {
            Some(ListType::Map) => Node::List {
                item,
                keys: &field.list_map_keys,
            },
            Some(ListType::Set) => Node::Set(item),
            Some(ListType::Atomic) | None => Node::Leaf,
        },
        _ if field.map_atomic => Node::Leaf,
        shape => of_value(schema, shape),
    };
    let own = match node {
        Node::Map(_) => true,
        Node::Fields(_) => field.pointer,
        Node::Leaf | Node::List { .. } | Node::Set(_) | Node::Open => false,
    };
    Place { node, own }
}

/// The node of a list item or map value.
pub(super) fn of_value<'a>(schema: &'a Schema, shape: &'a Shape) -> Node<'a> {
    match shape {
        Shape::Ref(id) => {
            let ty = schema.get(*id);
            if ty.atomic {
                Node::Leaf
            } else if ty.fields.is_empty() && ty.open {
                Node::Open
            } else if ty.fields.is_empty() {
                Node::Leaf
            } else {
                Node::Fields(*id)
            }
        }
        Shape::Map(value) => Node::Map(value),
        Shape::MapOfLists(_) | Shape::List(_) | Shape::Scalar(_) => Node::Leaf,
    }
}

/// The place of a field that the schema does not name, where such fields may stand.
const OPEN: Place<'static> = Place {
    node: Node::Open,
    own: true,
};

/// The place below `node` that an element leads to; nothing when the schema has no such field.
pub(super) fn below<'a>(
    schema: &'a Schema,
    node: Node<'a>,
    element: &Element,
) -> Option<Place<'a>> {
    match (node, element) {
        (_, Element::Field(name)) => field_below(schema, node, name),
        (Node::List { .. }, Element::Key(_)) | (Node::Set(_), Element::Value(_)) => {
            item_below(schema, node)
        }
        _ => None,
    }
}

/// [`below`] of a field's or map entry's name.
pub(super) fn field_below<'a>(schema: &'a Schema, node: Node<'a>, name: &str) -> Option<Place<'a>> {
    match node {
        Node::Fields(id) => {
            let ty = schema.get(id);
            match ty.field(name) {
                Some(field) => Some(of_field(schema, field)),
                None => ty.open.then_some(OPEN),
            }
        }
        Node::Open => Some(OPEN),
        Node::Map(value) => Some(item(schema, value)),
        Node::Leaf | Node::List { .. } | Node::Set(_) => None,
    }
}

/// The place of every item of a list.
pub(super) fn item_below<'a>(schema: &'a Schema, node: Node<'a>) -> Option<Place<'a>> {
    match node {
        Node::List { item: shape, .. } | Node::Set(shape) => Some(item(schema, shape)),
        Node::Leaf | Node::Fields(_) | Node::Map(_) | Node::Open => None,
    }
}

fn item<'a>(schema: &'a Schema, shape: &'a Shape) -> Place<'a> {
    Place {
        node: of_value(schema, shape),
        own: true,
    }
}

/// The element by which a list item is found.
pub(super) fn element_of(
    schema: &Schema,
    node: Node<'_>,
    item: &Value,
) -> Result<Element, ApplyError> {
    let Node::List { item: shape, keys } = node else {
        return Ok(Element::Value(item.to_string()));
    };
    let default = |key: &str| {
        let Shape::Ref(id) = shape else {
            return None;
        };
        let name = &*schema.get(*id).name;
        let found = KEY_DEFAULTS
            .iter()
            .find(|(ty, known, _)| *ty == name && *known == key);
        let known = found.map(|(_, _, value)| (*value).to_owned());
        known.or_else(|| schema.get(*id).field(key)?.default.clone())
    };
    let mut found: Vec<(String, String)> = Vec::with_capacity(keys.len());
    let mut stated = false;
    for key in keys {
        let value = item.get(&**key).filter(|value| !value.is_null());
        stated |= value.is_some();
        if let Some(value) = value.map(Value::to_string).or_else(|| default(key)) {
            found.push((key.to_string(), value));
        }
    }
    if !stated {
        return Err(ApplyError::Schema(
            "associative list with keys has an element that omits all key fields (at least one \
             must be specified)"
                .to_owned(),
        ));
    }
    found.sort();
    Ok(Element::Key(found))
}
