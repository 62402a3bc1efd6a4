//! Messages to values. Changes with the wire form of a special type.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Number, Value};

use super::wire::{Payload, Reader};
use super::{MAGIC, TranscodeError};
use crate::schema::{Field, Scalar, Schema, Shape, TypeId};
use crate::types::{MicroTime, Time};

/// Reads the message of an object type, at most `depth` messages deep.
pub(super) fn object(
    schema: &Schema,
    id: TypeId,
    message: &[u8],
    depth: usize,
) -> Result<Map<String, Value>, TranscodeError> {
    let mut object = Map::new();
    Read { schema }.fields(id, &[], message, &mut object, depth)?;
    Ok(object)
}

struct Read<'a> {
    schema: &'a Schema,
}

impl Read<'_> {
    /// Adds the fields of `message`, which is the one that `inline` leads to, to `object`.
    fn fields(
        &self,
        id: TypeId,
        inline: &[u32],
        message: &[u8],
        object: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), TranscodeError> {
        let depth = depth.checked_sub(1).ok_or(TranscodeError::Depth)?;
        let ty = self.schema.get(id);
        let mut reader = Reader::new(message, ty.short_name());
        while let Some((number, payload)) = reader.field()? {
            let own = ty
                .fields
                .iter()
                .find(|f| f.number == number && *f.inline == *inline);
            if let Some(field) = own {
                self.field(field, payload, object, depth)?;
                continue;
            }
            let mut embedded = inline.to_vec();
            embedded.push(number);
            if ty
                .fields
                .iter()
                .any(|field| field.inline.starts_with(&embedded))
            {
                let message = payload.bytes(ty.short_name())?;
                self.fields(id, &embedded, message, object, depth)?;
            }
        }
        Ok(())
    }

    fn field(
        &self,
        field: &Field,
        payload: Payload<'_>,
        object: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), TranscodeError> {
        let name = &*field.name;
        match &field.shape {
            Shape::List(item) => {
                let list = object
                    .entry(name)
                    .or_insert_with(|| Value::Array(Vec::new()));
                let Value::Array(list) = list else {
                    return Ok(());
                };
                match (&**item, payload) {
                    (Shape::Scalar(Scalar::Int32 | Scalar::Int64), Payload::Bytes(packed)) => {
                        let mut packed = Reader::new(packed, name);
                        while !packed.is_empty() {
                            list.push(packed.varint()?.cast_signed().into());
                        }
                    }
                    _ => list.push(self.value(item, payload, name, depth)?),
                }
            }
            Shape::Map(shape) => {
                let (key, entry) = entry(payload, name, |payload| match payload {
                    Some(payload) => self.value(shape, payload, name, depth),
                    None => self.absent(shape, name, depth),
                })?;
                insert(object, name, key, entry);
            }
            Shape::MapOfLists(item) => {
                let (key, entry) = entry(payload, name, |payload| {
                    let mut list = Vec::new();
                    if let Some(payload) = payload {
                        let mut reader = Reader::new(payload.bytes(name)?, name);
                        while let Some((number, payload)) = reader.field()? {
                            if number == 1 {
                                list.push(self.value(item, payload, name, depth)?);
                            }
                        }
                    }
                    Ok(Value::Array(list))
                })?;
                insert(object, name, key, entry);
            }
            shape @ (Shape::Ref(_) | Shape::Scalar(_)) => {
                let value = self.value(shape, payload, name, depth)?;
                match (object.get_mut(name), value) {
                    // A message that comes twice is merged.
                    (Some(Value::Object(present)), Value::Object(more)) => present.extend(more),
                    (_, value) => {
                        object.insert(name.to_owned(), value);
                    }
                }
            }
        }
        Ok(())
    }

    /// What a map entry without a value holds.
    fn absent(&self, shape: &Shape, name: &str, depth: usize) -> Result<Value, TranscodeError> {
        match shape {
            Shape::Scalar(Scalar::Bool | Scalar::Int32 | Scalar::Int64) => {
                self.value(shape, Payload::Varint(0), name, depth)
            }
            _ => self.value(shape, Payload::Bytes(&[]), name, depth),
        }
    }

    fn value(
        &self,
        shape: &Shape,
        payload: Payload<'_>,
        name: &str,
        depth: usize,
    ) -> Result<Value, TranscodeError> {
        match shape {
            Shape::Ref(id) => {
                let mut object = Map::new();
                self.fields(*id, &[], payload.bytes(name)?, &mut object, depth)?;
                Ok(Value::Object(object))
            }
            Shape::Scalar(scalar) => self.scalar(*scalar, payload, name, depth),
            Shape::List(_) | Shape::Map(_) | Shape::MapOfLists(_) => Err(TranscodeError::Content {
                field: name.to_owned(),
                problem: "a collection inside a collection",
            }),
        }
    }

    fn scalar(
        &self,
        scalar: Scalar,
        payload: Payload<'_>,
        name: &str,
        depth: usize,
    ) -> Result<Value, TranscodeError> {
        Ok(match scalar {
            Scalar::String => Value::String(payload.text(name)?),
            Scalar::Bool => Value::Bool(payload.int(name)? != 0),
            Scalar::Int32 | Scalar::Int64 => Value::Number(payload.int(name)?.into()),
            Scalar::Double => {
                Number::from_f64(payload.double(name)?).map_or(Value::Null, Value::Number)
            }
            Scalar::Bytes => Value::String(STANDARD.encode(payload.bytes(name)?)),
            Scalar::Time => time(payload.bytes(name)?, name, |at| Time::from_timestamp(at).0)?,
            Scalar::MicroTime => time(payload.bytes(name)?, name, |at| {
                MicroTime::from_timestamp(at).0
            })?,
            Scalar::Quantity => {
                let mut text = String::new();
                let mut reader = Reader::new(payload.bytes(name)?, name);
                while let Some((number, payload)) = reader.field()? {
                    if number == 1 {
                        text = payload.text(name)?;
                    }
                }
                Value::String(if text.is_empty() {
                    "0".to_owned()
                } else {
                    text
                })
            }
            Scalar::IntOrString => int_or_string(payload.bytes(name)?, name)?,
            Scalar::FieldsV1 | Scalar::Json | Scalar::RawExtension => {
                self.raw(payload.bytes(name)?, name, depth)?
            }
            Scalar::Any => Value::Null,
        })
    }

    /// JSON text, or an embedded body, in field 1.
    fn raw(&self, message: &[u8], name: &str, depth: usize) -> Result<Value, TranscodeError> {
        let mut raw = &[][..];
        let mut reader = Reader::new(message, name);
        while let Some((number, payload)) = reader.field()? {
            if number == 1 {
                raw = payload.bytes(name)?;
            }
        }
        if raw.is_empty() {
            return Ok(Value::Null);
        }
        if raw.starts_with(MAGIC) {
            return super::nested_to_json(self.schema, raw, depth);
        }
        serde_json::from_slice(raw).map_err(|_error| TranscodeError::Content {
            field: name.to_owned(),
            problem: "raw content that is no JSON",
        })
    }
}

