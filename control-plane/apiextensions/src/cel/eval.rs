//! Evaluation: operators, macros, the order in which errors count.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::functions;
use super::{Budget, CelError, Expr, Macro, Node, Op, Value, Variables};

pub(super) fn evaluate(
    expr: &Expr,
    variables: &Variables,
    budget: &mut Budget,
) -> Result<Value, CelError> {
    let mut scope = Scope {
        outer: variables,
        inner: Vec::new(),
        budget,
    };
    scope.eval(expr)
}

struct Scope<'a, 'b> {
    outer: &'a Variables,
    inner: Vec<(&'a str, Value)>,
    budget: &'b mut Budget,
}

impl<'a> Scope<'a, '_> {
    fn eval(&mut self, expr: &'a Expr) -> Result<Value, CelError> {
        self.budget.spend(1)?;
        match &expr.node {
            Node::Literal(value) => Ok(value.clone()),
            Node::Name(name) => self.name(name),
            Node::Select(of, field) => match self.eval(of)? {
                Value::Opaque(of) => of.field(field, self.budget),
                of => select(&of, field),
            },
            Node::OptionalSelect(of, field) => self.optional_select(of, field),
            Node::Has(of, field) => self.has(of, field),
            Node::Index(two) => {
                let (of, at) = (self.eval(&two[0])?, self.eval(&two[1])?);
                index(&of, &at)
            }
            Node::OptionalIndex(two) => {
                let (of, at) = (self.eval(&two[0])?, self.eval(&two[1])?);
                Ok(optional_of(&of, |value| index(value, &at)))
            }
            Node::List(items) => {
                let items: Result<Vec<Value>, CelError> =
                    items.iter().map(|item| self.eval(item)).collect();
                Ok(Value::list(items?))
            }
            Node::Map(entries) => self.map(entries),
            Node::Struct(_, fields) => self.message(fields),
            Node::Not(of) => match self.eval(of)? {
                Value::Bool(value) => Ok(Value::Bool(!value)),
                other => Err(no_overload("!", &[other])),
            },
            Node::Negate(of) => negated(self.eval(of)?),
            Node::Binary(op @ (Op::And | Op::Or), two) => self.logic(*op, two),
            Node::Binary(op, two) => {
                let (a, b) = (self.eval(&two[0])?, self.eval(&two[1])?);
                self.binary(*op, a, b)
            }
            Node::Condition(three) => match self.eval(&three[0])? {
                Value::Bool(true) => self.eval(&three[1]),
                Value::Bool(false) => self.eval(&three[2]),
                other => Err(no_overload("?:", &[other])),
            },
            Node::Call(name, of, args) => {
                let mut values = Vec::with_capacity(args.len() + 1);
                for arg in of.iter().map(|of| &**of).chain(args) {
                    values.push(self.eval(arg)?);
                }
                functions::call(name, of.is_some(), &values, self.budget)
            }
            Node::Bind(name, two) => {
                let value = self.eval(&two[0])?;
                self.within(vec![(name, value)], &two[1])
            }
            Node::Macro(kind, of, names, bodies) => {
                let of = self.eval(of)?;
                self.expand(*kind, &of, names, bodies)
            }
        }
    }

    fn optional_select(&mut self, of: &'a Expr, field: &str) -> Result<Value, CelError> {
        let of = self.eval(of)?;
        if let Value::Opaque(of) = of {
            let found = of.field(field, self.budget).ok();
            return Ok(Value::Optional(found.map(Arc::new)));
        }
        Ok(optional_of(&of, |value| select(value, field)))
    }

    fn has(&mut self, of: &'a Expr, field: &str) -> Result<Value, CelError> {
        match self.eval(of)? {
            Value::Map(fields) => Ok(Value::Bool(fields.contains_key(field))),
            Value::Opaque(of) => Ok(Value::Bool(of.field(field, self.budget).is_ok())),
            Value::Optional(of) => Ok(Value::Bool(of.is_some_and(|of| select(&of, field).is_ok()))),
            other => Err(no_overload("has", &[other])),
        }
    }

    fn message(&mut self, fields: &'a [(String, bool, Expr)]) -> Result<Value, CelError> {
        let mut made = BTreeMap::new();
        for (name, optional, value) in fields {
            match (optional, self.eval(value)?) {
                (true, Value::Optional(None)) => {}
                (true, Value::Optional(Some(value))) => {
                    made.insert(name.clone(), value.as_ref().clone());
                }
                (_, value) => {
                    made.insert(name.clone(), value);
                }
            }
        }
        Ok(Value::Map(Arc::new(made)))
    }

