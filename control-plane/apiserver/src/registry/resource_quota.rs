//! ResourceQuota: how much a namespace may have of something.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::strategy::{Prepare, Strategy};
use crate::field::FieldError;
use crate::tables::{AGE, Column, NAME, Table, age, column};
use crate::tree;
use crate::validation::{Errors, IMMUTABLE, Place, quantity_value, resource_name};

#[derive(Debug)]
pub(super) struct ResourceQuota;

const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
const CONFLICTS: &[[&str; 2]] = &[
    ["BestEffort", "NotBestEffort"],
    ["Terminating", "NotTerminating"],
];
/// Resources of pods, which the scopes of pods narrow.
const POD_COMPUTE: &[&str] = &[
    "cpu",
    "memory",
    "limits.cpu",
    "limits.memory",
    "requests.cpu",
    "requests.memory",
];
const EXISTS: &str = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
    ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, \
    ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";

const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Request",
        "string",
        "Request represents a minimum amount of cpu/memory that a container may consume.",
    ),
    column(
        "Limit",
        "string",
        "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
    ),
    AGE,
];

pub(super) static TABLE: Table = Table {
    columns: COLUMNS,
    row,
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut names: Vec<&String> = tree::entries(object, &["status", "hard"])
        .map(|(name, _)| name)
        .collect();
    names.sort();
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for name in names {
        let text = |field| match tree::text(object, &["status", field, name]) {
            "" => "0",
            text => text,
        };
        let target = if name.starts_with("limits") {
            &mut limits
        } else {
            &mut requests
        };
        target.push(format!("{name}: {}/{}", text("used"), text("hard")));
    }
    vec![
        json!(tree::text(object, &["metadata", "name"])),
        json!(requests.join(", ")),
        json!(limits.join(", ")),
        age(object, now),
    ]
}

impl Strategy for ResourceQuota {
    fn has_status(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = Place::root(object, "spec");
        let status = Place::root(object, "status");
        for amounts in [spec.get("hard"), status.get("hard"), status.get("used")] {
            for (name, value) in amounts.entries() {
                resource_name(name, &value, &mut errors);
                quantity_value(name, &value, &mut errors);
            }
        }
        let hard: Vec<&str> = spec.get("hard").entries().map(|(name, _)| name).collect();
        let scopes = spec.get("scopes");
        let mut named = Vec::new();
        for scope in scopes.items() {
            check_scope(scope.text(), &scopes, &hard, &mut errors);
            named.push(scope.text());
        }
        conflicts(&named, &scopes, &mut errors);
        validate_selector(&spec.get("scopeSelector"), &hard, &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, write: Prepare) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let sorted = |object| {
            let mut scopes: Vec<&str> = tree::list(object, &["spec", "scopes"])
                .iter()
                .filter_map(Value::as_str)
                .collect();
            scopes.sort_unstable();
            scopes
        };
        if write == Prepare::Main && sorted(new) != sorted(old) {
            let scopes = Place::root(new, "spec").get("scopes");
            scopes.invalid(IMMUTABLE, &mut errors);
        }
        errors
    }
}

fn check_scope(scope: &str, place: &Place<'_>, hard: &[&str], errors: &mut Errors) {
    if !SCOPES.contains(&scope) {
        place.invalid("unsupported scope", errors);
    }
    let fits = |name: &&&str| match scope {
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => {
            **name == "pods" || POD_COMPUTE.contains(*name) || name.contains("ephemeral-storage")
        }
        "BestEffort" => **name == "pods",
        "VolumeAttributesClass" => name.contains("storage") || name.contains("claims"),
        _ => true,
    };
    let plain = |name: &&&str| !name.contains('/') && !name.contains("hugepages");
    for _ in hard.iter().filter(plain).filter(|name| !fits(name)) {
        place.invalid("unsupported scope applied to resource", errors);
    }
}

fn conflicts(named: &[&str], place: &Place<'_>, errors: &mut Errors) {
    for pair in CONFLICTS {
        if pair.iter().all(|scope| named.contains(scope)) {
            place.invalid("conflicting scopes", errors);
        }
    }
}

fn validate_selector(selector: &Place<'_>, hard: &[&str], errors: &mut Errors) {
    let list = selector.get("matchExpressions");
    let mut named = Vec::new();
    for requirement in list.items() {
        let scope = requirement.get("scopeName").text();
        check_scope(scope, &list, hard, errors);
        named.push(scope);
        // Upstream reports the fields of a requirement at the list.
        let at = |field: &str| {
            let value = tree::at(requirement.value, &[field]);
            Place::new(value, list.path.child(field))
        };
        let (operator, values) = (at("operator"), at("values"));
        let by_value = matches!(scope, "PriorityClass" | "VolumeAttributesClass");
        if !by_value && SCOPES.contains(&scope) && operator.text() != "Exists" {
            operator.invalid(EXISTS, errors);
        }
        match operator.text() {
            "In" | "NotIn" if values.is_unset() => {
                let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                values.required(detail, errors);
            }
            "Exists" | "DoesNotExist" if !values.is_unset() => {
                let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                values.invalid(detail, errors);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => operator.invalid("not a valid selector operator", errors),
        }
    }
    conflicts(&named, &list, errors);
}