/// Key and value of a map entry; `value` gets nothing when the entry has no value.
fn entry(
    payload: Payload<'_>,
    name: &str,
    value: impl Fn(Option<Payload<'_>>) -> Result<Value, TranscodeError>,
) -> Result<(String, Value), TranscodeError> {
    let mut reader = Reader::new(payload.bytes(name)?, name);
    let (mut key, mut found) = (String::new(), None);
    while let Some((number, payload)) = reader.field()? {
        match number {
            1 => key = payload.text(name)?,
            2 => found = Some(payload),
            _ => {}
        }
    }
    Ok((key, value(found)?))
}

fn insert(object: &mut Map<String, Value>, name: &str, key: String, value: Value) {
    let map = object
        .entry(name)
        .or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(map) = map {
        map.insert(key, value);
    }
}

/// Seconds and nanoseconds; both zero is no time at all.
fn time(
    message: &[u8],
    name: &str,
    text: impl Fn(Timestamp) -> String,
) -> Result<Value, TranscodeError> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(message, name);
    while let Some((number, payload)) = reader.field()? {
        match number {
            1 => seconds = payload.int(name)?,
            2 => nanos = payload.int(name)?,
            _ => {}
        }
    }
    if (seconds, nanos) == (0, 0) {
        return Ok(Value::Null);
    }
    let out_of_range = || TranscodeError::Content {
        field: name.to_owned(),
        problem: "a time outside the years 1 to 9999",
    };
    let nanos = i32::try_from(nanos).map_err(|_big| out_of_range())?;
    let at = Timestamp::new(seconds, nanos).map_err(|_range| out_of_range())?;
    Ok(Value::String(text(at)))
}

fn int_or_string(message: &[u8], name: &str) -> Result<Value, TranscodeError> {
    let (mut kind, mut number_value, mut text) = (0, 0, String::new());
    let mut reader = Reader::new(message, name);
    while let Some((number, payload)) = reader.field()? {
        match number {
            1 => kind = payload.int(name)?,
            2 => number_value = payload.int(name)?,
            3 => text = payload.text(name)?,
            _ => {}
        }
    }
    Ok(if kind == 1 {
        Value::String(text)
    } else {
        Value::Number(number_value.into())
    })
}
