//! StorageClass and VolumeAttributesClass: parameters for a driver under a name.

use jiff::Timestamp;
use proto_api::names;
use serde_json::{Value, json};

use super::strategy::{Prepare, Strategy};
use crate::field::{FieldError, Path};
use crate::tables::{self, AGE, NAME, Table, age, column};
use crate::tree;
use crate::validation::{self, Place};

/// Marks the class of claims that name none.
pub(crate) const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const DEFAULT_CLASS_BETA: &str = "storageclass.beta.kubernetes.io/is-default-class";
const PARAMETERS_MAX: usize = 512;
const PARAMETERS_BYTES_MAX: usize = 256 * 1024;
const RECLAIM_POLICIES: &[&str] = &["Delete", "Retain"];
const BINDING_MODES: &[&str] = &["Immediate", "WaitForFirstConsumer"];

#[derive(Debug)]
pub(super) struct StorageClass;

#[derive(Debug)]
pub(super) struct VolumeAttributesClass;

pub(super) static TABLE: Table = Table {
    columns: &[
        NAME,
        column("Provisioner", "string", "Who makes volumes of this class."),
        column(
            "ReclaimPolicy",
            "string",
            "What becomes of a volume whose claim is gone.",
        ),
        column(
            "VolumeBindingMode",
            "string",
            "When claims are bound to volumes.",
        ),
        column(
            "AllowVolumeExpansion",
            "string",
            "Whether claims may ask for more later.",
        ),
        AGE,
    ],
    row,
};

pub(super) static ATTRIBUTES_TABLE: Table = Table {
    columns: &[
        NAME,
        column(
            "DriverName",
            "string",
            "The driver that the attributes are for.",
        ),
        AGE,
    ],
    row: attributes_row,
};

/// Whether `object` is the class of claims that name none.
pub(crate) fn is_default(object: &Value) -> bool {
    let marks = tree::at(object, &["metadata", "annotations"]);
    [DEFAULT_CLASS, DEFAULT_CLASS_BETA]
        .iter()
        .any(|mark| tree::text(marks, &[mark]) == "true")
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let name = tree::text(object, &["metadata", "name"]);
    let name = if is_default(object) {
        format!("{name} (default)")
    } else {
        name.to_owned()
    };
    vec![
        json!(name),
        tables::text_or(object, &["provisioner"], ""),
        tables::text_or(object, &["reclaimPolicy"], "Delete"),
        tables::text_or(object, &["volumeBindingMode"], "Immediate"),
        json!(tree::flag(object, &["allowVolumeExpansion"])),
        age(object, now),
    ]
}

fn attributes_row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        tables::name(object),
        tables::text_or(object, &["driverName"], ""),
        age(object, now),
    ]
}

/// The driver that a class is for.
fn check_driver(driver: &Place<'_>, errors: &mut Vec<FieldError>) {
    if driver.required_text(errors) {
        let lower = driver.text().to_lowercase();
        validation::sentences(&lower, &driver.path, names::qualified_name(&lower), errors);
    }
}

fn check_parameters(parameters: &Place<'_>, errors: &mut Vec<FieldError>) {
    if parameters.len() > PARAMETERS_MAX {
        errors.push(FieldError::too_long(&parameters.path, PARAMETERS_MAX));
        return;
    }
    let mut size = 0;
    for (key, value) in tree::entries(parameters.value, &[]) {
        if key.is_empty() {
            let detail = "field can not be empty.";
            errors.push(FieldError::invalid(&parameters.path, "", detail));
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > PARAMETERS_BYTES_MAX {
        errors.push(FieldError::too_long(&parameters.path, PARAMETERS_BYTES_MAX));
    }
}

/// Reports fields that must stay what they are.
fn check_fixed(new: &Value, old: &Value, fields: &[&str]) -> Vec<FieldError> {
    let changed = fields
        .iter()
        .filter(|field| !tree::same(tree::at(new, &[field]), tree::at(old, &[field])));
    changed
        .map(|field| {
            let detail = format!("updates to {field} are forbidden.");
            FieldError::forbidden(&Path::root(field), detail)
        })
        .collect()
}

fn check_topologies(topologies: &Place<'_>, errors: &mut Vec<FieldError>) {
    for term in topologies.items() {
        let mut keys = std::collections::HashSet::new();
        for expression in term.get("matchLabelExpressions").items() {
            let values = expression.get("values");
            if values.len() == 0 {
                values.required("", errors);
            }
            let mut seen = std::collections::HashSet::new();
            for value in values.items().filter(|value| !seen.insert(value.text())) {
                errors.push(FieldError::duplicate(&value.path, value.text()));
            }
            let key = expression.get("key");
            key.named(names::qualified_name, errors);
            if !keys.insert(key.text()) {
                errors.push(FieldError::duplicate(&key.path, key.text()));
            }
        }
    }
}

impl Strategy for StorageClass {
    fn default(&self, object: &mut Value) {
        let object = tree::as_object(object);
        tree::default_text(object, "reclaimPolicy", "Delete");
        tree::default_text(object, "volumeBindingMode", "Immediate");
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        check_driver(&Place::root(object, "provisioner"), &mut errors);
        check_parameters(&Place::root(object, "parameters"), &mut errors);
        Place::root(object, "reclaimPolicy").one_of(RECLAIM_POLICIES, &mut errors);
        Place::root(object, "volumeBindingMode").one_of(BINDING_MODES, &mut errors);
        check_topologies(&Place::root(object, "allowedTopologies"), &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _write: Prepare) -> Vec<FieldError> {
        let mut errors = check_fixed(new, old, &["parameters", "provisioner", "reclaimPolicy"]);
        validation::immutable(new, old, &["volumeBindingMode"], &mut errors);
        errors
    }
}

impl Strategy for VolumeAttributesClass {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        check_driver(&Place::root(object, "driverName"), &mut errors);
        let parameters = Place::root(object, "parameters");
        check_parameters(&parameters, &mut errors);
        if parameters.len() == 0 {
            parameters.required("must contain at least one key/value pair", &mut errors);
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _write: Prepare) -> Vec<FieldError> {
        check_fixed(new, old, &["driverName", "parameters"])
    }
}
