//! Walks a value along the schema table: types, unknown fields, canonical form. Changes when what
//! Go's decoder does with a value does.

use serde_json::{Map, Value};

use super::scalar::{self, Refusal};
use super::{DecodeError, FINDINGS_MAX, Finding};
use crate::schema::{Field, Scalar, Schema, Shape, TypeId};

/// Checks `value` against a type and brings it into canonical form; findings are unknown fields,
/// which are dropped. Use it for parsed bodies and for what patches make.
///
/// # Errors
/// [`DecodeError::Type`] or [`DecodeError::Scalar`] for the first value of a wrong type.
pub fn check(
    schema: &Schema,
    type_id: TypeId,
    value: Value,
) -> Result<(Value, Vec<Finding>), DecodeError> {
    let mut walk = Walk {
        schema,
        path: Vec::new(),
        findings: Vec::new(),
    };
    let Value::Object(fields) = value else {
        return Err(DecodeError::NotAnObject {
            found: scalar::json_type(&value),
            go_type: schema.go_type(&Shape::Ref(type_id)),
        });
    };
    let object = walk.object(type_id, fields)?;
    Ok((Value::Object(object.fields), walk.findings))
}

/// One step from the root.
enum Step<'a> {
    Field(&'a str),
    Key(String),
    Index(usize),
}

struct Walk<'a> {
    schema: &'a Schema,
    path: Vec<Step<'a>>,
    findings: Vec<Finding>,
}

/// A canonical object.
struct Object {
    fields: Map<String, Value>,
    /// Every field has its zero value, so Go could not tell the object from an absent one.
    zero: bool,
}

impl<'a> Walk<'a> {
    fn object(
        &mut self,
        type_id: TypeId,
        fields: Map<String, Value>,
    ) -> Result<Object, DecodeError> {
        let ty = self.schema.get(type_id);
        if ty.fields.is_empty() {
            return Ok(Object {
                zero: fields.is_empty(),
                fields,
            });
        }
        let mut object = Object {
            fields: Map::with_capacity(fields.len()),
            zero: true,
        };
        for (name, value) in fields {
            let Some(field) = ty.field(&name) else {
                self.unknown(&name);
                continue;
            };
            self.path.push(Step::Field(&field.name));
            let value = self.field(
                Owner {
                    go_struct: ty.short_name(),
                    field,
                },
                value,
            )?;
            self.path.pop();
            if let Some(value) = value {
                object.zero &= !field.pointer && is_zero(field, &value);
                object.fields.insert(name, value);
            }
        }
        for field in &ty.fields {
            if let Some(zero) = always_written(field) {
                object.fields.entry(&*field.name).or_insert(zero);
            }
        }
        Ok(object)
    }

    /// The field's canonical value, or nothing when it means the same as absent.
    fn field(&mut self, owner: Owner<'a>, value: Value) -> Result<Option<Value>, DecodeError> {
        let field = owner.field;
        if value.is_null() {
            return Ok(None);
        }
        let value = match (&field.shape, value) {
            (Shape::Ref(id), Value::Object(fields)) if !field.pointer => {
                let object = self.object(*id, fields)?;
                return Ok((!object.zero).then_some(Value::Object(object.fields)));
            }
            (shape, value) => self.value(shape, value, owner)?,
        };
        let map = matches!(field.shape, Shape::Map(_) | Shape::MapOfLists(_));
        let absent = !field.pointer && (field.omit_empty || map) && is_zero(field, &value);
        Ok((!absent && !value.is_null()).then_some(value))
    }

