//! Types of CEL as the checker knows them, and declared sizes as the cost estimate needs them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A type.
#[derive(Debug, Clone, PartialEq)]
pub enum Type {
    /// Known when it is evaluated.
    Dyn,
    /// Null.
    Null,
    /// True or false.
    Bool,
    /// A whole number.
    Int,
    /// A whole number without a sign.
    Uint,
    /// A number.
    Double,
    /// Text.
    Text,
    /// Bytes.
    Bytes,
    /// A span of time.
    Duration,
    /// A point in time.
    Timestamp,
    /// The type of types.
    Type,
    /// A list of one type.
    List(Arc<Type>),
    /// A map: keys, values.
    Map(Arc<Type>, Arc<Type>),
    /// Something or nothing.
    Optional(Arc<Type>),
    /// A value with named fields.
    Object(Arc<ObjectType>),
    /// A type of a library, by name.
    Named(&'static str),
    /// Not decided yet.
    Var(u32),
}

/// A type with named fields.
#[derive(Debug, Clone)]
pub struct ObjectType {
    /// Its name; two objects of one name are of one type.
    pub name: String,
    /// Fields by the name that expressions use.
    pub fields: BTreeMap<String, Type>,
    /// Unknown fields may be selected too.
    pub open: bool,
}

impl PartialEq for ObjectType {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Type {
    /// A list of `item`.
    #[must_use]
    pub fn list(item: Self) -> Self {
        Self::List(Arc::new(item))
    }

    /// A map from texts to `value`.
    #[must_use]
    pub fn map(value: Self) -> Self {
        Self::Map(Arc::new(Self::Text), Arc::new(value))
    }

    pub(super) fn optional(of: Self) -> Self {
        Self::Optional(Arc::new(of))
    }

    /// Whether null may stand for it.
    pub(super) const fn is_nullable(&self) -> bool {
        matches!(
            self,
            Self::Dyn
                | Self::Null
                | Self::Duration
                | Self::Timestamp
                | Self::Object(_)
                | Self::Named(_)
                | Self::Optional(_)
        )
    }

    /// Whether its values have no parts.
    pub(super) const fn is_scalar(&self) -> bool {
        matches!(
            self,
            Self::Bool
                | Self::Int
                | Self::Uint
                | Self::Double
                | Self::Duration
                | Self::Timestamp
                | Self::Null
                | Self::Type
        )
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::Text => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Duration => f.write_str("google.protobuf.Duration"),
            Self::Timestamp => f.write_str("google.protobuf.Timestamp"),
            Self::Type => f.write_str("type"),
            Self::List(item) => write!(f, "list({item})"),
            Self::Map(key, value) => write!(f, "map({key}, {value})"),
            Self::Optional(of) => write!(f, "optional_type({of})"),
            Self::Object(object) => f.write_str(&object.name),
            Self::Named(name) => f.write_str(name),
            Self::Var(_) => f.write_str("dyn"),
        }
    }
}

/// A declared value: its type, and how large it may be.
#[derive(Debug, Clone)]
pub struct Declared {
    /// The type.
    pub kind: Type,
    /// Most characters, items or entries; 0 where that means nothing (as upstream).
    pub elements_max: u64,
    /// Least bytes of it as JSON.
    pub bytes_min: u64,
    /// Fields of an object.
    pub fields: BTreeMap<String, Arc<Declared>>,
    /// Items of a list, values of a map.
    pub items: Option<Arc<Declared>>,
}

impl Declared {
    /// A value without parts.
    #[must_use]
    pub const fn scalar(kind: Type, bytes_min: u64) -> Self {
        Self {
            kind,
            elements_max: 0,
            bytes_min,
            fields: BTreeMap::new(),
            items: None,
        }
    }

    /// Of a type whose size is not known.
    #[must_use]
    pub const fn unsized_of(kind: Type) -> Self {
        let mut declared = Self::scalar(kind, 2);
        declared.elements_max = u64::MAX;
        declared
    }
}
