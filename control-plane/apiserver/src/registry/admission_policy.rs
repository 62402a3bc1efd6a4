//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy with their bindings: rules about writes
//! as expressions.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use control_plane_apiextensions::cel::{Declared, Env, ObjectType, Program, Type};
use jiff::Timestamp;
use proto_api::names;
use serde_json::{Value, json};

use super::admission_rules::{
    self as rules, FAILURE_POLICIES, count_text, validate_conditions, validate_expression,
    validate_match, validate_param_kind,
};
use super::strategy::Strategy;
use crate::field::FieldError;
use crate::tables::{AGE, Column, NAME, Table, age, column};
use crate::tree;
use crate::validation::{Errors, Place, label_selector};

/// Which kind of policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    /// Refuses.
    Validating,
    /// Changes.
    Mutating,
}

/// Where, and with which parameters, a policy of the kind applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Binding(pub(super) Policy);

const ANNOTATIONS_MAX: usize = 20;
const VALUE_BYTES_MAX: usize = 5 * 1024;
const ACTIONS: &[&str] = &["Audit", "Deny", "Warn"];
const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge"];
const ONE_NEEDED: &str = "validations or auditAnnotations must contain at least one item";

const PARAM_KIND: Column = column(
    "ParamKind",
    "string",
    "ParamKind specifies the kind of resources used to parameterize this policy",
);

pub(super) static VALIDATING_TABLE: Table = Table {
    columns: &[
        NAME,
        column(
            "Validations",
            "integer",
            "Validations indicates the number of validation rules defined in this configuration",
        ),
        PARAM_KIND,
        AGE,
    ],
    row: |object, now| policy_row(object, now, "validations"),
};

pub(super) static MUTATING_TABLE: Table = Table {
    columns: &[
        NAME,
        column(
            "Mutations",
            "integer",
            "Mutation indicates the number of mutations rules defined in this configuration",
        ),
        PARAM_KIND,
        AGE,
    ],
    row: |object, now| policy_row(object, now, "mutations"),
};

pub(super) static BINDING_TABLE: Table = Table {
    columns: &[
        NAME,
        column(
            "PolicyName",
            "string",
            "PolicyName indicates the policy definition which the policy binding binded to",
        ),
        column(
            "ParamRef",
            "string",
            "ParamRef indicates the param resource which sets the configration param",
        ),
        AGE,
    ],
    row: binding_row,
};

fn policy_row(object: &Value, now: Timestamp, rules: &str) -> Vec<Value> {
    let kind = tree::at(object, &["spec", "paramKind"]);
    let params = if kind.is_object() {
        let version = tree::text(kind, &["apiVersion"]);
        format!("{version}/{}", tree::text(kind, &["kind"]))
    } else {
        "<unset>".to_owned()
    };
    vec![
        json!(tree::text(object, &["metadata", "name"])),
        count_text(object, &["spec", rules]),
        json!(params),
        age(object, now),
    ]
}

fn binding_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let reference = tree::at(object, &["spec", "paramRef"]);
    let (namespace, name) = (
        tree::text(reference, &["namespace"]),
        tree::text(reference, &["name"]),
    );
    let params = if reference.is_null() {
        "<unset>".to_owned()
    } else if name.is_empty() {
        format!("{namespace}/*")
    } else if namespace.is_empty() {
        format!("*/{name}")
    } else {
        format!("{namespace}/{name}")
    };
    vec![
        json!(tree::text(object, &["metadata", "name"])),
        json!(tree::text(object, &["spec", "policyName"])),
        json!(params),
        age(object, now),
    ]
}

impl Strategy for Policy {
    fn has_generation(&self) -> bool {
        true
    }

    fn has_status(&self) -> bool {
        *self == Self::Validating
    }

