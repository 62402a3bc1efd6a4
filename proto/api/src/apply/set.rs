//! Sets of fields and their JSON form `FieldsV1`; changes when that form does.
//!
//! A set is a tree. A node that is a member says "this field"; its children say which fields
//! below. `{"f:a": {".": {}, "f:b": {}}}` holds `.a` and `.a.b`, `{"f:a": {"f:b": {}}}` only `.a.b`.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

/// One step of a path. Values are JSON text, so that they compare and sort.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// `f:name`: a field, or a key of a map.
    Field(String),
    /// `k:{"name":"a"}`: a list item by its keys, sorted by name.
    Key(Vec<(String, String)>),
    /// `v:"a"`: an item of a set by its value.
    Value(String),
    /// `i:0`: an item by its index.
    Index(u64),
}

/// A set of fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// Whether the node itself is in the set; of no meaning at the root.
    pub member: bool,
    pub children: BTreeMap<Element, FieldSet>,
}

/// Why a value is no `FieldsV1`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fieldsV1: {0:?} is no field, key, value or index")]
pub struct FieldsError(pub String);

impl Element {
    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        Some(match kind {
            "f" => Self::Field(rest.to_owned()),
            "v" => Self::Value(serde_json::from_str::<Value>(rest).ok()?.to_string()),
            "i" => Self::Index(rest.parse().ok()?),
            "k" => {
                let keys: BTreeMap<String, Value> = serde_json::from_str(rest).ok()?;
                Self::Key(
                    keys.into_iter()
                        .map(|(key, value)| (key, value.to_string()))
                        .collect(),
                )
            }
            _ => return None,
        })
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Value(value) => format!("v:{value}"),
            Self::Index(index) => format!("i:{index}"),
            Self::Key(keys) => {
                let keys: Vec<String> = keys
                    .iter()
                    .map(|(key, value)| format!("{}:{value}", Value::String(key.clone())))
                    .collect();
                format!("k:{{{}}}", keys.join(","))
            }
        }
    }
}

/// As conflicts print it: `.name`, `[name="a"]`, `[="a"]`, `[0]`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
            Self::Key(keys) => {
                let keys: Vec<String> = keys
                    .iter()
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect();
                write!(f, "[{}]", keys.join(","))
            }
        }
    }
}

impl FieldSet {
    /// The set of a path of field names (`["metadata", "name"]`).
    #[must_use]
    pub fn with(mut self, path: &[&str]) -> Self {
        let mut node = &mut self;
        for name in path {
            node = node
                .children
                .entry(Element::Field((*name).to_owned()))
                .or_default();
        }
        node.member = true;
        self
    }

    /// Reads `FieldsV1`.
    ///
    /// # Errors
    /// [`FieldsError`] for a key that is none of the four forms.
    pub fn from_fields(fields: &Value) -> Result<Self, FieldsError> {
        let mut set = Self::default();
        for (key, below) in fields.as_object().into_iter().flatten() {
            if key == "." {
                set.member = true;
                continue;
            }
            let element = Element::parse(key).ok_or_else(|| FieldsError(key.clone()))?;
            let mut child = Self::from_fields(below)?;
            child.member |= child.children.is_empty();
            set.children.insert(element, child);
        }
        Ok(set)
    }

    /// Writes `FieldsV1`.
    pub fn to_fields(&self) -> Value {
        let mut fields = Map::new();
        for (element, child) in &self.children {
            let mut below = child.to_fields();
            if let (true, false, Value::Object(map)) =
                (child.member, child.children.is_empty(), &mut below)
            {
                map.shift_insert(0, ".".to_owned(), Value::Object(Map::new()));
            }
            fields.insert(element.text(), below);
        }
        Value::Object(fields)
    }

    /// Whether no field is in the set.
    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// Fields in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut children = self.children.clone();
        for (element, theirs) in &other.children {
            let ours = children.entry(element.clone()).or_default();
            *ours = ours.union(theirs);
        }
        Self {
            member: self.member || other.member,
            children,
        }
    }

    /// Fields in this set and not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.zip(other, |ours, theirs| ours && !theirs)
    }

    /// Fields in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.zip(other, |ours, theirs| ours && theirs)
    }

    /// Fields of this set that are not, and do not lie below, a member of the other.
    #[must_use]
    pub fn outside(&self, other: &Self) -> Self {
        let mut set = Self {
            member: self.member,
            children: BTreeMap::new(),
        };
        for (element, ours) in &self.children {
            match other.children.get(element) {
                Some(theirs) if theirs.member => {}
                Some(theirs) => set.keep(element, ours.outside(theirs)),
                None => set.keep(element, ours.clone()),
            }
        }
        set
    }

    fn zip(&self, other: &Self, member: fn(bool, bool) -> bool) -> Self {
        let none = Self::default();
        let mut set = Self {
            member: member(self.member, other.member),
            children: BTreeMap::new(),
        };
        for (element, ours) in &self.children {
            let theirs = other.children.get(element).unwrap_or(&none);
            set.keep(element, ours.zip(theirs, member));
        }
        set
    }

    /// Adds a child unless it says nothing.
    pub(super) fn keep(&mut self, element: &Element, child: Self) {
        if child.member || !child.children.is_empty() {
            self.children.insert(element.clone(), child);
        }
    }

    /// The members as text, in order.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect(&mut String::new(), &mut paths);
        paths
    }

    fn collect(&self, prefix: &mut String, paths: &mut Vec<String>) {
        for (element, child) in &self.children {
            let len = prefix.len();
            prefix.push_str(&element.to_string());
            if child.member {
                paths.push(prefix.clone());
            }
            child.collect(prefix, paths);
            prefix.truncate(len);
        }
    }
}
