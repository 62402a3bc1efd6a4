//! CEL with Kubernetes' libraries, evaluated under a budget.
//!
//! Owns: parser, static check, cost estimate, evaluator. An expression is parsed and checked once and
//! evaluated often; every step and every byte that a function looks at is paid from a [`Budget`], so
//! no expression runs for long. The check knows the types that [`Env`] declares; the estimate the
//! sizes.

mod check;
mod cost;
mod eval;
mod functions;
mod kubernetes;
mod overloads;
mod parse;
#[cfg(test)]
mod tests;
mod types;
mod value;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use self::types::{Declared, ObjectType, Type};
pub use self::value::{Opaque, Value};

/// What one expression may be estimated to cost at most, times how often it may be evaluated (as
/// upstream).
pub const ESTIMATE_MAX: u64 = 10_000_000;
/// What all expressions of a schema may be estimated to cost at most (as upstream).
pub const SCHEMA_ESTIMATE_MAX: u64 = 100_000_000;
/// What one expression may cost.
pub const EXPRESSION_COST_MAX: u64 = 1_000_000;
/// What all expressions on one object may cost.
pub const OBJECT_COST_MAX: u64 = 10_000_000;

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CelError {
    /// The text is no expression, or one that cannot be right: a line for each problem, with its
    /// place.
    #[error("{0}")]
    Compile(String),
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
    TransformList,
    TransformMap,
    TransformMapEntry,
    OptMap,
    OptFlatMap,
}

impl Op {
    /// The function that it stands for.
    const fn function(self) -> &'static str {
        match self {
            Self::Or => "_||_",
            Self::And => "_&&_",
            Self::Equal => "_==_",
            Self::Unequal => "_!=_",
            Self::Less => "_<_",
            Self::LessOrEqual => "_<=_",
            Self::Greater => "_>_",
            Self::GreaterOrEqual => "_>=_",
            Self::In => "@in",
            Self::Add => "_+_",
            Self::Subtract => "_-_",
            Self::Multiply => "_*_",
            Self::Divide => "_/_",
            Self::Remainder => "_%_",
        }
    }
}

/// An expression: where it is (a byte of the source), its number, and what it is.
#[derive(Debug, Clone)]
struct Expr {
    at: usize,
    id: u32,
    node: Node,
}

#[derive(Debug, Clone)]
enum Node {
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

/// What expressions may name.
#[derive(Debug, Clone, Default)]
pub struct Env {
    variables: BTreeMap<String, Arc<Declared>>,
    messages: bool,
}

impl Env {
    /// With one more variable.
    #[must_use]
    pub fn with(mut self, name: &str, declared: Arc<Declared>) -> Self {
        self.variables.insert(name.to_owned(), declared);
        self
    }

    /// With variables whose types are known when they are read, and the messages `Object` and
    /// `JSONPatch`.
    #[must_use]
    pub fn dynamic(names: &[&str]) -> Self {
        let unknown = Arc::new(Declared::unsized_of(Type::Dyn));
        let variables = names
            .iter()
            .map(|name| ((*name).to_owned(), Arc::clone(&unknown)));
        Self {
            variables: variables.collect(),
            messages: true,
        }
    }
}

/// A parsed and checked expression.
#[derive(Debug, Clone)]
pub struct Program {
    root: Expr,
    result: Type,
    cost_max: u64,
}

impl Program {
    /// Parses `source`; `declared` are the variables it may name, of any type.
    ///
    /// # Errors
    /// It is no expression, or one that cannot be right.
    pub fn compile(source: &str, declared: &[&str]) -> Result<Self, CelError> {
        Self::checked(source, &Env::dynamic(declared))
    }

    /// Parses `source` and checks it against what `env` declares.
    ///
    /// # Errors
    /// It is no expression, or one that cannot be right.
    pub fn checked(source: &str, env: &Env) -> Result<Self, CelError> {
        let told = |issues: &[check::Issue]| CelError::Compile(located(source, issues));
        let root = parse::parse(source).map_err(|issue| told(&[issue]))?;
        let (result, checked) = check::check(&root, env).map_err(|issues| told(&issues))?;
        Ok(Self {
            cost_max: cost::estimate(&root, env, &checked),
            root,
            result,
        })
    }

    /// The type of its value.
    #[must_use]
    pub const fn result(&self) -> &Type {
        &self.result
    }

    /// The most that it may cost, given what was declared of its variables.
    #[must_use]
    pub const fn cost_max(&self) -> u64 {
        self.cost_max
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

/// Problems as upstream prints them: line and column, the line, a mark below it.
fn located(source: &str, issues: &[check::Issue]) -> String {
    let shown = issues.iter().map(|issue| {
        let mut at = issue.at.min(source.len());
        while !source.is_char_boundary(at) {
            at -= 1;
        }
        let start = source[..at].rfind('\n').map_or(0, |end| end + 1);
        let line = source[start..].lines().next().unwrap_or_default();
        let (number, column) = (
            source[..start].matches('\n').count() + 1,
            source[start..at].chars().count(),
        );
        format!(
            "ERROR: <input>:{number}:{}: {}\n | {line}\n | {}^",
            column + 1,
            issue.text,
            ".".repeat(column)
        )
    });
    shown.collect::<Vec<String>>().join("\n")
}

fn children(expr: &Expr) -> Vec<&Expr> {
    match &expr.node {
        Node::Literal(_) | Node::Name(_) => Vec::new(),
        Node::Select(of, _) | Node::OptionalSelect(of, _) | Node::Has(of, _) => vec![of],
        Node::Not(of) | Node::Negate(of) => vec![of],
        Node::Index(two) | Node::OptionalIndex(two) | Node::Binary(_, two) | Node::Bind(_, two) => {
            two.iter().collect()
        }
        Node::Condition(three) => three.iter().collect(),
        Node::Call(_, of, args) => of.iter().map(|of| &**of).chain(args).collect(),
        Node::List(items) => items.iter().collect(),
        Node::Map(entries) => entries
            .iter()
            .flat_map(|(key, value)| [key, value])
            .collect(),
        Node::Struct(_, fields) => fields.iter().map(|(_, _, value)| value).collect(),
        Node::Macro(_, of, _, bodies) => std::iter::once(&**of).chain(bodies).collect(),
    }
}

fn mentions(expr: &Expr, name: &str) -> bool {
    matches!(&expr.node, Node::Name(own) if own == name)
        || children(expr)
            .into_iter()
            .any(|child| mentions(child, name))
}

/// Type names are values too.
const TYPES: [&str; 15] = [
    "bool",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "list",
    "map",
    "null_type",
    "type",
    "google.protobuf.Duration",
    "google.protobuf.Timestamp",
    "kubernetes.Quantity",
    "net.IP",
    "net.CIDR",
];
