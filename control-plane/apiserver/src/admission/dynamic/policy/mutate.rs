//! Mutating policies: expressions that make a part of the object, or a patch of it.

use control_plane_apiextensions::cel::Value as CelValue;
use control_plane_apiextensions::cel::{Budget, OBJECT_COST_MAX, Variables};
use proto_api::apply::{self, FieldSet, Form, OnConflict, Writer};
use proto_api::patch;
use serde_json::Value;

use super::super::Mutated;
use super::super::request::Request;
use super::super::rules::World;
use super::decide::applies;
use super::params::params;
use super::parsed::{Binding, Expression, Failure, Mutation, Policy};
use super::scope::Scope;
use super::{Policies, refused};
use crate::registry::Kind;
use crate::status::StatusError;
use crate::tree;

/// The manager in whose name a part is merged; its entries are not kept.
const MANAGER: &str = "admission";

/// Which policies have changed the object, so that those before them may be asked again.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Names of policies that were asked and want to see what others change.
    asked: Vec<String>,
    /// Those that others changed the object after.
    again: Vec<String>,
    round: usize,
}

impl Turns {
    /// Notes a change by policy `name`; empty: by a webhook.
    pub(crate) fn changed_by(&mut self, name: &str) {
        for asked in &self.asked {
            if asked != name && !self.again.contains(asked) {
                self.again.push(asked.clone());
            }
        }
    }

    /// Whether somebody wants to be asked again.
    pub(crate) fn are_left(&self) -> bool {
        self.round < 2 && !self.again.is_empty()
    }
}

impl Policies {
    /// Lets the mutating policies change `object`. A second call with the same `turns` asks those
    /// that want to see the changes of others.
    ///
    /// # Errors
    /// A policy that cannot decide refuses.
    pub(crate) fn mutate(
        &self,
        request: &Request<'_>,
        object: &mut Value,
        world: World<'_>,
        turns: &mut Turns,
    ) -> Result<Mutated, StatusError> {
        if self.mutating.is_empty() || object.is_null() {
            return Ok(Mutated::No);
        }
        turns.round += 1;
        let set = self.mutating.current();
        let mut mutated = Mutated::No;
        for (policy, bindings) in &set.bound {
            if turns.round > 1 && !turns.again.contains(&policy.name) {
                continue;
            }
            let Some(kind) = policy.matcher.matches(request, object, world) else {
                continue;
            };
            for binding in bindings {
                let bound = binding.matcher.as_ref();
                if bound.is_some_and(|own| own.matches(request, object, world).is_none()) {
                    continue;
                }
                let refuse = |why: &str| refusal(request, policy, binding, why);
                let params = match params(policy, binding, request.namespace(), world) {
                    Ok(params) => params,
                    Err(_) if policy.failure == Failure::Ignore => continue,
                    Err(fault) => return Err(refuse(&fault.to_string())),
                };
                if policy.reinvoked && turns.round == 1 {
                    turns.asked.push(policy.name.clone());
                }
                for param in &params {
                    let variables = |object: &Value| {
                        let mut scope = Scope::new(request, object, world, &self.authorizer);
                        scope.variables(policy, &kind, param)
                    };
                    match mutated_by(policy, &kind, request, object, variables) {
                        Ok(made) if made == *object => {}
                        Ok(made) => {
                            *object = made;
                            mutated = Mutated::Yes;
                            turns.changed_by(&policy.name);
                        }
                        Err(_) if policy.failure == Failure::Ignore => {}
                        Err(why) => return Err(refuse(&why)),
                    }
                }
            }
        }
        Ok(mutated)
    }
}

fn refusal(request: &Request<'_>, policy: &Policy, binding: &Binding, why: &str) -> StatusError {
    let message = format!(
        "MutatingAdmissionPolicy '{}' with binding '{}' denied request: {why}",
        policy.name, binding.name
    );
    refused(request, message, "Invalid")
}

/// The object as the policy's mutations, one after the other, make it. `variables` makes the
/// variables of an object.
fn mutated_by(
    policy: &Policy,
    kind: &Kind,
    request: &Request<'_>,
    object: &Value,
    variables: impl Fn(&Value) -> Variables,
) -> Result<Value, String> {
    if !applies(policy, &variables(object))? {
        return Ok(object.clone());
    }
    let mut budget = Budget::new(OBJECT_COST_MAX);
    let mut object = object.clone();
    for mutation in &policy.mutations {
        let variables = variables(&object);
        let shown = request.shown(kind, &object);
        let made = match mutation {
            Mutation::Apply(expression) => {
                let part = evaluated(expression, &variables, &mut budget)?;
                merged(kind, shown, part)?
            }
            Mutation::Patch(expression) => {
                let operations = evaluated(expression, &variables, &mut budget)?;
                patch::json(&shown, &operations).map_err(|fault| fault.to_string())?
            }
        };
        object = request.stored(kind, made);
    }
    Ok(object)
}

fn evaluated(
    expression: &Expression,
    variables: &Variables,
    budget: &mut Budget,
) -> Result<Value, String> {
    let value: CelValue = expression.evaluate(variables, budget)?;
    value
        .to_json()
        .ok_or_else(|| format!("expression '{}' makes no object", expression.source))
}

/// `object` with what `part` says, merged as server-side apply does.
fn merged(kind: &Kind, object: Value, mut part: Value) -> Result<Value, String> {
    let gvk = proto_api::schema::Gvk {
        group: kind.group,
        version: kind.version,
        kind: kind.kind,
    };
    let custom = kind.custom.as_ref();
    let schema = match custom {
        Some(custom) => &custom.typed,
        None => proto_api::schema::builtin(),
    };
    let Some(type_id) = schema.kind(gvk) else {
        return Err(format!("no schema of {}", kind.kind));
    };
    let entries = tree::at(&object, &["metadata", "managedFields"]).clone();
    let api_version = kind.api_version();
    let fields = tree::as_object(&mut part);
    fields.insert("apiVersion".to_owned(), Value::from(api_version.clone()));
    fields.insert("kind".to_owned(), Value::from(kind.kind));
    let ignored = FieldSet::default();
    let writer = Writer {
        schema,
        type_id,
        form: if custom.is_some() {
            Form::Free
        } else {
            Form::Canonical
        },
        manager: MANAGER,
        api_version: &api_version,
        subresource: "",
        ignored: &ignored,
        now: "",
    };
    let mut live = object;
    tree::object_mut(&mut live, "metadata").shift_remove("managedFields");
    let mut made = apply::apply(&writer, Some(&live), &part, OnConflict::Take)
        .map_err(|fault| format!("error applying patch: {fault}"))?;
    let meta = tree::object_mut(&mut made, "metadata");
    if entries.is_null() {
        meta.shift_remove("managedFields");
    } else {
        meta.insert("managedFields".to_owned(), entries);
    }
    Ok(made)
}
