//! The schema table: what every type of the API looks like, as data. One reason to change: a fact
//! about a field that some part of the API server needs.
//!
//! Decoding, transcoding, patches, server-side apply and OpenAPI all read this table and nothing
//! else, so built-in kinds and (with a [`Schema`] made at run time) custom resources share one
//! path. [`builtin`] is parsed once from a generated text (`cargo xtask codegen`), in about two
//! milliseconds; it is immutable afterwards.

mod build;
mod parse;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::OnceLock;

pub use self::build::Builder;
pub use self::parse::ParseSchemaError;

/// Text of the table: static for built-in types, owned for those made at run time.
pub type Text = Cow<'static, str>;

/// Group, version and kind; the group is empty for core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gvk<'a> {
    pub group: &'a str,
    pub version: &'a str,
    pub kind: &'a str,
}

/// Index of a type in its [`Schema`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(u32);

/// A closed set of types.
#[derive(Debug, Default)]
pub struct Schema {
    types: Vec<Type>,
    /// Sorted by name.
    names: Vec<(Text, TypeId)>,
    /// Sorted by group, version, kind.
    kinds: Vec<(Text, Text, Text, TypeId)>,
}

/// An object type.
#[derive(Debug, Clone)]
pub struct Type {
    /// The definition's name: `io.k8s.api.core.v1.Pod`.
    pub name: Text,
    /// Replaced as a whole by server-side apply.
    pub atomic: bool,
    /// Other fields than those named may stand beside them, with any value (never so for built-in
    /// types).
    pub open: bool,
    /// Sorted by name.
    pub fields: Vec<Field>,
    /// Group, version and kind triples this type is registered as.
    pub kinds: Vec<(Text, Text, Text)>,
    /// Line in the descriptions.
    pub description: u32,
}

/// A field of an object type.
#[derive(Debug, Clone)]
pub struct Field {
    /// Name in JSON.
    pub name: Text,
    pub shape: Shape,
    /// Protobuf number, 0 when the field is in no message.
    pub number: u32,
    /// Numbers of the messages around it, outermost first, where JSON flattens an embedded struct.
    pub inline: Box<[u32]>,
    pub required: bool,
    /// Zero and absent differ: a Go pointer.
    pub pointer: bool,
    /// Left out of JSON when empty.
    pub omit_empty: bool,
    /// How server-side apply merges a list; `None` for other shapes and means atomic for lists.
    pub list_type: Option<ListType>,
    /// Keys of a [`ListType::Map`] list.
    pub list_map_keys: Vec<Text>,
    /// A map that server-side apply replaces as a whole.
    pub map_atomic: bool,
    /// JSON text of the value of an absent field, where that is known (of custom kinds).
    pub default: Option<String>,
    pub patch: PatchStrategy,
    /// Key by which strategic merge patch finds list items.
    pub patch_merge_key: Option<Text>,
    /// Go type in messages where it does not follow from the shape.
    go_type: Option<Text>,
    /// Line in the descriptions.
    pub description: u32,
}

/// What a value looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    Scalar(Scalar),
    Ref(TypeId),
    List(Box<Shape>),
    Map(Box<Shape>),
    /// A map whose values are, in protobuf, messages with one repeated field 1.
    MapOfLists(Box<Shape>),
}

/// A value without fields of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    String,
    Bool,
    Int32,
    Int64,
    Double,
    /// Base64 in JSON.
    Bytes,
    /// RFC 3339, whole seconds.
    Time,
    /// RFC 3339, microseconds.
    MicroTime,
    Quantity,
    IntOrString,
    /// The set of fields of a managed-fields entry.
    FieldsV1,
    /// An object of any kind.
    RawExtension,
    /// Any JSON value, carried as JSON text in protobuf.
    Json,
    /// Any JSON value that is in no message.
    Any,
}

/// `x-kubernetes-list-type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListType {
    Atomic,
    Set,
    Map,
}

/// `x-kubernetes-patch-strategy`; without any, maps merge and lists are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PatchStrategy {
    pub merge: bool,
    /// Maps are replaced too.
    pub replace: bool,
    pub retain_keys: bool,
}

const TABLE: &str = include_str!("table.txt");
const DESCRIPTIONS: &str = include_str!("descriptions.txt");

/// The types of Kubernetes 1.37.
///
/// # Panics
/// When the generated table is damaged, which a test of this crate excludes.
pub fn builtin() -> &'static Schema {
    static BUILTIN: OnceLock<Schema> = OnceLock::new();
    BUILTIN.get_or_init(|| parse::parse(TABLE).expect("the generated table parses (tested)"))
}

impl<'a> Gvk<'a> {
    /// From an object's `apiVersion` (`v1`, `apps/v1`) and `kind`.
    pub fn parse(api_version: &'a str, kind: &'a str) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self {
            group,
            version,
            kind,
        }
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }
}

