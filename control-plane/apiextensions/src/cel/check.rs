//! The static check: names are declared, fields exist, functions take what they are given.

use std::collections::HashMap;
use std::sync::Arc;

use super::overloads::{Overload, overloads};
use super::types::Type;
use super::{Env, Expr, Macro, Node, Op, TYPES};

/// Something wrong at a place of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Issue {
    /// Byte of the source.
    pub(super) at: usize,
    pub(super) text: String,
}

/// What a checked expression is: the type of each node, by its number, and the forms of functions
/// that a call may take.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) types: HashMap<u32, Type>,
    pub(super) calls: HashMap<u32, Vec<&'static Overload>>,
}

/// Checks `expr`; returns its type.
pub(super) fn check(expr: &Expr, env: &Env) -> Result<(Type, Checked), Vec<Issue>> {
    let mut checker = Checker {
        env,
        bound: Vec::new(),
        solved: HashMap::new(),
        next: 0,
        issues: Vec::new(),
        checked: Checked::default(),
    };
    let found = checker.check(expr);
    if !checker.issues.is_empty() {
        return Err(checker.issues);
    }
    let found = checker.resolved(&found);
    let mut checked = std::mem::take(&mut checker.checked);
    for kind in checked.types.values_mut() {
        *kind = checker.resolved(kind);
    }
    Ok((found, checked))
}

struct Checker<'a> {
    env: &'a Env,
    bound: Vec<(&'a str, Type)>,
    solved: HashMap<u32, Type>,
    next: u32,
    issues: Vec<Issue>,
    checked: Checked,
}

/// Beyond this many problems no more are told.
const ISSUES_MAX: usize = 20;

impl<'a> Checker<'a> {
    fn issue(&mut self, at: usize, text: String) -> Type {
        if self.issues.len() < ISSUES_MAX {
            self.issues.push(Issue { at, text });
        }
        Type::Dyn
    }

    fn fresh(&mut self) -> Type {
        // The first numbers are those of the functions' own letters.
        self.next += 1;
        Type::Var(self.next + 1)
    }

    /// `kind` with what is known of its open parts.
    fn resolved(&self, kind: &Type) -> Type {
        match kind {
            Type::Var(number) => match self.solved.get(number) {
                Some(known) => self.resolved(known),
                None => Type::Dyn,
            },
            other => rebuilt(other, &|part| self.resolved(part)),
        }
    }

    /// The type behind solved variables, its parts as they are.
    fn shallow(&self, kind: &Type) -> Type {
        let mut kind = kind.clone();
        while let Type::Var(number) = kind {
            match self.solved.get(&number) {
                Some(known) => kind = known.clone(),
                None => return kind,
            }
        }
        kind
    }

    fn occurs(&self, number: u32, kind: &Type) -> bool {
        match self.shallow(kind) {
            Type::Var(own) => own == number,
            Type::List(part) | Type::Optional(part) => self.occurs(number, &part),
            Type::Map(key, value) => self.occurs(number, &key) || self.occurs(number, &value),
            _ => false,
        }
    }

    /// Whether a `found` may stand where a `wanted` is; decides open parts.
    fn assign(&mut self, wanted: &Type, found: &Type) -> bool {
        let (wanted, found) = (self.shallow(wanted), self.shallow(found));
        match (&wanted, &found) {
            (Type::Var(a), Type::Var(b)) if a == b => true,
            (Type::Var(number), other) | (other, Type::Var(number)) => {
                if self.occurs(*number, other) {
                    return false;
                }
                self.solved.insert(*number, other.clone());
                true
            }
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            (Type::Null, other) | (other, Type::Null) => other.is_nullable(),
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => {
                self.assign(a, b)
            }
            (Type::Map(a, x), Type::Map(b, y)) => self.assign(a, b) && self.assign(x, y),
            (a, b) => a == b,
        }
    }

    fn check(&mut self, expr: &'a Expr) -> Type {
        let found = self.typed(expr);
        self.checked.types.insert(expr.id, found.clone());
        found
    }

