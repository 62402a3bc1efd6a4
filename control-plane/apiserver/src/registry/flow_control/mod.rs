//! FlowSchema and PriorityLevelConfiguration: which requests share which part of the server. What
//! is done with them is in `flow/`.

mod bootstrap;
mod rules;
mod table;

use proto_api::names;
use serde_json::{Value, json};

use super::strategy::{Prepare, Strategy};
use crate::field::{FieldError, Path};
use crate::tree;
use crate::validation::Place;

pub(crate) use self::bootstrap::{
    AUTO_UPDATE, catch_all, levels, mandatory_levels, mandatory_schemas, schemas,
};
pub(super) use self::table::{LEVEL_TABLE, SCHEMA_TABLE};

const EXEMPT: &str = "exempt";
const PRECEDENCE: i64 = 1000;
const PRECEDENCE_MAX: i64 = 10_000;
const SHARES: i64 = 30;
const QUEUES_MAX: i64 = 10_000_000;
const DISTINGUISHERS: &[&str] = &["ByNamespace", "ByUser"];
const LEVEL_TYPES: &[&str] = &["Exempt", "Limited"];
const RESPONSES: &[&str] = &["Queue", "Reject"];

#[derive(Debug)]
pub(super) struct FlowSchema;

#[derive(Debug)]
pub(super) struct PriorityLevel;

/// The objects without which the server could lock itself out keep the spec they are made with.
fn check_mandatory(object: &Value, fixed: Option<Value>, errors: &mut Vec<FieldError>) {
    if fixed.is_some_and(|fixed| fixed["spec"] != object["spec"]) {
        let name = tree::text(object, &["metadata", "name"]);
        let detail = format!("spec of '{name}' must equal the fixed value");
        let spec = tree::at(object, &["spec"]).clone();
        errors.push(FieldError::invalid(&Path::root("spec"), spec, detail));
    }
}

fn check_status(object: &Value, write: Prepare) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if write == Prepare::Main {
        return errors;
    }
    let mut seen = std::collections::HashSet::new();
    for condition in Place::root(object, "status").get("conditions").items() {
        let kind = condition.get("type");
        if !seen.insert(kind.text()) {
            errors.push(FieldError::duplicate(&kind.path, kind.text()));
        }
        if kind.text().is_empty() {
            kind.required("must not be empty", &mut errors);
        }
    }
    errors
}

/// Sets a number that is absent or zero.
fn default_number(map: &mut tree::Object, name: &str, value: i64) {
    let present = map.get(name).and_then(Value::as_i64).unwrap_or_default();
    if present == 0 {
        map.insert(name.to_owned(), json!(value));
    }
}

impl Strategy for FlowSchema {
    fn has_generation(&self) -> bool {
        true
    }

    fn has_status(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let spec = tree::object_mut(object, "spec");
        default_number(spec, "matchingPrecedence", PRECEDENCE);
    }

