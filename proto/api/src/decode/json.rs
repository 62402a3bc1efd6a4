//! JSON text to a value that remembers which keys came twice; changes with the JSON we accept.

use std::fmt;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{DecodeError, FINDINGS_MAX, Finding};

/// Parses one JSON value. Nesting deeper than serde_json's 128 is an error.
pub(super) fn parse(text: &[u8]) -> Result<(Value, Vec<Finding>), DecodeError> {
    let error = |error: serde_json::Error| DecodeError::Json(error.to_string());
    let mut reader = Reader::default();
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = (&mut reader)
        .deserialize(&mut deserializer)
        .map_err(error)?;
    deserializer.end().map_err(error)?;
    Ok((value, reader.findings))
}

#[derive(Default)]
struct Reader {
    /// Where the reader is, as text: `spec.ports[0]`.
    path: String,
    findings: Vec<Finding>,
}

impl<'de> DeserializeSeed<'de> for &mut Reader {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        let here = self.path.len();
        loop {
            self.path.push_str(&format!("[{}]", list.len()));
            let item = items.next_element_seed(&mut *self);
            self.path.truncate(here);
            match item? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        let here = self.path.len();
        while let Some(key) = entries.next_key::<String>()? {
            if here != 0 {
                self.path.push('.');
            }
            self.path.push_str(&key);
            if object.contains_key(&key) && self.findings.len() < FINDINGS_MAX {
                self.findings
                    .push(Finding::DuplicateField(self.path.clone()));
            }
            let value = entries.next_value_seed(&mut *self);
            self.path.truncate(here);
            object.insert(key, value?);
        }
        Ok(Value::Object(object))
    }
}
