//! Values to messages, byte for byte as upstream's generated code. Changes with the wire form of a
//! special type.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use super::TranscodeError;
use super::wire::Writer;
use crate::schema::{Field, Scalar, Schema, Shape, Type, TypeId};

/// Writes the message of an object type.
pub(super) fn object(
    schema: &Schema,
    id: TypeId,
    value: &Value,
) -> Result<Vec<u8>, TranscodeError> {
    let mut writer = Writer::default();
    Write { schema }.fields(schema.get(id), &[], value, &mut writer)?;
    Ok(writer.out)
}

struct Write<'a> {
    schema: &'a Schema,
}

/// What a message holds under one number.
enum Part<'a> {
    Field(&'a Field),
    Embedded,
}

impl Write<'_> {
    fn fields(
        &self,
        ty: &Type,
        inline: &[u32],
        value: &Value,
        out: &mut Writer,
    ) -> Result<(), TranscodeError> {
        let mut parts = BTreeMap::new();
        for field in ty.fields.iter().filter(|field| field.number != 0) {
            match field.inline.strip_prefix(inline) {
                Some([]) => parts.insert(field.number, Part::Field(field)),
                Some([embedded, ..]) => parts.insert(*embedded, Part::Embedded),
                None => None,
            };
        }
        for (number, part) in parts {
            match part {
                Part::Field(field) => self.field(field, value.get(&*field.name), out)?,
                Part::Embedded => {
                    let path: Vec<u32> = inline.iter().copied().chain([number]).collect();
                    let mut message = Writer::default();
                    self.fields(ty, &path, value, &mut message)?;
                    out.bytes(number, &message.out);
                }
            }
        }
        Ok(())
    }

    fn field(
        &self,
        field: &Field,
        value: Option<&Value>,
        out: &mut Writer,
    ) -> Result<(), TranscodeError> {
        let (name, number) = (&*field.name, field.number);
        let value = value.filter(|value| !value.is_null());
        match (&field.shape, value) {
            (Shape::List(_) | Shape::Map(_) | Shape::MapOfLists(_), None) => Ok(()),
            (Shape::List(item), Some(value)) => {
                let items = value.as_array().ok_or_else(|| mismatch(name, "list"))?;
                items
                    .iter()
                    .try_for_each(|value| self.value(item, number, Some(value), name, out))
            }
            (Shape::Map(shape), Some(value)) => write_map(field, value, out, |value, entry| {
                self.value(shape, 2, Some(value), name, entry)
            }),
            (Shape::MapOfLists(item), Some(value)) => {
                write_map(field, value, out, |value, entry| {
                    let items = value.as_array().ok_or_else(|| mismatch(name, "list"))?;
                    let mut list = Writer::default();
                    for value in items {
                        self.value(item, 1, Some(value), name, &mut list)?;
                    }
                    entry.bytes(2, &list.out);
                    Ok(())
                })
            }
            (Shape::Scalar(Scalar::Bytes), None) => Ok(()),
            (_, None) if field.pointer => Ok(()),
            (shape, value) => self.value(shape, number, value, name, out),
        }
    }

    /// Writes a value, or the zero value for nothing.
    fn value(
        &self,
        shape: &Shape,
        number: u32,
        value: Option<&Value>,
        name: &str,
        out: &mut Writer,
    ) -> Result<(), TranscodeError> {
        match shape {
            Shape::Ref(id) => {
                let mut message = Writer::default();
                self.fields(
                    self.schema.get(*id),
                    &[],
                    value.unwrap_or(&Value::Null),
                    &mut message,
                )?;
                out.bytes(number, &message.out);
                Ok(())
            }
            Shape::Scalar(scalar) => write_scalar(*scalar, number, value, name, out),
            Shape::List(_) | Shape::Map(_) | Shape::MapOfLists(_) => {
                Err(mismatch(name, "collection inside a collection"))
            }
        }
    }
}

/// Writes a map's entries sorted by key.
fn write_map(
    field: &Field,
    value: &Value,
    out: &mut Writer,
    write: impl Fn(&Value, &mut Writer) -> Result<(), TranscodeError>,
) -> Result<(), TranscodeError> {
    let entries = value
        .as_object()
        .ok_or_else(|| mismatch(&field.name, "map"))?;
    let sorted: BTreeMap<&String, &Value> = entries.iter().collect();
    for (key, value) in sorted {
        let mut entry = Writer::default();
        entry.bytes(1, key.as_bytes());
        write(value, &mut entry)?;
        out.bytes(field.number, &entry.out);
    }
    Ok(())
}

fn mismatch(field: &str, expected: &'static str) -> TranscodeError {
    TranscodeError::Value {
        field: field.to_owned(),
        expected,
    }
}

fn write_scalar(
    scalar: Scalar,
    number: u32,
    value: Option<&Value>,
    name: &str,
    out: &mut Writer,
) -> Result<(), TranscodeError> {
    let text = |expected| match value {
        None => Ok(""),
        Some(value) => value.as_str().ok_or_else(|| mismatch(name, expected)),
    };
    match scalar {
        Scalar::String => out.bytes(number, text("string")?.as_bytes()),
        Scalar::Bool => {
            let set = value.map_or(Some(false), Value::as_bool);
            out.int(
                number,
                i64::from(set.ok_or_else(|| mismatch(name, "boolean"))?),
            );
        }
        Scalar::Int32 | Scalar::Int64 => {
            let value = value.map_or(Some(0), Value::as_i64);
            out.int(number, value.ok_or_else(|| mismatch(name, "integer"))?);
        }
        Scalar::Double => {
            let value = value.map_or(Some(0.0), Value::as_f64);
            out.double(number, value.ok_or_else(|| mismatch(name, "number"))?);
        }
        Scalar::Bytes => {
            let bytes = STANDARD.decode(text("base64 text")?);
            out.bytes(
                number,
                &bytes.map_err(|_error| mismatch(name, "base64 text"))?,
            );
        }
        Scalar::Time | Scalar::MicroTime => {
            let mut message = Writer::default();
            let text = text("time")?;
            if !text.is_empty() {
                let at: Timestamp = text
                    .parse()
                    .map_err(|_error: jiff::Error| mismatch(name, "time"))?;
                message.int(1, at.as_second());
                message.int(2, i64::from(at.subsec_nanosecond()));
            }
            out.bytes(number, &message.out);
        }
        Scalar::Quantity => {
            let mut message = Writer::default();
            let text = text("quantity")?;
            message.bytes(
                1,
                if text.is_empty() {
                    b"0"
                } else {
                    text.as_bytes()
                },
            );
            out.bytes(number, &message.out);
        }
        Scalar::IntOrString => out.bytes(number, &int_or_string(value, name)?),
        Scalar::FieldsV1 | Scalar::RawExtension | Scalar::Json => {
            let mut message = Writer::default();
            if let Some(value) = value {
                message.bytes(1, value.to_string().as_bytes());
            }
            out.bytes(number, &message.out);
        }
        Scalar::Any => {}
    }
    Ok(())
}

fn int_or_string(value: Option<&Value>, name: &str) -> Result<Vec<u8>, TranscodeError> {
    let (kind, int, text) = match value {
        None => (0, 0, ""),
        Some(Value::String(text)) => (1, 0, text.as_str()),
        Some(value) => (
            0,
            value
                .as_i64()
                .ok_or_else(|| mismatch(name, "integer or string"))?,
            "",
        ),
    };
    let mut message = Writer::default();
    message.int(1, kind);
    message.int(2, int);
    message.bytes(3, text.as_bytes());
    Ok(message.out)
}