    fn value(
        &mut self,
        shape: &Shape,
        value: Value,
        owner: Owner<'a>,
    ) -> Result<Value, DecodeError> {
        match (shape, value) {
            (Shape::Scalar(scalar), Value::Null) => Ok(scalar::zero(*scalar)),
            (Shape::Scalar(scalar), value) => {
                scalar::canonical(*scalar, value).map_err(|refusal| match refusal {
                    Refusal::Type(found) => self.mismatch(found, shape, owner),
                    Refusal::Message(message) => DecodeError::Scalar(message),
                })
            }
            (Shape::Ref(id), Value::Null) => {
                Ok(Value::Object(self.object(*id, Map::new())?.fields))
            }
            (Shape::Ref(id), Value::Object(fields)) => {
                Ok(Value::Object(self.object(*id, fields)?.fields))
            }
            (_, Value::Null) => Ok(Value::Null),
            (Shape::List(item), Value::Array(items)) => {
                let mut list = Vec::with_capacity(items.len());
                for (index, value) in items.into_iter().enumerate() {
                    self.path.push(Step::Index(index));
                    list.push(self.value(item, value, owner)?);
                    self.path.pop();
                }
                Ok(Value::Array(list))
            }
            (Shape::Map(shape), Value::Object(entries)) => {
                self.entries(entries, |walk, value| walk.value(shape, value, owner))
            }
            (Shape::MapOfLists(item), Value::Object(entries)) => {
                let list = Shape::List(item.clone());
                self.entries(entries, |walk, value| walk.value(&list, value, owner))
            }
            (shape, value) => {
                let found = scalar::json_type(&value).to_owned();
                Err(self.mismatch(found, shape, owner))
            }
        }
    }

    fn entries(
        &mut self,
        entries: Map<String, Value>,
        mut check: impl FnMut(&mut Self, Value) -> Result<Value, DecodeError>,
    ) -> Result<Value, DecodeError> {
        let mut kept = Map::with_capacity(entries.len());
        for (key, value) in entries {
            self.path.push(Step::Key(key.clone()));
            kept.insert(key, check(self, value)?);
            self.path.pop();
        }
        Ok(Value::Object(kept))
    }

    fn unknown(&mut self, name: &str) {
        if self.findings.len() >= FINDINGS_MAX {
            return;
        }
        let mut path = String::new();
        let last = Step::Field(name);
        for step in self.path.iter().chain([&last]) {
            let name = match step {
                Step::Field(name) => *name,
                Step::Key(name) => name,
                Step::Index(index) => {
                    path.push_str(&format!("[{index}]"));
                    continue;
                }
            };
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(name);
        }
        self.findings.push(Finding::UnknownField(path));
    }

    fn mismatch(&self, found: String, shape: &Shape, owner: Owner<'_>) -> DecodeError {
        let fields: Vec<&str> = self
            .path
            .iter()
            .filter_map(|step| match step {
                Step::Field(name) => Some(*name),
                Step::Key(_) | Step::Index(_) => None,
            })
            .collect();
        let go_type = self.schema.go_value_type(owner.field, shape);
        DecodeError::Type {
            found,
            go_struct: owner.go_struct.to_owned(),
            path: fields.join("."),
            go_type,
        }
    }
}

fn is_zero(field: &Field, value: &Value) -> bool {
    let no_quantity = field.shape == Shape::Scalar(Scalar::Quantity) && value == "0";
    no_quantity || scalar::is_zero(value)
}

/// What Go writes for the field of a present object even when it is zero; lists as `[]`, since an
/// absent one and an empty one are the same and not every client reads Go's `null`.
fn always_written(field: &Field) -> Option<Value> {
    if field.pointer || field.omit_empty {
        return None;
    }
    match &field.shape {
        Shape::Scalar(
            scalar @ (Scalar::String
            | Scalar::Bool
            | Scalar::Int32
            | Scalar::Int64
            | Scalar::IntOrString
            | Scalar::Quantity),
        ) => Some(scalar::zero(*scalar)),
        Shape::List(_) => Some(Value::Array(Vec::new())),
        Shape::Scalar(_) | Shape::Ref(_) | Shape::Map(_) | Shape::MapOfLists(_) => None,
    }
}

/// The field a value belongs to, for messages.
#[derive(Clone, Copy)]
struct Owner<'a> {
    go_struct: &'a str,
    field: &'a Field,
}
