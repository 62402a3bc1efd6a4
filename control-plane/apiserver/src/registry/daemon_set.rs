//! DaemonSet: one pod on each node.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::pod::{SpecOwner, validate_spec};
use super::service::label_set;
use super::strategy::{Prepare, Strategy};
use super::workload::{self, count};
use super::workload::{CONTAINERS, IMAGES, SELECTOR, default_pod_template, template_cells};
use crate::field::FieldError;
use crate::tables::{AGE, Column, NAME, Table, age, column};
use crate::tree;
use crate::validation::{self, Errors, Place};

#[derive(Debug)]
pub(super) struct DaemonSet;

const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Desired",
        "integer",
        "The total number of nodes that should be running the daemon pod (including nodes correctly running the daemon pod). More info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
    ),
    column(
        "Current",
        "integer",
        "The number of nodes that are running at least 1 daemon pod and are supposed to run the daemon pod. More info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
    ),
    column(
        "Ready",
        "integer",
        "numberReady is the number of nodes that should be running the daemon pod and have one or more of the daemon pod running with a Ready Condition.",
    ),
    column(
        "Up-to-date",
        "integer",
        "The total number of nodes that are running updated daemon pod",
    ),
    column(
        "Available",
        "integer",
        "The number of nodes that should be running the daemon pod and have one or more of the daemon pod running and available (ready for at least spec.minReadySeconds)",
    ),
    column(
        "Node Selector",
        "string",
        "NodeSelector is a selector which must be true for the pod to fit on a node. Selector which must match a node's labels for the pod to be scheduled on that node. More info: https://kubernetes.io/docs/concepts/configuration/assign-pod-node/",
    ),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) static TABLE: Table = Table {
    columns: COLUMNS,
    row,
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let status = |field| json!(count(object, &["status", field]));
    let nodes = tree::at(object, &["spec", "template", "spec", "nodeSelector"]);
    let mut cells = vec![
        json!(tree::text(object, &["metadata", "name"])),
        status("desiredNumberScheduled"),
        status("currentNumberScheduled"),
        status("numberReady"),
        status("updatedNumberScheduled"),
        status("numberAvailable"),
        json!(label_set(nodes)),
        age(object, now),
    ];
    cells.extend(template_cells(object, &["spec", "template"]));
    cells
}

impl Strategy for DaemonSet {
    fn has_generation(&self) -> bool {
        true
    }

    fn has_status(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let spec = tree::object_mut(object, "spec");
        default_pod_template(spec);
        tree::default(spec, "revisionHistoryLimit", 10);
        let slot = spec
            .entry("updateStrategy".to_owned())
            .or_insert(Value::Null);
        let strategy = tree::as_object(slot);
        tree::default_text(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate" {
            let slot = strategy
                .entry("rollingUpdate".to_owned())
                .or_insert(Value::Null);
            let rolling = tree::as_object(slot);
            tree::default(rolling, "maxUnavailable", 1);
            tree::default(rolling, "maxSurge", 0);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        let status = json!({"currentNumberScheduled": 0, "numberMisscheduled": 0,
            "desiredNumberScheduled": 0, "numberReady": 0});
        tree::as_object(object).insert("status".to_owned(), status);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = Place::root(object, "spec");
        workload::validate_selector(
            &spec,
            "empty selector is invalid for daemonset",
            &mut errors,
        );
        let template = spec.get("template");
        let labels = template.get("metadata").get("labels");
        validation::labels(labels.value, &template.path.child("labels"), &mut errors);
        let pod = template.get("spec");
        validate_spec(pod.value, &pod.path, SpecOwner::Template, &mut errors);
        workload::validate_restart(&template, "DaemonSet", &mut errors);
        for field in ["minReadySeconds", "revisionHistoryLimit"] {
            spec.get(field).non_negative(&mut errors);
        }
        validate_strategy(&spec.get("updateStrategy"), &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, write: Prepare) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if write == Prepare::Status {
            for (_, count) in Place::root(new, "status").entries() {
                let place = Place::new(count.value, count.path);
                place.non_negative(&mut errors);
            }
        } else {
            validation::immutable(new, old, &["spec", "selector"], &mut errors);
        }
        errors
    }
}

fn validate_strategy(strategy: &Place<'_>, errors: &mut Errors) {
    let kind = strategy.get("type");
    match kind.text() {
        "OnDelete" => return,
        "RollingUpdate" => {}
        other => {
            let known = &["RollingUpdate", "OnDelete"];
            return errors.push(FieldError::not_supported(&kind.path, other, known));
        }
    }
    let rolling = strategy.get("rollingUpdate");
    if !rolling.is_present() {
        return rolling.required("", errors);
    }
    let (most, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
    workload::validate_share(&most, errors);
    workload::validate_share(&surge, errors);
    let zero = |place: &Place<'_>| workload::share_is_zero(place.value);
    match (zero(&most), zero(&surge)) {
        (true, true) => most.required("cannot be 0 when maxSurge is 0", errors),
        (false, false) => {
            let detail = "may not be set when maxUnavailable is non-zero";
            surge.invalid(detail, errors);
        }
        _ => {}
    }
}
