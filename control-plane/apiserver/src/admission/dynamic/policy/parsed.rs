//! Policies and bindings as data, their expressions compiled once.

use std::sync::Arc;

use control_plane_apiextensions::cel::Value as CelValue;
use control_plane_apiextensions::cel::{Budget, CelError, EXPRESSION_COST_MAX, Program, Variables};
use serde_json::Value;

use super::super::rules::Matcher;
use crate::tree;

/// What expressions of policies may name.
pub(crate) const VARIABLES: [&str; 7] = [
    "object",
    "oldObject",
    "request",
    "params",
    "namespaceObject",
    "authorizer",
    "variables",
];

/// An expression with its source.
#[derive(Debug)]
pub(super) struct Expression {
    pub(super) source: String,
    program: Result<Program, CelError>,
}

impl Expression {
    fn of(source: &str) -> Self {
        Self {
            source: source.trim().to_owned(),
            program: Program::compile(source, &VARIABLES),
        }
    }

    /// The expression at `path` of `holder`; nothing when there is none.
    fn at(holder: &Value, path: &[&str]) -> Option<Self> {
        let source = tree::text(holder, path);
        (!source.trim().is_empty()).then(|| Self::of(source))
    }

    /// Its value, paid from `budget` up to what one expression may cost.
    pub(super) fn evaluate(
        &self,
        variables: &Variables,
        budget: &mut Budget,
    ) -> Result<CelValue, String> {
        let program = match &self.program {
            Ok(program) => program,
            Err(fault) => return Err(format!("compilation error: compilation failed: {fault}")),
        };
        let granted = EXPRESSION_COST_MAX.min(budget.left());
        let mut own = Budget::new(granted);
        let outcome = program.evaluate(variables, &mut own);
        let spent = budget.spend(granted - own.left());
        outcome
            .and_then(|value| spent.map(|()| value))
            .map_err(|fault| match fault {
                CelError::Cost if granted < EXPRESSION_COST_MAX => {
                    "validation failed due to running out of cost budget, no further validation \
                     rules will be run"
                        .to_owned()
                }
                fault => format!("expression '{}' resulted in error: {fault}", self.source),
            })
    }
}

/// What happens when a policy cannot decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    Fail,
    Ignore,
}

/// One `validations` entry.
#[derive(Debug)]
pub(super) struct Validation {
    pub(super) expression: Expression,
    pub(super) message: String,
    pub(super) worded: Option<Expression>,
    pub(super) reason: String,
}

/// One `mutations` entry.
#[derive(Debug)]
pub(super) enum Mutation {
    /// An expression that makes a part of the object.
    Apply(Expression),
    /// An expression that makes the operations of a JSON patch.
    Patch(Expression),
}

/// A policy of either kind.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) name: String,
    pub(super) matcher: Matcher,
    pub(super) conditions: Vec<Expression>,
    pub(super) variables: Arc<[(String, Expression)]>,
    pub(super) validations: Vec<Validation>,
    /// Key and expression.
    pub(super) annotations: Vec<(String, Expression)>,
    pub(super) mutations: Vec<Mutation>,
    pub(super) failure: Failure,
    /// `apiVersion` and kind of the parameters.
    pub(super) param_kind: Option<(String, String)>,
    /// It is asked again when others change the object after it.
    pub(super) reinvoked: bool,
}

impl Policy {
    pub(super) fn of(object: &Value) -> Self {
        let spec = tree::at(object, &["spec"]);
        let list = |field: &'static str| tree::list(spec, &[field]).iter();
        let named = |item: &Value, name: &str, source: &str| {
            let name = tree::text(item, &[name]).to_owned();
            (name, Expression::of(tree::text(item, &[source])))
        };
        let kind = tree::at(spec, &["paramKind"]);
        Self {
            name: tree::text(object, &["metadata", "name"]).to_owned(),
            matcher: Matcher::of_resources(tree::at(spec, &["matchConstraints"])),
            conditions: list("matchConditions")
                .map(|item| Expression::of(tree::text(item, &["expression"])))
                .collect(),
            variables: list("variables")
                .map(|item| named(item, "name", "expression"))
                .collect(),
            validations: list("validations")
                .map(|item| Validation {
                    expression: Expression::of(tree::text(item, &["expression"])),
                    message: tree::text(item, &["message"]).trim().to_owned(),
                    worded: Expression::at(item, &["messageExpression"]),
                    reason: tree::text(item, &["reason"]).to_owned(),
                })
                .collect(),
            annotations: list("auditAnnotations")
                .map(|item| named(item, "key", "valueExpression"))
                .collect(),
            mutations: list("mutations").filter_map(mutation).collect(),
            failure: match tree::text(spec, &["failurePolicy"]) {
                "Ignore" => Failure::Ignore,
                _ => Failure::Fail,
            },
            param_kind: kind.is_object().then(|| {
                let text = |field| tree::text(kind, &[field]).to_owned();
                (text("apiVersion"), text("kind"))
            }),
            reinvoked: tree::text(spec, &["reinvocationPolicy"]) == "IfNeeded",
        }
    }
}

fn mutation(item: &Value) -> Option<Mutation> {
    match tree::text(item, &["patchType"]) {
        "ApplyConfiguration" => {
            Expression::at(item, &["applyConfiguration", "expression"]).map(Mutation::Apply)
        }
        "JSONPatch" => Expression::at(item, &["jsonPatch", "expression"]).map(Mutation::Patch),
        _ => None,
    }
}

/// Where a policy applies, and with which parameters.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) name: String,
    pub(super) policy: String,
    /// Nothing: wherever the policy does.
    pub(super) matcher: Option<Matcher>,
    /// `paramRef`, null when there is none.
    pub(super) params: Value,
    /// `validationActions`.
    pub(super) actions: Vec<String>,
}

impl Binding {
    pub(super) fn of(object: &Value) -> Self {
        let spec = tree::at(object, &["spec"]);
        let matched = tree::at(spec, &["matchResources"]);
        let actions = tree::list(spec, &["validationActions"]).iter();
        Self {
            name: tree::text(object, &["metadata", "name"]).to_owned(),
            policy: tree::text(spec, &["policyName"]).to_owned(),
            matcher: matched.is_object().then(|| Matcher::of_resources(matched)),
            params: tree::at(spec, &["paramRef"]).clone(),
            actions: actions
                .filter_map(|action| action.as_str().map(str::to_owned))
                .collect(),
        }
    }
}