    fn typed(&mut self, expr: &'a Expr) -> Type {
        match &expr.node {
            Node::Literal(value) => value.static_type(),
            Node::Name(name) => self.name(expr.at, name),
            Node::Select(of, field) => {
                let of = self.check(of);
                self.field(expr.at, &of, field)
            }
            Node::OptionalSelect(of, field) => {
                let of = self.check(of);
                let found = self.field(expr.at, &of, field);
                wrapped(found)
            }
            Node::Has(of, field) => {
                let of = self.check(of);
                self.field(expr.at, &of, field);
                Type::Bool
            }
            Node::Index(two) => self.call(expr, "_[_]", false, two.iter().collect()),
            Node::OptionalIndex(two) => {
                let found = self.call(expr, "_[_]", false, two.iter().collect());
                wrapped(found)
            }
            Node::List(items) => self.list(items),
            Node::Map(entries) => self.map(entries),
            Node::Struct(name, fields) => self.message(expr.at, name, fields),
            Node::Not(of) => self.call(expr, "!_", false, vec![of]),
            Node::Negate(of) => self.call(expr, "-_", false, vec![of]),
            Node::Binary(op @ (Op::And | Op::Or), two) => {
                let name = if *op == Op::And { "_&&_" } else { "_||_" };
                self.logic(expr.at, name, two)
            }
            Node::Binary(op, two) => self.call(expr, op.function(), false, two.iter().collect()),
            Node::Condition(three) => self.call(expr, "_?_:_", false, three.iter().collect()),
            Node::Call(name, of, args) => {
                let all: Vec<&Expr> = of.iter().map(|of| &**of).chain(args).collect();
                self.call(expr, name, of.is_some(), all)
            }
            Node::Bind(name, two) => {
                let value = self.check(&two[0]);
                self.within(vec![(name, value)], &two[1])
            }
            Node::Macro(kind, of, names, bodies) => self.expand(expr.at, *kind, of, names, bodies),
        }
    }

    fn name(&mut self, at: usize, name: &str) -> Type {
        if let Some((_, kind)) = self.bound.iter().rev().find(|(own, _)| *own == name) {
            return kind.clone();
        }
        if let Some(declared) = self.env.variables.get(name) {
            return declared.kind.clone();
        }
        if TYPES.contains(&name) {
            return Type::Type;
        }
        self.issue(
            at,
            format!("undeclared reference to '{name}' (in container '')"),
        )
    }

    fn field(&mut self, at: usize, of: &Type, field: &str) -> Type {
        match self.shallow(of) {
            Type::Dyn | Type::Var(_) => Type::Dyn,
            Type::Optional(of) => {
                let found = self.field(at, &of, field);
                wrapped(found)
            }
            Type::Map(_, value) => value.as_ref().clone(),
            Type::Object(object) => match object.fields.get(field) {
                Some(kind) => kind.clone(),
                None if object.open => Type::Dyn,
                None => self.issue(at, format!("undefined field '{field}'")),
            },
            Type::Named("kubernetes.authorization.Authorizer") if field == "requestResource" => {
                Type::Named("kubernetes.authorization.ResourceCheck")
            }
            other => {
                let other = self.resolved(&other);
                self.issue(
                    at,
                    format!("type '{other}' does not support field selection"),
                )
            }
        }
    }

    fn list(&mut self, items: &'a [Expr]) -> Type {
        let mut item: Option<Type> = None;
        for expr in items {
            let found = self.check(expr);
            item = Some(self.joined(expr.at, item, found));
        }
        let item = item.unwrap_or_else(|| self.fresh());
        Type::list(item)
    }

    fn map(&mut self, entries: &'a [(Expr, Expr)]) -> Type {
        let (mut keys, mut values): (Option<Type>, Option<Type>) = (None, None);
        for (key, value) in entries {
            let found = self.check(key);
            keys = Some(self.joined(key.at, keys, found));
            let found = self.check(value);
            values = Some(self.joined(value.at, values, found));
        }
        let key = keys.unwrap_or_else(|| self.fresh());
        let value = values.unwrap_or_else(|| self.fresh());
        Type::Map(Arc::new(key), Arc::new(value))
    }

