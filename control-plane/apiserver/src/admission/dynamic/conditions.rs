//! `matchConditions` of webhooks: expressions that all must hold for one to be asked.

use control_plane_apiextensions::cel::{
    Budget, CelError, EXPRESSION_COST_MAX, Program, Value as CelValue, Variables,
};
use serde_json::Value;

use crate::tree;

/// What the conditions of one webhook may cost together (as upstream).
const COST_MAX: u64 = EXPRESSION_COST_MAX * 5 / 2;
/// What an expression may name.
const VARIABLES: [&str; 4] = ["object", "oldObject", "request", "authorizer"];

/// The conditions, parsed.
#[derive(Debug)]
pub(crate) struct Conditions {
    all: Vec<Condition>,
}

#[derive(Debug)]
struct Condition {
    name: String,
    program: Result<Program, CelError>,
}

impl Conditions {
    /// Of a list `matchConditions`.
    pub(crate) fn of(list: &Value) -> Self {
        let of = |condition: &Value| Condition {
            name: tree::text(condition, &["name"]).to_owned(),
            program: Program::compile(tree::text(condition, &["expression"]), &VARIABLES),
        };
        Self {
            all: tree::list(list, &[]).iter().map(of).collect(),
        }
    }

    /// Whether there are none.
    pub(crate) const fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether all hold. One that does not decides, also when others cannot be evaluated.
    ///
    /// # Errors
    /// What is wrong with those that cannot be evaluated, when none says no.
    pub(crate) fn hold(&self, variables: &Variables) -> Result<bool, String> {
        let mut budget = Budget::new(COST_MAX);
        let mut faults = Vec::new();
        for condition in &self.all {
            match condition.evaluate(variables, &mut budget) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(fault) => faults.push(fault),
            }
        }
        match faults.as_slice() {
            [] => Ok(true),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }
}

impl Condition {
    fn evaluate(&self, variables: &Variables, budget: &mut Budget) -> Result<bool, String> {
        let program = match &self.program {
            Ok(program) => program,
            Err(fault) => return Err(format!("compilation error: {fault}")),
        };
        match program.evaluate(variables, budget) {
            Ok(CelValue::Bool(holds)) => Ok(holds),
            Ok(_) => Err(format!(
                "match condition '{}' does not evaluate to a bool",
                self.name
            )),
            Err(fault) => Err(format!(
                "expression of match condition '{}' resulted in error: {fault}",
                self.name
            )),
        }
    }
}
