//! Reads the table's text; changes with its format, together with the generator.
//!
//! ```text
//! T <definition> [atomic]                          a type; `a.` stands for io.k8s.api.,
//!                                                  `m.` for io.k8s.apimachinery.pkg.
//! K <group>,<version>,<kind>                       it is that kind
//! F <json> <shape> <number> <flags> [key=value]..  a field, sorted by json name
//! ```
//!
//! - shape: a scalar's name, `&definition`, `[]shape`, `{}shape`, `{}w[]shape` (map of lists)
//! - number: protobuf number, `outer/inner` inside embedded structs, 0 for none
//! - flags: `r` required, `p` pointer, `o` omitted when empty, `-` none
//! - keys: `lt` list type, `lk` list map keys, `mt` map type, `ps` patch strategy, `pk` patch merge
//!   key, `go` Go type

use std::collections::HashMap;

use super::{Field, ListType, PatchStrategy, Scalar, Schema, Shape, Text, Type, TypeId};

/// Why a table's text is no schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the schema table: {reason}: {text}")]
pub struct ParseSchemaError {
    line: usize,
    reason: &'static str,
    text: String,
}

/// Parses a whole table. Field and type descriptions are the T and F lines, counted in order.
pub(super) fn parse(table: &'static str) -> Result<Schema, ParseSchemaError> {
    let mut ids = HashMap::new();
    for name in table.lines().filter_map(|line| line.strip_prefix("T ")) {
        let name = name.strip_suffix(" atomic").unwrap_or(name);
        let id = TypeId(u32::try_from(ids.len()).unwrap_or(u32::MAX));
        ids.insert(name, id);
    }
    let mut schema = Schema::default();
    let mut description = 0;
    for (number, line) in table.lines().enumerate() {
        let error = |reason| ParseSchemaError {
            line: number + 1,
            reason,
            text: line.to_owned(),
        };
        let (kind, rest) = line.split_once(' ').ok_or_else(|| error("no separator"))?;
        match (kind, schema.types.last_mut()) {
            ("T", _) => {
                let (name, atomic) = match rest.strip_suffix(" atomic") {
                    Some(name) => (name, true),
                    None => (rest, false),
                };
                schema.types.push(Type {
                    name: full_name(name),
                    atomic,
                    open: false,
                    fields: Vec::new(),
                    kinds: Vec::new(),
                    description,
                });
                description += 1;
            }
            ("K", Some(ty)) => ty.kinds.push(triple(rest).ok_or_else(|| error("no kind"))?),
            ("F", Some(ty)) => {
                ty.fields
                    .push(field(rest, &ids, description).map_err(error)?);
                description += 1;
            }
            _ => return Err(error("neither T, K nor F")),
        }
    }
    schema.index();
    Ok(schema)
}

fn full_name(name: &'static str) -> Text {
    if let Some(rest) = name.strip_prefix("a.") {
        return format!("io.k8s.api.{rest}").into();
    }
    match name.strip_prefix("m.") {
        Some(rest) => format!("io.k8s.apimachinery.pkg.{rest}").into(),
        None => name.into(),
    }
}

fn triple(text: &'static str) -> Option<(Text, Text, Text)> {
    let mut parts = text.split(',').map(Text::from);
    Some((parts.next()?, parts.next()?, parts.next()?))
}

fn field(
    text: &'static str,
    ids: &HashMap<&'static str, TypeId>,
    description: u32,
) -> Result<Field, &'static str> {
    let mut words = text.split(' ');
    let name = words.next().ok_or("no name")?;
    let shape = shape(words.next().ok_or("no shape")?, ids)?;
    let mut path = Vec::new();
    for part in words.next().ok_or("no number")?.split('/') {
        path.push(part.parse().map_err(|_not_a_number| "no number")?);
    }
    let number = path.pop().unwrap_or(0);
    let flags = words.next().ok_or("no flags")?;
    let mut field = Field {
        name: name.into(),
        shape,
        number,
        inline: path.into(),
        required: flags.contains('r'),
        pointer: flags.contains('p'),
        omit_empty: flags.contains('o'),
        list_type: None,
        list_map_keys: Vec::new(),
        map_atomic: false,
        default: None,
        patch: PatchStrategy::default(),
        patch_merge_key: None,
        go_type: None,
        description,
    };
    for word in words {
        let (key, value) = word.split_once('=').ok_or("a key without a value")?;
        attribute(&mut field, key, value)?;
    }
    Ok(field)
}

fn attribute(field: &mut Field, key: &str, value: &'static str) -> Result<(), &'static str> {
    match (key, value) {
        ("lt", "atomic") => field.list_type = Some(ListType::Atomic),
        ("lt", "set") => field.list_type = Some(ListType::Set),
        ("lt", "map") => field.list_type = Some(ListType::Map),
        ("lk", keys) => field.list_map_keys = keys.split(',').map(Text::from).collect(),
        ("mt", map_type) => field.map_atomic = map_type == "atomic",
        ("ps", strategies) => {
            for strategy in strategies.split(',') {
                match strategy {
                    "merge" => field.patch.merge = true,
                    "retainKeys" => field.patch.retain_keys = true,
                    "replace" => field.patch.replace = true,
                    _ => return Err("an unknown patch strategy"),
                }
            }
        }
        ("pk", name) => field.patch_merge_key = Some(name.into()),
        ("go", name) => field.go_type = Some(name.into()),
        _ => return Err("an unknown key"),
    }
    Ok(())
}

fn shape(text: &str, ids: &HashMap<&'static str, TypeId>) -> Result<Shape, &'static str> {
    if let Some(name) = text.strip_prefix('&') {
        return ids
            .get(name)
            .map(|id| Shape::Ref(*id))
            .ok_or("an unknown type");
    }
    if let Some(item) = text.strip_prefix("[]") {
        return Ok(Shape::List(Box::new(shape(item, ids)?)));
    }
    if let Some(value) = text.strip_prefix("{}w[]") {
        return Ok(Shape::MapOfLists(Box::new(shape(value, ids)?)));
    }
    if let Some(value) = text.strip_prefix("{}") {
        return Ok(Shape::Map(Box::new(shape(value, ids)?)));
    }
    Ok(Shape::Scalar(match text {
        "string" => Scalar::String,
        "bool" => Scalar::Bool,
        "i32" => Scalar::Int32,
        "i64" => Scalar::Int64,
        "f64" => Scalar::Double,
        "bytes" => Scalar::Bytes,
        "time" => Scalar::Time,
        "microtime" => Scalar::MicroTime,
        "quantity" => Scalar::Quantity,
        "intorstring" => Scalar::IntOrString,
        "fields" => Scalar::FieldsV1,
        "raw" => Scalar::RawExtension,
        "json" => Scalar::Json,
        "any" => Scalar::Any,
        _ => return Err("an unknown shape"),
    }))
}