    fn default(&self, object: &mut Value) {
        let spec = tree::object_mut(object, "spec");
        tree::default_text(spec, "failurePolicy", "Fail");
        if let Some(Value::Object(matched)) = spec.get_mut("matchConstraints") {
            rules::default(matched, &["resourceRules", "excludeResourceRules"]);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = Place::root(object, "spec");
        let failure = spec.get("failurePolicy");
        failure.required_one_of(FAILURE_POLICIES, &mut errors);
        let kind = spec.get("paramKind");
        if kind.is_present() {
            validate_param_kind(&kind, &mut errors);
        }
        let matched = spec.get("matchConstraints");
        if matched.is_present() {
            validate_match(&matched, &mut errors);
            let wanted = matched.get("resourceRules");
            if wanted.is_unset() {
                wanted.required("", &mut errors);
            }
        } else {
            matched.required("", &mut errors);
        }
        let env = environment(kind.is_present());
        validate_conditions(&spec.get("matchConditions"), &env, &mut errors);
        let env = validate_variables(&spec.get("variables"), env, &mut errors);
        match self {
            Self::Validating => validate_validations(object, &spec, &env, &mut errors),
            Self::Mutating => validate_mutations(&spec, &env, &mut errors),
        }
        errors
    }
}

/// What expressions may name; parameters when the policy says of which kind.
fn environment(params: bool) -> Env {
    let mut names = vec![
        "object",
        "oldObject",
        "request",
        "namespaceObject",
        "authorizer",
    ];
    if params {
        names.push("params");
    }
    Env::dynamic(&names)
}

/// Returns what the expressions after the variables may name.
fn validate_variables(variables: &Place<'_>, env: Env, errors: &mut Errors) -> Env {
    let mut fields = BTreeMap::new();
    let mut env = with_variables(env, &fields);
    for variable in variables.items() {
        let name = variable.get("name");
        let text = name.text();
        let head = |c: char| c.is_ascii_alphabetic() || c == '_';
        let tail = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if text.trim().is_empty() {
            name.required("name is not specified", errors);
        } else if !text.starts_with(head) || !text.chars().all(tail) {
            name.invalid("name is not a valid CEL identifier", errors);
        }
        expression(&variable.get("expression"), &env, &[], errors);
        let made = Program::checked(variable.get("expression").text(), &env);
        let made = made.map_or(Type::Dyn, |program| program.result().clone());
        fields.insert(text.to_owned(), made);
        env = with_variables(env, &fields);
    }
    env
}

fn with_variables(env: Env, fields: &BTreeMap<String, Type>) -> Env {
    let variables = Type::Object(Arc::new(ObjectType {
        name: "kubernetes.variables".to_owned(),
        fields: fields.clone(),
        open: false,
    }));
    env.with("variables", Arc::new(Declared::unsized_of(variables)))
}

fn expression(expression: &Place<'_>, env: &Env, wanted: &[Type], errors: &mut Errors) {
    if expression.text().trim().is_empty() {
        expression.required("expression is not specified", errors);
    } else {
        validate_expression(expression, env, wanted, errors);
    }
}

fn validate_validations(object: &Value, spec: &Place<'_>, env: &Env, errors: &mut Errors) {
    let (validations, annotations) = (spec.get("validations"), spec.get("auditAnnotations"));
    if validations.is_unset() && annotations.is_unset() {
        validations.required(ONE_NEEDED, errors);
        annotations.required(ONE_NEEDED, errors);
        return;
    }
    for validation in validations.items() {
        expression(&validation.get("expression"), env, &[Type::Bool], errors);
        let worded = validation.get("messageExpression");
        if !worded.text().is_empty() && worded.text().trim().is_empty() {
            worded.invalid("must be non-empty if specified", errors);
        } else if !worded.text().is_empty() {
            validate_expression(&worded, env, &[Type::Text], errors);
        }
        let message = validation.get("message");
        if !message.text().is_empty() && message.text().trim().is_empty() {
            message.invalid("message must be non-empty if specified", errors);
        } else if message.text().trim().contains(['\n', '\r']) {
            message.invalid("message must not contain line breaks", errors);
        }
        validation.get("reason").one_of(REASONS, errors);
    }
    if annotations.len() > ANNOTATIONS_MAX {
        let detail = format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations");
        annotations.invalid(detail, errors);
    }
    let name = tree::text(object, &["metadata", "name"]);
    let mut seen = HashSet::new();
    for annotation in annotations.items() {
        let key = annotation.get("key");
        let whole = format!("{name}/{}", key.text());
        let problems = names::qualified_name(&whole);
        crate::validation::sentences(&whole, &key.path, problems, errors);
        let value = annotation.get("valueExpression");
        if value.text().trim().is_empty() {
            value.required("valueExpression is not specified", errors);
        } else if value.text().len() > VALUE_BYTES_MAX {
            errors.push(FieldError::too_long(&value.path, VALUE_BYTES_MAX));
        } else {
            validate_expression(&value, env, &[Type::Text, Type::Null], errors);
        }
        if !seen.insert(key.text()) {
            key.duplicate(errors);
        }
    }
}

fn validate_mutations(spec: &Place<'_>, env: &Env, errors: &mut Errors) {
    let again = spec.get("reinvocationPolicy");
    again.required_one_of(&["IfNeeded", "Never"], errors);
    let mutations = spec.get("mutations");
    if mutations.is_unset() {
        mutations.required("mutations must contain at least one item", errors);
    }
    for mutation in mutations.items() {
        let kind = mutation.get("patchType");
        let form = match kind.text() {
            "ApplyConfiguration" => "applyConfiguration",
            "JSONPatch" => "jsonPatch",
            _ => {
                kind.required_one_of(&["ApplyConfiguration", "JSONPatch"], errors);
                continue;
            }
        };
        let patch = mutation.get(form);
        if patch.is_present() {
            expression(&patch.get("expression"), env, &[], errors);
        } else {
            let detail = format!("must be specified when patchType is {}", kind.text());
            patch.required(detail, errors);
        }
        for other in ["applyConfiguration", "jsonPatch"] {
            if other != form && mutation.get(other).is_present() {
                let detail = format!("must not be specified when patchType is {}", kind.text());
                mutation.get(other).invalid(detail, errors);
            }
        }
    }
}

impl Strategy for Binding {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let spec = tree::object_mut(object, "spec");
        if let Some(Value::Object(matched)) = spec.get_mut("matchResources") {
            rules::default(matched, &["resourceRules", "excludeResourceRules"]);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = Place::root(object, "spec");
        let policy = spec.get("policyName");
        if policy.required_text(&mut errors) {
            policy.named(names::dns_subdomain, &mut errors);
        }
        validate_params(&spec.get("paramRef"), &mut errors);
        let matched = spec.get("matchResources");
        if matched.is_present() {
            validate_match(&matched, &mut errors);
        }
        if self.0 == Policy::Validating {
            validate_actions(&spec.get("validationActions"), &mut errors);
        }
        errors
    }
}

fn validate_params(reference: &Place<'_>, errors: &mut Errors) {
    if !reference.is_present() {
        return;
    }
    let (name, selector) = (reference.get("name"), reference.get("selector"));
    name.named_if_set(names::path_segment, errors);
    match (name.text().is_empty(), selector.is_present()) {
        (false, true) => {
            let detail = "name and selector are mutually exclusive";
            name.forbidden(detail, errors);
        }
        (true, false) => {
            reference.required("one of name or selector must be specified", errors);
        }
        _ => label_selector(selector.value, &selector.path, errors),
    }
    let missing = reference.get("parameterNotFoundAction");
    missing.required_one_of(&["Allow", "Deny"], errors);
}

fn validate_actions(actions: &Place<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for action in actions.items() {
        action.one_of(ACTIONS, errors);
        if !seen.insert(action.text()) {
            action.duplicate(errors);
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        actions.invalid(detail, errors);
    }
    if seen.is_empty() {
        actions.required("at least one validation action is required", errors);
    }
}
