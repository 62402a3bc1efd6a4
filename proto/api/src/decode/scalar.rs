//! Scalars: what JSON they accept, what Go would print, what Go says when they are wrong. Changes
//! when a scalar's form does.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use crate::quantity::Amount;
use crate::schema::Scalar;
use crate::types::{MicroTime, Time};

/// Why a scalar is refused.
pub(super) enum Refusal {
    /// The wrong JSON type; the text is what Go calls the value.
    Type(String),
    /// A message of the scalar's own reader.
    Message(String),
}

/// What Go's decoder calls a JSON value.
pub(crate) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The canonical form of `value`, which is not null.
pub(super) fn canonical(scalar: Scalar, value: Value) -> Result<Value, Refusal> {
    match (scalar, value) {
        (Scalar::Json | Scalar::Any | Scalar::FieldsV1 | Scalar::RawExtension, value) => Ok(value),
        (Scalar::String, value @ Value::String(_)) | (Scalar::Bool, value @ Value::Bool(_)) => {
            Ok(value)
        }
        (Scalar::Int32, Value::Number(number)) => {
            integer(&number, i64::from(i32::MIN), i64::from(i32::MAX))
        }
        (Scalar::Int64, Value::Number(number)) => integer(&number, i64::MIN, i64::MAX),
        (Scalar::Double, value @ Value::Number(_)) => Ok(value),
        (Scalar::Bytes, Value::String(text)) => bytes(text),
        (Scalar::Time, Value::String(text)) => {
            let at = instant(&text, "2006-01-02T15:04:05Z07:00")?;
            Ok(Value::String(Time::from_timestamp(at).0))
        }
        (Scalar::MicroTime, Value::String(text)) => {
            let at = instant(&text, "2006-01-02T15:04:05.000000Z07:00")?;
            Ok(Value::String(MicroTime::from_timestamp(at).0))
        }
        (Scalar::Time | Scalar::MicroTime, other) => Err(go_value(&other, "string")),
        (Scalar::Quantity, Value::String(text)) => quantity(&text),
        (Scalar::Quantity, Value::Number(number)) => quantity(&number.to_string()),
        (Scalar::Quantity, other) => quantity(&other.to_string()),
        (Scalar::IntOrString, value @ Value::String(_)) => Ok(value),
        (Scalar::IntOrString, Value::Number(number)) => {
            match integer(&number, i64::from(i32::MIN), i64::from(i32::MAX)) {
                Err(Refusal::Type(found)) => Err(go_value_named(&found, "int32")),
                checked => checked,
            }
        }
        (Scalar::IntOrString, other) => Err(go_value(&other, "int32")),
        (_, other) => Err(Refusal::Type(json_type(&other).to_owned())),
    }
}

/// Whether Go would leave the value out of a field with `omitempty`.
pub(super) fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// What Go reads `null` as inside a list or map.
pub(super) fn zero(scalar: Scalar) -> Value {
    match scalar {
        Scalar::String | Scalar::Bytes => Value::String(String::new()),
        Scalar::Bool => Value::Bool(false),
        Scalar::Int32 | Scalar::Int64 | Scalar::Double | Scalar::IntOrString => {
            Value::Number(0.into())
        }
        Scalar::Quantity => Value::String("0".to_owned()),
        Scalar::Time
        | Scalar::MicroTime
        | Scalar::FieldsV1
        | Scalar::RawExtension
        | Scalar::Json
        | Scalar::Any => Value::Null,
    }
}

fn integer(number: &serde_json::Number, min: i64, max: i64) -> Result<Value, Refusal> {
    match number.as_i64() {
        Some(value) if (min..=max).contains(&value) => Ok(Value::Number(value.into())),
        _ => Err(Refusal::Type(format!("number {number}"))),
    }
}

fn go_value(value: &Value, go_type: &str) -> Refusal {
    go_value_named(json_type(value), go_type)
}

fn go_value_named(found: &str, go_type: &str) -> Refusal {
    Refusal::Message(format!(
        "json: cannot unmarshal {found} into Go value of type {go_type}"
    ))
}

fn bytes(text: String) -> Result<Value, Refusal> {
    let bare: String = match text.contains(['\r', '\n']) {
        true => text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect(),
        false => text,
    };
    match STANDARD.decode(&bare) {
        Ok(_) => Ok(Value::String(bare)),
        Err(error) => {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _)
                | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => {
                    bare.len() / 4 * 4
                }
            };
            Err(Refusal::Message(format!(
                "illegal base64 data at input byte {at}"
            )))
        }
    }
}

fn quantity(text: &str) -> Result<Value, Refusal> {
    match text.parse::<Amount>() {
        Ok(amount) => Ok(Value::String(amount.to_string())),
        Err(error) => Err(Refusal::Message(error.to_string())),
    }
}

fn instant(text: &str, layout: &str) -> Result<Timestamp, Refusal> {
    text.parse().map_err(|_error: jiff::Error| {
        let quoted = Value::String(text.to_owned());
        Refusal::Message(format!(
            "parsing time {quoted} as \"{layout}\": cannot parse {quoted} as \"2006\""
        ))
    })
}