    /// Literals hold values of one type.
    fn joined(&mut self, at: usize, before: Option<Type>, found: Type) -> Type {
        let Some(before) = before else {
            return found;
        };
        if !self.assign(&before, &found) {
            let (before, found) = (self.resolved(&before), self.resolved(&found));
            return self.issue(at, format!("expected type '{before}' but found '{found}'"));
        }
        before
    }

    fn message(&mut self, at: usize, name: &str, fields: &'a [(String, bool, Expr)]) -> Type {
        for (_, _, value) in fields {
            self.check(value);
        }
        if self.env.messages && (name == "JSONPatch" || name.split('.').next() == Some("Object")) {
            return Type::Dyn;
        }
        self.issue(
            at,
            format!("undeclared reference to '{name}' (in container '')"),
        )
    }

    fn logic(&mut self, at: usize, name: &str, two: &'a [Expr; 2]) -> Type {
        let found = [self.check(&two[0]), self.check(&two[1])];
        if !found.iter().all(|kind| self.assign(&Type::Bool, kind)) {
            self.no_overload(at, name, false, &found);
        }
        Type::Bool
    }

    fn no_overload(&mut self, at: usize, name: &str, method: bool, found: &[Type]) -> Type {
        let names: Vec<String> = found
            .iter()
            .map(|kind| self.resolved(kind).to_string())
            .collect();
        let applied = match (method, names.split_first()) {
            (true, Some((of, rest))) => format!("{of}.({})", rest.join(", ")),
            _ => format!("({})", names.join(", ")),
        };
        self.issue(
            at,
            format!("found no matching overload for '{name}' applied to '{applied}'"),
        )
    }

    fn call(&mut self, expr: &Expr, name: &str, method: bool, args: Vec<&'a Expr>) -> Type {
        let found: Vec<Type> = args.into_iter().map(|arg| self.check(arg)).collect();
        let all = overloads(name);
        if all.is_empty() {
            return self.issue(
                expr.at,
                format!("undeclared reference to '{name}' (in container '')"),
            );
        }
        let mut result: Option<Type> = None;
        let mut taken: Vec<&'static Overload> = Vec::new();
        for overload in all {
            if overload.method != method || overload.args.len() != found.len() {
                continue;
            }
            let letters = [self.fresh(), self.fresh()];
            let before = self.solved.clone();
            let fits = overload.args.iter().zip(&found).all(|(wanted, found)| {
                let wanted = self.lettered(wanted, &letters);
                self.assign(&wanted, found)
            });
            if !fits {
                self.solved = before;
                continue;
            }
            taken.push(overload);
            let own = self.lettered(&overload.result, &letters);
            result = Some(match result {
                None => own,
                Some(other) if self.resolved(&other) == self.resolved(&own) => other,
                Some(_) => Type::Dyn,
            });
            // Arguments that are known decide at once; others may take a further form.
            let open = found.iter().any(|kind| self.is_open(kind));
            if !open {
                break;
            }
        }
        self.checked.calls.insert(expr.id, taken);
        match result {
            Some(result) => result,
            None => self.no_overload(expr.at, name, method, &found),
        }
    }

    fn is_open(&self, kind: &Type) -> bool {
        matches!(self.shallow(kind), Type::Dyn | Type::Var(_))
    }

    fn lettered(&self, kind: &Type, letters: &[Type; 2]) -> Type {
        match kind {
            Type::Var(0) => letters[0].clone(),
            Type::Var(_) => letters[1].clone(),
            other => rebuilt(other, &|part| self.lettered(part, letters)),
        }
    }

