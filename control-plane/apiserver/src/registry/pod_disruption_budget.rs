//! PodDisruptionBudget: how many pods of a selection may be away at once.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::strategy::{Prepare, Strategy};
use crate::field::FieldError;
use crate::tables::{self, AGE, NAME, Table, age, column};
use crate::tree;
use crate::validation::{self, Place};

const EVICTION_POLICIES: &[&str] = &["AlwaysAllow", "IfHealthyBudget"];

#[derive(Debug)]
pub(super) struct PodDisruptionBudget;

pub(super) static TABLE: Table = Table {
    columns: &[
        NAME,
        column(
            "Min Available",
            "string",
            "The minimum number of pods that must be available.",
        ),
        column(
            "Max Unavailable",
            "string",
            "The maximum number of pods that may be unavailable.",
        ),
        column(
            "Allowed Disruptions",
            "integer",
            "Calculated number of pods that may be disrupted at this time.",
        ),
        AGE,
    ],
    row,
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        tables::name(object),
        tables::scalar_or(object, &["spec", "minAvailable"], "N/A"),
        tables::scalar_or(object, &["spec", "maxUnavailable"], "N/A"),
        json!(tree::int(object, &["status", "disruptionsAllowed"]).unwrap_or_default()),
        age(object, now),
    ]
}

impl Strategy for PodDisruptionBudget {
    fn has_generation(&self) -> bool {
        true
    }

    fn has_status(&self) -> bool {
        true
    }

    fn updates_unconditionally(&self) -> bool {
        false
    }

    fn prepare_create(&self, object: &mut Value) {
        let status = json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0,
            "expectedPods": 0});
        tree::as_object(object).insert("status".to_owned(), status);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = Place::root(object, "spec");
        let bounds = [spec.get("minAvailable"), spec.get("maxUnavailable")];
        if bounds.iter().all(Place::is_present) {
            spec.invalid(
                "minAvailable and maxUnavailable cannot be both set",
                &mut errors,
            );
        }
        for bound in bounds.iter().filter(|bound| bound.is_present()) {
            bound.int_or_percent(Some(100), &mut errors);
        }
        let selector = spec.get("selector");
        validation::label_selector(selector.value, &selector.path, &mut errors);
        spec.get("unhealthyPodEvictionPolicy")
            .one_of(EVICTION_POLICIES, &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, _old: &Value, write: Prepare) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if write == Prepare::Status {
            let status = Place::root(new, "status");
            for count in [
                "disruptionsAllowed",
                "currentHealthy",
                "desiredHealthy",
                "expectedPods",
            ] {
                status.get(count).non_negative(&mut errors);
            }
        }
        errors
    }
}
