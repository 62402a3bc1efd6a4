//! CEL with Kubernetes' libraries, evaluated under a budget.
//!
//! Owns: parser and evaluator. An expression is parsed once and evaluated often; every step and every
//! byte that a function looks at is paid from a [`Budget`], so no expression runs for long. There is
//! no type checker: what does not fit is an error when it is evaluated, except names that are
//! nowhere declared ([`Program::compile`]).

mod eval;
mod functions;
mod parse;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;

pub use self::value::{Opaque, Value};

/// What one expression may cost.
pub const EXPRESSION_COST_MAX: u64 = 1_000_000;
/// What all expressions on one object may cost.
pub const OBJECT_COST_MAX: u64 = 10_000_000;

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CelError {
    /// The text is no expression.
    #[error("Syntax error: {0}")]
    Syntax(String),
    /// A name is not declared.
    #[error("undeclared reference to '{0}' (in container '')")]
    Undeclared(String),
    /// A map has no such key.
    #[error("no such key: {0}")]
    NoSuchKey(String),
    /// No function of that name takes these values.
    #[error("no such overload: {0}")]
    NoOverload(String),
    /// A value does not allow what is asked of it.
    #[error("{0}")]
    Value(String),
    /// The budget is used up.
    #[error("operation cancelled: actual cost limit exceeded")]
    Cost,
}

impl CelError {
    fn syntax(text: impl Into<String>) -> Self {
        Self::Syntax(text.into())
    }
}

/// What is left to spend.
#[derive(Debug, Clone)]
pub struct Budget {
    left: u64,
}

impl Budget {
    /// A budget of `cost`.
    #[must_use]
    pub const fn new(cost: u64) -> Self {
        Self { left: cost }
    }

    /// What is left.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.left
    }

    /// Pays `cost`.
    ///
    /// # Errors
    /// [`CelError::Cost`] when there is not as much.
    pub fn spend(&mut self, cost: u64) -> Result<(), CelError> {
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.left = 0;
                Err(CelError::Cost)
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Or,
    And,
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Macro {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
    OptMap,
    OptFlatMap,
}

#[derive(Debug, Clone)]
enum Expr {
    Literal(Value),
    Name(String),
    Select(Box<Expr>, String),
    OptionalSelect(Box<Expr>, String),
    Has(Box<Expr>, String),
    Index(Box<[Expr; 2]>),
    OptionalIndex(Box<[Expr; 2]>),
    Call(String, Option<Box<Expr>>, Vec<Expr>),
    List(Vec<Expr>),
    Map(Vec<(Expr, Expr)>),
    /// A message: its type, its fields (name, whether it is optional, value).
    Struct(String, Vec<(String, bool, Expr)>),
    Not(Box<Expr>),
    Negate(Box<Expr>),
    Binary(Op, Box<[Expr; 2]>),
    Condition(Box<[Expr; 3]>),
    Bind(String, Box<[Expr; 2]>),
    /// Kind, what it goes over, its variables, its bodies.
    Macro(Macro, Box<Expr>, Vec<String>, Vec<Expr>),
}

/// Variables by name.
pub type Variables = BTreeMap<String, Value>;

/// A parsed expression.
#[derive(Debug, Clone)]
pub struct Program {
    root: Expr,
}

impl Program {
    /// Parses `source`; `declared` are the variables it may name.
    ///
    /// # Errors
    /// It is no expression, or names something else.
    pub fn compile(source: &str, declared: &[&str]) -> Result<Self, CelError> {
        let root = parse::parse(source)?;
        let mut bound: Vec<&str> = declared.to_vec();
        check_names(&root, &mut bound)?;
        Ok(Self { root })
    }

    /// Whether it names variable `name`.
    #[must_use]
    pub fn names(&self, name: &str) -> bool {
        mentions(&self.root, name)
    }

    /// Its value.
    ///
    /// # Errors
    /// [`CelError`].
    pub fn evaluate(&self, variables: &Variables, budget: &mut Budget) -> Result<Value, CelError> {
        eval::evaluate(&self.root, variables, budget)
    }
}

fn children(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::Literal(_) | Expr::Name(_) => Vec::new(),
        Expr::Select(of, _) | Expr::OptionalSelect(of, _) | Expr::Has(of, _) => vec![of],
        Expr::Not(of) | Expr::Negate(of) => vec![of],
        Expr::Index(two) | Expr::OptionalIndex(two) | Expr::Binary(_, two) | Expr::Bind(_, two) => {
            two.iter().collect()
        }
        Expr::Condition(three) => three.iter().collect(),
        Expr::Call(_, of, args) => of.iter().map(|of| &**of).chain(args).collect(),
        Expr::List(items) => items.iter().collect(),
        Expr::Map(entries) => entries
            .iter()
            .flat_map(|(key, value)| [key, value])
            .collect(),
        Expr::Struct(_, fields) => fields.iter().map(|(_, _, value)| value).collect(),
        Expr::Macro(_, of, _, bodies) => std::iter::once(&**of).chain(bodies).collect(),
    }
}

fn mentions(expr: &Expr, name: &str) -> bool {
    matches!(expr, Expr::Name(own) if own == name)
        || children(expr)
            .into_iter()
            .any(|child| mentions(child, name))
}

/// Type names are values too.
const TYPES: [&str; 9] = [
    "bool",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "list",
    "map",
    "null_type",
];

fn check_names<'a>(expr: &'a Expr, bound: &mut Vec<&'a str>) -> Result<(), CelError> {
    let before = bound.len();
    match expr {
        Expr::Struct(name, _)
            if name != "JSONPatch" && name.split('.').next() != Some("Object") =>
        {
            return Err(CelError::Undeclared(name.clone()));
        }
        Expr::Name(name) if !bound.contains(&name.as_str()) && !TYPES.contains(&name.as_str()) => {
            return Err(CelError::Undeclared(name.clone()));
        }
        Expr::Macro(_, of, names, bodies) => {
            check_names(of, bound)?;
            bound.extend(names.iter().map(String::as_str));
            for body in bodies {
                check_names(body, bound)?;
            }
        }
        Expr::Bind(name, two) => {
            check_names(&two[0], bound)?;
            bound.push(name);
            check_names(&two[1], bound)?;
        }
        _ => {
            for child in children(expr) {
                check_names(child, bound)?;
            }
        }
    }
    bound.truncate(before);
    Ok(())
}