    fn within(&mut self, bound: Vec<(&'a String, Type)>, body: &'a Expr) -> Type {
        let before = self.bound.len();
        let bound = bound.into_iter().map(|(name, kind)| (name.as_str(), kind));
        self.bound.extend(bound);
        let found = self.check(body);
        self.bound.truncate(before);
        found
    }

    /// The types that a macro's variables have over a range: key, value.
    fn range(&mut self, at: usize, of: &Type) -> (Type, Type) {
        match self.shallow(of) {
            Type::List(item) => (Type::Int, item.as_ref().clone()),
            Type::Map(key, value) => (key.as_ref().clone(), value.as_ref().clone()),
            Type::Dyn | Type::Var(_) => (Type::Dyn, Type::Dyn),
            other => {
                let other = self.resolved(&other);
                self.issue(
                    at,
                    format!(
                        "expression of type '{other}' cannot be range of a comprehension (must \
                         be list, map, or dynamic)"
                    ),
                );
                (Type::Dyn, Type::Dyn)
            }
        }
    }

    fn expand(
        &mut self,
        at: usize,
        kind: Macro,
        of: &'a Expr,
        names: &'a [String],
        bodies: &'a [Expr],
    ) -> Type {
        let over = self.check(of);
        if matches!(kind, Macro::OptMap | Macro::OptFlatMap) {
            return self.optional_map(at, kind, &over, names, bodies);
        }
        let (key, value) = self.range(of.at, &over);
        let bound = match names {
            [one] => {
                let item = match self.shallow(&over) {
                    Type::Map(..) => key.clone(),
                    _ => value,
                };
                vec![(one, item)]
            }
            [first, second, ..] => vec![(first, key.clone()), (second, value)],
            [] => Vec::new(),
        };
        let found: Vec<Type> = bodies
            .iter()
            .map(|body| self.within(bound.clone(), body))
            .collect();
        let made = found.last().cloned().unwrap_or(Type::Dyn);
        let predicate = match kind {
            Macro::Map | Macro::TransformList | Macro::TransformMap | Macro::TransformMapEntry => {
                bodies.first().filter(|_| bodies.len() > 1)
            }
            _ => bodies.first(),
        };
        if let (Some(body), Some(own)) = (predicate, found.first())
            && !self.assign(&Type::Bool, own)
        {
            let own = self.resolved(own);
            let (name, with) = match kind {
                Macro::All => ("_&&_", "bool, "),
                Macro::Exists => ("_||_", "bool, "),
                _ => ("_?_:_", ""),
            };
            let text =
                format!("found no matching overload for '{name}' applied to '({with}{own})'");
            self.issue(body.at, text);
        }
        match kind {
            Macro::All | Macro::Exists | Macro::ExistsOne => Type::Bool,
            Macro::Filter => match self.shallow(&over) {
                Type::Map(key, _) => Type::List(key),
                other => other,
            },
            Macro::Map | Macro::TransformList => Type::list(made),
            Macro::TransformMap => Type::Map(Arc::new(key), Arc::new(made)),
            Macro::TransformMapEntry | Macro::OptMap | Macro::OptFlatMap => made,
        }
    }

    fn optional_map(
        &mut self,
        at: usize,
        kind: Macro,
        over: &Type,
        names: &'a [String],
        bodies: &'a [Expr],
    ) -> Type {
        let inner = match self.shallow(over) {
            Type::Optional(of) => of.as_ref().clone(),
            Type::Dyn | Type::Var(_) => Type::Dyn,
            other => return self.no_overload(at, "hasValue", true, &[other]),
        };
        let (Some(name), Some(body)) = (names.first(), bodies.first()) else {
            return Type::Dyn;
        };
        let made = self.within(vec![(name, inner)], body);
        match kind {
            Macro::OptMap => Type::optional(made),
            _ => made,
        }
    }
}

/// Optional, once.
fn wrapped(kind: Type) -> Type {
    match kind {
        Type::Optional(_) => kind,
        other => Type::optional(other),
    }
}

/// A type with other parts.
fn rebuilt(kind: &Type, part: &dyn Fn(&Type) -> Type) -> Type {
    match kind {
        Type::List(item) => Type::list(part(item)),
        Type::Optional(of) => Type::optional(part(of)),
        Type::Map(key, value) => Type::Map(Arc::new(part(key)), Arc::new(part(value))),
        other => other.clone(),
    }
}
