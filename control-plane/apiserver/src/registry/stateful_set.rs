//! StatefulSet: pods with names and storage of their own.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::strategy::{Prepare, Strategy};
use super::workload::{CONTAINERS, IMAGES, default_template, template_cells};
use super::{volume_claim, workload};
use crate::field::{FieldError, Path};
use crate::tables::{AGE, Column, NAME, Table, age, column};
use crate::tree;
use crate::validation::{self, Errors, Place};

#[derive(Debug)]
pub(super) struct StatefulSet;

const FROZEN: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', \
    'template', 'updateStrategy', 'revisionHistoryLimit', \
    'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
/// Fields of the spec that may change.
const FREE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

const COLUMNS: &[Column] = &[
    NAME,
    column("Ready", "string", "Number of the pod with ready state"),
    AGE,
    CONTAINERS,
    IMAGES,
];

pub(super) static TABLE: Table = Table {
    columns: COLUMNS,
    row,
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let ready = workload::count(object, &["status", "readyReplicas"]);
    let desired = workload::count(object, &["spec", "replicas"]);
    let [containers, images, _] = template_cells(object, &["spec", "template"]);
    vec![
        json!(tree::text(object, &["metadata", "name"])),
        json!(format!("{ready}/{desired}")),
        age(object, now),
        containers,
        images,
    ]
}

impl Strategy for StatefulSet {
    fn has_generation(&self) -> bool {
        true
    }

    fn has_status(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        default_template(object);
        let spec = tree::object_mut(object, "spec");
        tree::default(spec, "revisionHistoryLimit", 10);
        tree::default_text(spec, "podManagementPolicy", "OrderedReady");
        let slot = spec
            .entry("updateStrategy".to_owned())
            .or_insert(Value::Null);
        let strategy = tree::as_object(slot);
        tree::default_text(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate" {
            let slot = strategy
                .entry("rollingUpdate".to_owned())
                .or_insert(Value::Null);
            tree::default(tree::as_object(slot), "partition", 0);
        }
        let slot = spec
            .entry("persistentVolumeClaimRetentionPolicy".to_owned())
            .or_insert(Value::Null);
        for field in ["whenDeleted", "whenScaled"] {
            tree::default_text(tree::as_object(slot), field, "Retain");
        }
        for claim in tree::list_mut(spec, "volumeClaimTemplates") {
            volume_claim::default_spec(tree::object_mut(claim, "spec"));
            let status = tree::object_mut(claim, "status");
            tree::default_text(status, "phase", "Pending");
            let claim = tree::as_object(claim);
            tree::default_text(claim, "apiVersion", "v1");
            tree::default_text(claim, "kind", "PersistentVolumeClaim");
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        let status = json!({"replicas": 0, "availableReplicas": 0});
        tree::as_object(object).insert("status".to_owned(), status);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = Place::root(object, "spec");
        let policy = spec.get("podManagementPolicy");
        if !matches!(policy.text(), "OrderedReady" | "Parallel") {
            policy.invalid("must be 'OrderedReady' or 'Parallel'", &mut errors);
        }
        validate_strategy(&spec.get("updateStrategy"), &mut errors);
        for field in ["whenDeleted", "whenScaled"] {
            let policy = spec.get("persistentVolumeClaimRetentionPolicy").get(field);
            policy.required_one_of(&["Retain", "Delete"], &mut errors);
        }
        spec.get("ordinals").get("start").non_negative(&mut errors);
        for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
            spec.get(field).non_negative(&mut errors);
        }
        workload::validate_selector(
            &spec,
            "empty selector is invalid for statefulset",
            &mut errors,
        );
        let template = spec.get("template");
        let labels = template.get("metadata").get("labels");
        validation::labels(labels.value, &template.path.child("labels"), &mut errors);
        workload::validate_restart(&template, "StatefulSet", &mut errors);
        let service = spec.get("serviceName");
        service.named_if_set(proto_api::names::dns_label, &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, write: Prepare) -> Vec<FieldError> {
        if write == Prepare::Status {
            return validate_status(&Place::root(new, "status"));
        }
        let mut kept = old["spec"].clone();
        for field in FREE {
            tree::carry(&mut kept, &new["spec"], field);
        }
        if tree::same(&kept, &new["spec"]) {
            return Vec::new();
        }
        vec![FieldError::forbidden(&Path::root("spec"), FROZEN)]
    }
}

fn validate_strategy(strategy: &Place<'_>, errors: &mut Errors) {
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").text() {
        "RollingUpdate" => {
            rolling.get("partition").non_negative(errors);
            let most = rolling.get("maxUnavailable");
            workload::validate_share(&most, errors);
            if most.is_present() && workload::share_is_zero(most.value) {
                most.invalid("cannot be 0", errors);
            }
        }
        "OnDelete" if rolling.is_present() => {
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            rolling.invalid(detail, errors);
        }
        "OnDelete" => {}
        "" => strategy.required("", errors),
        _ => strategy.invalid("must be 'RollingUpdate' or 'OnDelete'", errors),
    }
}

fn validate_status(status: &Place<'_>) -> Errors {
    let mut errors = Vec::new();
    let all = status.get("replicas").int().unwrap_or_default();
    for field in [
        "replicas",
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
    ] {
        let count = status.get(field);
        count.non_negative(&mut errors);
        if count.int().is_some_and(|number| number > all) {
            count.invalid("cannot be greater than status.replicas", &mut errors);
        }
    }
    errors
}