    fn prepare_create(&self, object: &mut Value) {
        tree::as_object(object).insert("status".to_owned(), json!({}));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let name = tree::text(object, &["metadata", "name"]);
        let spec = Place::root(object, "spec");
        let precedence = spec.get("matchingPrecedence");
        match precedence.int().unwrap_or_default() {
            ..=0 => precedence.invalid("must be a positive value", &mut errors),
            1 if name != EXEMPT => {
                let detail = "only the schema named 'exempt' may have matchingPrecedence 1";
                precedence.invalid(detail, &mut errors);
            }
            1..=PRECEDENCE_MAX => {}
            _ => {
                let detail = format!("must not be greater than {PRECEDENCE_MAX}");
                precedence.invalid(detail, &mut errors);
            }
        }
        let method = spec.get("distinguisherMethod");
        if method.is_present() && !DISTINGUISHERS.contains(&method.get("type").text()) {
            errors.push(FieldError::not_supported(
                &method.get("type").path,
                method.get("type").text(),
                DISTINGUISHERS,
            ));
        }
        let level = spec.get("priorityLevelConfiguration").get("name");
        if level.text().is_empty() {
            level.required("must reference a priority level", &mut errors);
        } else {
            level.named(names::dns_subdomain, &mut errors);
        }
        for rule in spec.get("rules").items() {
            rules::check(&rule, &mut errors);
        }
        check_mandatory(object, bootstrap::mandatory_schema(name), &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, _old: &Value, write: Prepare) -> Vec<FieldError> {
        check_status(new, write)
    }
}

fn check_limited(limited: &Place<'_>, errors: &mut Vec<FieldError>) {
    check_shares(limited, errors);
    limited.get("borrowingLimitPercent").non_negative(errors);
    let response = limited.get("limitResponse");
    let (kind, queuing) = (response.get("type"), response.get("queuing"));
    match (kind.text(), queuing.is_present()) {
        ("Reject", true) => {
            let detail = "must be nil if limited.limitResponse.type is not Limited";
            queuing.forbidden(detail, errors);
        }
        ("Queue", false) => {
            let detail = "must not be empty if limited.limitResponse.type is Limited";
            queuing.required(detail, errors);
        }
        ("Queue", true) => check_queuing(&queuing, errors),
        ("Reject", false) => {}
        _ => errors.push(FieldError::not_supported(
            &kind.path,
            kind.text(),
            RESPONSES,
        )),
    }
}

fn check_shares(part: &Place<'_>, errors: &mut Vec<FieldError>) {
    let shares = part.get("nominalConcurrencyShares");
    if shares.int().is_some_and(|shares| shares < 0) {
        shares.invalid("must be a non-negative integer", errors);
    }
    let lendable = part.get("lendablePercent");
    let fits = |percent: i64| (0..=100).contains(&percent);
    if lendable.int().is_some_and(|percent| !fits(percent)) {
        lendable.invalid("must be between 0 and 100, inclusive", errors);
    }
}

fn check_queuing(queuing: &Place<'_>, errors: &mut Vec<FieldError>) {
    let (queues, hand) = (queuing.get("queues"), queuing.get("handSize"));
    let number = |field: &Place<'_>| field.int().unwrap_or_default();
    for field in [&queuing.get("queueLengthLimit"), &queues, &hand] {
        if number(field) <= 0 {
            field.invalid("must be positive", errors);
        }
    }
    if number(&queues) > QUEUES_MAX {
        queues.invalid(format!("must not be greater than {QUEUES_MAX}"), errors);
    }
    if number(&hand) > number(&queues) {
        let detail = format!("should not be greater than queues ({})", number(&queues));
        hand.invalid(detail, errors);
    }
}

impl Strategy for PriorityLevel {
    fn has_generation(&self) -> bool {
        true
    }

    fn has_status(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let spec = tree::object_mut(object, "spec");
        if spec.get("type").is_some_and(|kind| kind == "Exempt") {
            let exempt = tree::as_object(spec.entry("exempt".to_owned()).or_insert(Value::Null));
            tree::default(exempt, "nominalConcurrencyShares", 0);
            tree::default(exempt, "lendablePercent", 0);
        }
        let Some(Value::Object(limited)) = spec.get_mut("limited") else {
            return;
        };
        tree::default(limited, "nominalConcurrencyShares", SHARES);
        tree::default(limited, "lendablePercent", 0);
        let response = limited.get_mut("limitResponse");
        if let Some(Value::Object(queuing)) = response.and_then(|it| it.get_mut("queuing")) {
            default_number(queuing, "queues", 64);
            default_number(queuing, "handSize", 8);
            default_number(queuing, "queueLengthLimit", 50);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        tree::as_object(object).insert("status".to_owned(), json!({}));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let name = tree::text(object, &["metadata", "name"]);
        let spec = Place::root(object, "spec");
        let (kind, limited, exempt) = (spec.get("type"), spec.get("limited"), spec.get("exempt"));
        if (name == EXEMPT) != (kind.text() == "Exempt") {
            kind.invalid(
                "type must be 'Exempt' if and only if name is 'exempt'",
                &mut errors,
            );
        }
        match kind.text() {
            "Exempt" => {
                if limited.is_present() {
                    limited.forbidden("must be nil if the type is not Limited", &mut errors);
                }
                check_shares(&exempt, &mut errors);
            }
            "Limited" => {
                if exempt.is_present() {
                    exempt.forbidden("must be nil if the type is Limited", &mut errors);
                }
                if limited.is_present() {
                    check_limited(&limited, &mut errors);
                } else {
                    limited.required("must not be empty when type is Limited", &mut errors);
                }
            }
            _ => errors.push(FieldError::not_supported(
                &kind.path,
                kind.text(),
                LEVEL_TYPES,
            )),
        }
        // The shares of the exempt level may be tuned.
        let fixed = bootstrap::mandatory_level(name).filter(|_| name != EXEMPT);
        check_mandatory(object, fixed, &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, _old: &Value, write: Prepare) -> Vec<FieldError> {
        check_status(new, write)
    }
}

#[cfg(test)]
mod tests;