    fn name(&self, name: &str) -> Result<Value, CelError> {
        let inner = self.inner.iter().rev().find(|(own, _)| *own == name);
        if let Some((_, value)) = inner {
            return Ok(value.clone());
        }
        if let Some(value) = self.outer.get(name) {
            return Ok(value.clone());
        }
        functions::type_named(name).ok_or_else(|| CelError::Undeclared(name.to_owned()))
    }

    fn within(
        &mut self,
        bound: Vec<(&'a String, Value)>,
        body: &'a Expr,
    ) -> Result<Value, CelError> {
        let before = self.inner.len();
        self.inner.extend(
            bound
                .into_iter()
                .map(|(name, value)| (name.as_str(), value)),
        );
        let value = self.eval(body);
        self.inner.truncate(before);
        value
    }

    fn map(&mut self, entries: &'a [(Expr, Expr)]) -> Result<Value, CelError> {
        let mut fields = BTreeMap::new();
        for (key, value) in entries {
            let key = key_text(&self.eval(key)?)?;
            fields.insert(key, self.eval(value)?);
        }
        Ok(Value::Map(Arc::new(fields)))
    }

    /// One side that decides is enough, even when the other is an error.
    fn logic(&mut self, op: Op, two: &'a [Expr; 2]) -> Result<Value, CelError> {
        let decides = op == Op::Or;
        let left = self.eval(&two[0]);
        if matches!(left, Err(CelError::Cost))
            || matches!(&left, Ok(Value::Bool(b)) if *b == decides)
        {
            return left;
        }
        match (left, self.eval(&two[1])?) {
            (_, Value::Bool(right)) if right == decides => Ok(Value::Bool(right)),
            (Err(fault), _) => Err(fault),
            (Ok(Value::Bool(_)), right @ Value::Bool(_)) => Ok(right),
            (Ok(left), right) => Err(no_overload("logical operator", &[left, right])),
        }
    }

    fn binary(&mut self, op: Op, a: Value, b: Value) -> Result<Value, CelError> {
        match op {
            Op::Equal | Op::Unequal => {
                self.budget.spend(a.size().min(b.size()) / 10)?;
                Ok(Value::Bool(a.same(&b) == (op == Op::Equal)))
            }
            Op::Less | Op::LessOrEqual | Op::Greater | Op::GreaterOrEqual => {
                self.budget.spend(a.size().min(b.size()) / 10)?;
                let order = a
                    .order(&b)
                    .ok_or_else(|| no_overload("comparison", &[a, b]))?;
                Ok(Value::Bool(match op {
                    Op::Less => order.is_lt(),
                    Op::LessOrEqual => order.is_le(),
                    Op::Greater => order.is_gt(),
                    _ => order.is_ge(),
                }))
            }
            Op::In => match &b {
                Value::List(items) => {
                    self.budget.spend(b.size())?;
                    Ok(Value::Bool(items.iter().any(|item| item.same(&a))))
                }
                Value::Map(fields) => Ok(Value::Bool(fields.contains_key(&key_text(&a)?))),
                _ => Err(no_overload("in", &[a, b])),
            },
            Op::Add => {
                if matches!(a, Value::Text(_) | Value::Bytes(_) | Value::List(_)) {
                    self.budget.spend((a.size() + b.size()) / 10)?;
                }
                functions::add(a, b)
            }
            Op::Subtract | Op::Multiply | Op::Divide | Op::Remainder => arithmetic(op, a, b),
            Op::And | Op::Or => Err(CelError::Value(
                "a logical operator out of place".to_owned(),
            )),
        }
    }

    fn expand(
        &mut self,
        kind: Macro,
        of: &Value,
        names: &'a [String],
        bodies: &'a [Expr],
    ) -> Result<Value, CelError> {
        let (Some(name), Some(body)) = (names.first(), bodies.first()) else {
            return Err(CelError::Value("a macro without a body".to_owned()));
        };
        if matches!(kind, Macro::OptMap | Macro::OptFlatMap) {
            return match of {
                Value::Optional(Some(value)) => {
                    let made = self.within(vec![(name, value.as_ref().clone())], body)?;
                    Ok(match kind {
                        Macro::OptMap => Value::Optional(Some(Arc::new(made))),
                        _ => made,
                    })
                }
                Value::Optional(None) => Ok(Value::Optional(None)),
                other => Err(no_overload("optMap", std::slice::from_ref(other))),
            };
        }
        let items = items(of, names.len() > 1)?;
        let (mut kept, mut kept_keys) = (Vec::new(), Vec::new());
        let mut count = 0_usize;
        let mut fault = None;
        for (key, item) in items {
            let kept_key = key.clone();
            let bound = match names.get(1) {
                Some(second) => vec![(name, key), (second, item.clone())],
                None => vec![(name, item.clone())],
            };
            let transforms = matches!(
                kind,
                Macro::Map | Macro::TransformList | Macro::TransformMap | Macro::TransformMapEntry
            );
            if transforms {
                let chosen =
                    bodies.len() < 2 || self.within(bound.clone(), body)?.same(&Value::Bool(true));
                if chosen && let Some(last) = bodies.last() {
                    let made = self.within(bound, last)?;
                    self.budget.spend(1)?;
                    kept_keys.push(kept_key);
                    kept.push(made);
                }
                continue;
            }
            let outcome = self.within(bound, body);
            match (kind, outcome) {
                (_, Err(CelError::Cost)) => return Err(CelError::Cost),
                (Macro::All, Ok(Value::Bool(false))) => return Ok(Value::Bool(false)),
                (Macro::Exists, Ok(Value::Bool(true))) => return Ok(Value::Bool(true)),
                (Macro::All | Macro::Exists, Err(own)) => fault = Some(own),
                (_, Ok(Value::Bool(true))) => {
                    count += 1;
                    kept.push(item);
                }
                (_, Ok(Value::Bool(false))) => {}
                (_, Ok(other)) => return Err(no_overload("macro predicate", &[other])),
                (_, Err(own)) => return Err(own),
            }
        }
        match (kind, fault) {
            (Macro::All | Macro::Exists, Some(fault)) => Err(fault),
            (Macro::All, None) => Ok(Value::Bool(true)),
            (Macro::Exists, None) => Ok(Value::Bool(false)),
            (Macro::ExistsOne, _) => Ok(Value::Bool(count == 1)),
            (Macro::TransformMap, _) => keyed(kept_keys.into_iter().zip(kept)),
            (Macro::TransformMapEntry, _) => joined(kept),
            _ => Ok(Value::list(kept)),
        }
    }
}

/// A map of keys and values.
fn keyed(entries: impl Iterator<Item = (Value, Value)>) -> Result<Value, CelError> {
    let mut fields = BTreeMap::new();
    for (key, value) in entries {
        fields.insert(key_text(&key)?, value);
    }
    Ok(Value::Map(Arc::new(fields)))
}

/// One map of maps that have no key in common.
fn joined(maps: Vec<Value>) -> Result<Value, CelError> {
    let mut fields = BTreeMap::new();
    for map in maps {
        let Value::Map(own) = map else {
            return Err(no_overload("cel.@mapInsert", &[map]));
        };
        for (key, value) in own.iter() {
            if fields.insert(key.clone(), value.clone()).is_some() {
                return Err(CelError::Value(format!(
                    "insert failed: key {key} already exists"
                )));
            }
        }
    }
    Ok(Value::Map(Arc::new(fields)))
}

/// What a macro goes over: items with their index, or keys with their value; with one variable the
/// items or the keys.
fn items(of: &Value, two: bool) -> Result<Vec<(Value, Value)>, CelError> {
    match of {
        Value::List(items) => {
            let index = |at| Value::Int(i64::try_from(at).unwrap_or(i64::MAX));
            let items = items.iter().enumerate();
            Ok(items.map(|(at, item)| (index(at), item.clone())).collect())
        }
        Value::Map(fields) => {
            let entry = |(key, value): (&String, &Value)| match two {
                true => (Value::text(key), value.clone()),
                false => (Value::text(key), Value::text(key)),
            };
            Ok(fields.iter().map(entry).collect())
        }
        other => Err(no_overload("macro range", std::slice::from_ref(other))),
    }
}

fn negated(value: Value) -> Result<Value, CelError> {
    match value {
        Value::Int(value) => value.checked_neg().map(Value::Int).ok_or_else(overflow),
        Value::Double(value) => Ok(Value::Double(-value)),
        Value::Duration(value) => value
            .checked_neg()
            .map(Value::Duration)
            .ok_or_else(overflow),
        other => Err(no_overload("-", &[other])),
    }
}

fn select(of: &Value, field: &str) -> Result<Value, CelError> {
    match of {
        Value::Map(fields) => {
            let found = fields.get(field).cloned();
            found.ok_or_else(|| CelError::NoSuchKey(field.to_owned()))
        }
        Value::Optional(_) => Ok(optional_of(of, |value| select(value, field))),
        other => Err(no_overload(
            &format!("select of {field}"),
            std::slice::from_ref(other),
        )),
    }
}

fn index(of: &Value, at: &Value) -> Result<Value, CelError> {
    match (of, at) {
        (Value::List(items), at) => {
            let at = at
                .number()
                .ok_or_else(|| no_overload("_[_]", &[of.clone(), at.clone()]))?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a negative or huge index saturates and is out of bounds"
            )]
            let found = (at >= 0.0).then(|| items.get(at as usize)).flatten();
            found
                .cloned()
                .ok_or_else(|| CelError::Value(format!("index out of bounds: {at}")))
        }
        (Value::Map(fields), key) => {
            let key = key_text(key)?;
            fields.get(&key).cloned().ok_or(CelError::NoSuchKey(key))
        }
        (Value::Optional(_), _) => Ok(optional_of(of, |value| index(value, at))),
        _ => Err(no_overload("_[_]", &[of.clone(), at.clone()])),
    }
}