impl Schema {
    fn index(&mut self) {
        for (at, ty) in self.types.iter_mut().enumerate() {
            ty.fields.sort_by(|a, b| a.name.cmp(&b.name));
            let id = TypeId(u32::try_from(at).unwrap_or(u32::MAX));
            self.names.push((ty.name.clone(), id));
            for (group, version, kind) in &ty.kinds {
                self.kinds
                    .push((group.clone(), version.clone(), kind.clone(), id));
            }
        }
        self.names.sort();
        self.kinds.sort();
    }

    /// The type registered as `gvk`.
    pub fn kind(&self, gvk: Gvk<'_>) -> Option<TypeId> {
        let key = (gvk.group, gvk.version, gvk.kind);
        let at = self
            .kinds
            .binary_search_by(|(group, version, kind, _)| (&**group, &**version, &**kind).cmp(&key))
            .ok()?;
        Some(self.kinds[at].3)
    }

    /// The type with a definition's full name.
    pub fn named(&self, name: &str) -> Option<TypeId> {
        let at = self
            .names
            .binary_search_by(|(known, _)| (**known).cmp(name))
            .ok()?;
        Some(self.names[at].1)
    }

    /// The type behind an id that this schema gave out.
    pub fn get(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }

    /// All types, sorted by name.
    pub fn types(&self) -> impl Iterator<Item = (TypeId, &Type)> {
        self.names.iter().map(|(_, id)| (*id, self.get(*id)))
    }

    /// The Go name of a shape, as decode errors print it.
    pub fn go_type(&self, shape: &Shape) -> String {
        match shape {
            Shape::Ref(id) => self.get(*id).go_name(),
            Shape::List(item) => format!("[]{}", self.go_type(item)),
            Shape::Map(value) | Shape::MapOfLists(value) => {
                format!("map[string]{}", self.go_type(value))
            }
            Shape::Scalar(scalar) => scalar.go_type().to_owned(),
        }
    }

    /// The Go name of a field's type, as decode errors print it.
    pub fn go_field_type(&self, field: &Field) -> String {
        match &field.go_type {
            Some(name) => name.clone().into_owned(),
            None => self.go_type(&field.shape),
        }
    }

    /// The Go name of a value's type inside a field: the field's own, or an item's.
    pub fn go_value_type(&self, field: &Field, shape: &Shape) -> String {
        let own = self.go_field_type(field);
        if *shape == field.shape {
            return own;
        }
        let item = own
            .strip_prefix("[]")
            .or_else(|| own.strip_prefix("map[string]"));
        item.map_or_else(|| self.go_type(shape), str::to_owned)
    }
}

impl Type {
    /// The field with a JSON name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        let at = self
            .fields
            .binary_search_by(|field| (*field.name).cmp(name))
            .ok()?;
        Some(&self.fields[at])
    }

    /// The Go struct's name: the last part of the definition's.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default()
    }

    fn go_name(&self) -> String {
        let mut parts = self.name.rsplit('.');
        let name = parts.next().unwrap_or_default();
        format!("{}.{name}", parts.next().unwrap_or_default())
    }
}

impl Scalar {
    fn go_type(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Bool => "bool",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Double => "float64",
            Self::Bytes => "[]uint8",
            Self::Time => "v1.Time",
            Self::MicroTime => "v1.MicroTime",
            Self::Quantity => "resource.Quantity",
            Self::IntOrString => "intstr.IntOrString",
            Self::FieldsV1 => "v1.FieldsV1",
            Self::RawExtension => "runtime.RawExtension",
            Self::Json | Self::Any => "v1.JSON",
        }
    }
}

/// Descriptions of the built-in types. Half a megabyte of static text that is only touched while
/// one of these lives, so make one, build a document, drop it.
#[derive(Debug)]
pub struct Descriptions {
    lines: Vec<&'static str>,
}

impl Descriptions {
    /// Indexes the lines.
    pub fn load() -> Self {
        Self {
            lines: DESCRIPTIONS.lines().collect(),
        }
    }

    /// The text of a [`Type::description`] or [`Field::description`]; empty when there is none.
    pub fn get(&self, line: u32) -> String {
        let text = self.lines.get(line as usize).copied().unwrap_or_default();
        let text = match text.strip_prefix('=') {
            Some(first) => {
                let first: Option<usize> = first.parse().ok();
                first
                    .and_then(|first| self.lines.get(first))
                    .copied()
                    .unwrap_or_default()
            }
            None => text,
        };
        let mut plain = String::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' if chars.next() == Some('n') => plain.push('\n'),
                other => plain.push(other),
            }
        }
        plain
    }
}
