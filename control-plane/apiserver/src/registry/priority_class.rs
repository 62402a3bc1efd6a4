//! PriorityClass: names for the numbers by which pods displace each other. The two classes of the
//! system are there from the first second and stay.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::strategy::{Prepare, Strategy};
use crate::field::{FieldError, Path};
use crate::tables::{self, AGE, NAME, Table, age, column};
use crate::tree;
use crate::validation::Place;

/// Highest value of a class that a user makes.
const USER_VALUE_MAX: i64 = 1_000_000_000;
const SYSTEM_PREFIX: &str = "system-";
const POLICIES: &[&str] = &["PreemptLowerPriority", "Never"];
/// Name, value, description.
pub(crate) const SYSTEM_CLASSES: &[(&str, i64, &str)] = &[
    (
        "system-cluster-critical",
        2_000_000_000,
        "For system critical pods that must run in the cluster, but may move to another node.",
    ),
    (
        "system-node-critical",
        2_000_001_000,
        "For system critical pods that must not be moved from their current node.",
    ),
];

#[derive(Debug)]
pub(super) struct PriorityClass;

pub(super) static TABLE: Table = Table {
    columns: &[
        NAME,
        column("Value", "integer", "The priority of pods of this class."),
        column(
            "Global-Default",
            "boolean",
            "Whether pods without a class are of this one.",
        ),
        AGE,
        column(
            "PreemptionPolicy",
            "string",
            "Whether pods of this class displace others.",
        ),
    ],
    row,
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        tables::name(object),
        json!(tree::int(object, &["value"]).unwrap_or_default()),
        json!(tree::flag(object, &["globalDefault"])),
        age(object, now),
        tables::text_or(object, &["preemptionPolicy"], "<unset>"),
    ]
}

/// The classes that every cluster has.
pub(crate) fn system_classes() -> impl Iterator<Item = Value> {
    SYSTEM_CLASSES.iter().map(|(name, value, description)| {
        json!({"metadata": {"name": name}, "value": value, "description": description})
    })
}

/// Whether `name` is one of the system's classes, which nobody may delete.
pub(crate) fn is_system(name: &str) -> bool {
    SYSTEM_CLASSES.iter().any(|(known, ..)| *known == name)
}

/// What is wrong with a class whose name is reserved, if anything.
fn system_fault(name: &str, object: &Value) -> Option<String> {
    let Some((_, value, _)) = SYSTEM_CLASSES.iter().find(|(known, ..)| *known == name) else {
        return Some(format!("{name} is not a known system priority class"));
    };
    if tree::int(object, &["value"]) != Some(*value) {
        return Some(format!("value of {name} PriorityClass must be {value}"));
    }
    let default = tree::flag(object, &["globalDefault"]);
    default.then(|| format!("globalDefault of {name} PriorityClass must be false"))
}

impl Strategy for PriorityClass {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let object = tree::as_object(object);
        tree::default(object, "value", 0);
        tree::default_text(object, "preemptionPolicy", POLICIES[0]);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let name = tree::text(object, &["metadata", "name"]);
        if name.starts_with(SYSTEM_PREFIX) {
            if let Some(fault) = system_fault(name, object) {
                let detail = format!(
                    "priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system \
                     use only. error: {fault}"
                );
                let path = Path::root("metadata").child("name");
                errors.push(FieldError::forbidden(&path, detail));
            }
        } else if tree::int(object, &["value"]).unwrap_or_default() > USER_VALUE_MAX {
            let detail =
                format!("maximum allowed value of a user defined priority is {USER_VALUE_MAX}");
            errors.push(FieldError::forbidden(&Path::root("value"), detail));
        }
        Place::root(object, "preemptionPolicy").one_of(POLICIES, &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _write: Prepare) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let value = Place::root(new, "value");
        if !tree::same(value.value, tree::at(old, &["value"])) {
            value.forbidden("may not be changed in an update.", &mut errors);
        }
        let before = Place::root(old, "preemptionPolicy");
        Place::root(new, "preemptionPolicy").unchanged(&before, &mut errors);
        errors
    }
}