fn optional_of(of: &Value, read: impl FnOnce(&Value) -> Result<Value, CelError>) -> Value {
    let found = match of {
        Value::Optional(Some(value)) => read(value).ok(),
        Value::Optional(None) => None,
        value => read(value).ok(),
    };
    match found {
        Some(optional @ Value::Optional(_)) => optional,
        found => Value::Optional(found.map(Arc::new)),
    }
}

fn key_text(key: &Value) -> Result<String, CelError> {
    match key {
        Value::Text(text) => Ok(text.as_ref().to_owned()),
        Value::Int(value) => Ok(value.to_string()),
        Value::Uint(value) => Ok(value.to_string()),
        Value::Bool(value) => Ok(value.to_string()),
        other => Err(no_overload("map key", std::slice::from_ref(other))),
    }
}

fn arithmetic(op: Op, a: Value, b: Value) -> Result<Value, CelError> {
    let whole = |a: i64, b: i64| match op {
        Op::Subtract => a.checked_sub(b),
        Op::Multiply => a.checked_mul(b),
        Op::Divide => a.checked_div(b),
        _ => a.checked_rem(b),
    };
    let natural = |a: u64, b: u64| match op {
        Op::Subtract => a.checked_sub(b),
        Op::Multiply => a.checked_mul(b),
        Op::Divide => a.checked_div(b),
        _ => a.checked_rem(b),
    };
    let by_zero = matches!(&b, Value::Int(0) | Value::Uint(0));
    match (&a, &b) {
        (Value::Int(_) | Value::Uint(_), _) if by_zero && op == Op::Divide => {
            Err(CelError::Value("division by zero".to_owned()))
        }
        (Value::Int(_) | Value::Uint(_), _) if by_zero && op == Op::Remainder => {
            Err(CelError::Value("modulus by zero".to_owned()))
        }
        (Value::Int(a), Value::Int(b)) => whole(*a, *b).map(Value::Int).ok_or_else(overflow),
        (Value::Uint(a), Value::Uint(b)) => natural(*a, *b).map(Value::Uint).ok_or_else(overflow),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(match op {
            Op::Subtract => a - b,
            Op::Multiply => a * b,
            Op::Divide => a / b,
            _ => return Err(no_overload("%", &[Value::Double(*a), Value::Double(*b)])),
        })),
        (Value::Duration(x), Value::Duration(y)) if op == Op::Subtract => {
            x.checked_sub(*y).map(Value::Duration).ok_or_else(overflow)
        }
        (Value::Timestamp(at), Value::Duration(by)) if op == Op::Subtract => {
            functions::shift(*at, by.checked_neg().ok_or_else(overflow)?)
        }
        (Value::Timestamp(x), Value::Timestamp(y)) if op == Op::Subtract => {
            let nanoseconds = x.as_nanosecond() - y.as_nanosecond();
            i64::try_from(nanoseconds)
                .map(Value::Duration)
                .map_err(|_range| overflow())
        }
        _ => Err(no_overload("arithmetic", &[a, b])),
    }
}

pub(super) fn overflow() -> CelError {
    CelError::Value("integer overflow".to_owned())
}

pub(super) fn no_overload(name: &str, values: &[Value]) -> CelError {
    let types: Vec<&str> = values.iter().map(Value::type_name).collect();
    CelError::NoOverload(format!("{name}({})", types.join(", ")))
}
