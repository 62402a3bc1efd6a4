//! Deployment and ReplicaSet: defaults, validation, columns. One file, since both are "n pods of a
//! template" and change for the same causes.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::pod::{SpecOwner, default_spec, validate_spec};
use super::service::label_set;
use super::strategy::{Prepare, Strategy};
use crate::field::{FieldError, Path};
use crate::tables::{AGE, Column, NAME, Table, age, column, wide};
use crate::tree;
use crate::validation::{self, Errors, Place};

#[derive(Debug)]
pub(super) struct Deployment;

#[derive(Debug)]
pub(super) struct ReplicaSet;

pub(super) const CONTAINERS: Column = wide(
    "Containers",
    "string",
    "Names of each container in the template.",
);
pub(super) const IMAGES: Column = wide(
    "Images",
    "string",
    "Images referenced by each container in the template.",
);
pub(super) const SELECTOR: Column = wide(
    "Selector",
    "string",
    "Label selector for pods that this object manages.",
);

pub(super) static DEPLOYMENT_TABLE: Table = Table {
    columns: &[
        NAME,
        column("Ready", "string", "Number of the pod with ready state"),
        column(
            "Up-to-date",
            "string",
            "Total number of non-terminated pods targeted by this deployment that have the desired template spec.",
        ),
        column(
            "Available",
            "string",
            "Total number of available pods (ready for at least minReadySeconds) targeted by this deployment.",
        ),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    row: deployment_row,
};

pub(super) static REPLICA_SET_TABLE: Table = Table {
    columns: &[
        NAME,
        column(
            "Desired",
            "integer",
            "Replicas is the number of desired pods.",
        ),
        column(
            "Current",
            "integer",
            "Replicas is the most recently observed number of pods.",
        ),
        column(
            "Ready",
            "integer",
            "The number of non-terminating pods targeted by this ReplicaSet with a Ready Condition.",
        ),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    row: replica_set_row,
};

pub(super) fn count(object: &Value, path: &[&str]) -> i64 {
    tree::int(object, path).unwrap_or_default()
}

fn deployment_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let ready = count(object, &["status", "readyReplicas"]);
    let desired = count(object, &["spec", "replicas"]);
    let mut cells = vec![
        json!(tree::text(object, &["metadata", "name"])),
        json!(format!("{ready}/{desired}")),
        json!(count(object, &["status", "updatedReplicas"])),
        json!(count(object, &["status", "availableReplicas"])),
        age(object, now),
    ];
    cells.extend(template_cells(object, &["spec", "template"]));
    cells
}

fn replica_set_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![
        json!(tree::text(object, &["metadata", "name"])),
        json!(count(object, &["spec", "replicas"])),
        json!(count(object, &["status", "replicas"])),
        json!(count(object, &["status", "readyReplicas"])),
        age(object, now),
    ];
    cells.extend(template_cells(object, &["spec", "template"]));
    cells
}

/// Containers, images and selector; `path` is where the template is.
pub(super) fn template_cells(object: &Value, path: &[&str]) -> [Value; 3] {
    let containers = tree::list(tree::at(object, path), &["spec", "containers"]);
    let joined = |field| {
        let texts: Vec<&str> = containers.iter().map(|c| tree::text(c, &[field])).collect();
        json!(texts.join(","))
    };
    [
        joined("name"),
        joined("image"),
        json!(selector_text(tree::at(object, &["spec", "selector"]))),
    ]
}

/// The selector of a workload as its `scale` tells it.
pub(crate) fn scale_selector(object: &Value) -> String {
    let selector = tree::at(object, &["spec", "selector"]);
    // A replication controller selects by equal labels alone.
    if object
        .get("kind")
        .is_some_and(|kind| kind == "ReplicationController")
    {
        label_set(selector)
    } else {
        selector_text(selector)
    }
}

/// A label selector as `kubectl get -o wide` prints it.
pub(super) fn selector_text(selector: &Value) -> String {
    let labels = tree::at(selector, &["matchLabels"]);
    let mut parts: Vec<String> = Vec::new();
    if !tree::is_unset(labels) {
        parts.push(label_set(labels));
    }
    for expression in tree::list(selector, &["matchExpressions"]) {
        let key = tree::text(expression, &["key"]);
        let values: Vec<&str> = tree::list(expression, &["values"])
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let values = values.join(",");
        parts.push(match tree::text(expression, &["operator"]) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    if parts.is_empty() {
        "<none>".to_owned()
    } else {
        parts.join(",")
    }
}

/// Defaults of `n` pods of a template.
pub(super) fn default_template(object: &mut Value) {
    let spec = tree::object_mut(object, "spec");
    tree::default(spec, "replicas", 1);
    default_pod_template(spec);
}

/// Defaults of the template in a workload's spec.
pub(super) fn default_pod_template(spec: &mut tree::Object) {
    let template = spec.entry("template".to_owned()).or_insert(Value::Null);
    default_spec(tree::object_mut(template, "spec"), SpecOwner::Template);
}

/// A workload's selector is there, selects something, and selects the template.
pub(super) fn validate_selector(spec: &Place<'_>, empty: &str, errors: &mut Errors) {
    let selector = spec.get("selector");
    if !selector.is_present() {
        return selector.required("", errors);
    }
    validation::label_selector(selector.value, &selector.path, errors);
    let labels = spec.get("template").get("metadata").get("labels");
    if selector.get("matchLabels").is_unset() && selector.get("matchExpressions").is_unset() {
        selector.invalid(empty, errors);
    } else if !validation::selects(selector.value, labels.value) {
        let detail = "`selector` does not match template `labels`";
        invalid_labels(&labels, detail, errors);
    }
}

/// "Invalid value" of labels, which print as a map even when there are none.
pub(super) fn invalid_labels(labels: &Place<'_>, detail: &str, errors: &mut Errors) {
    let value = if labels.is_present() {
        labels.value.clone()
    } else {
        json!({})
    };
    errors.push(FieldError::invalid(&labels.path, value, detail));
}

/// Pods of a workload are restarted for ever and have no deadline.
pub(super) fn validate_restart(template: &Place<'_>, kind: &str, errors: &mut Errors) {
    let restart = template.get("spec").get("restartPolicy");
    if matches!(restart.text(), "OnFailure" | "Never") {
        restart.one_of(&["Always"], errors);
    }
    let deadline = template.get("spec").get("activeDeadlineSeconds");
    let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
    deadline.forbid(&detail, errors);
}

/// Checks a pod template: labels and spec.
pub(super) fn validate_pod_template(template: &Place<'_>, errors: &mut Errors) {
    let labels = template.get("metadata").get("labels");
    validation::labels(labels.value, &template.path.child("labels"), errors);
    let pod = template.get("spec");
    validate_spec(pod.value, &pod.path, SpecOwner::Template, errors);
}

fn validate_template(object: &Value, kind: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = Place::root(object, "spec");
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        spec.get(field).non_negative(&mut errors);
    }
    validate_selector(
        &spec,
        "empty selector is invalid for deployment",
        &mut errors,
    );
    let template = spec.get("template");
    validate_pod_template(&template, &mut errors);
    validate_restart(&template, kind, &mut errors);
    errors
}

/// The counts of a status are counts, and none exceeds the whole.
fn validate_counts(object: &Value, fields: &[&str]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let status = Place::root(object, "status");
    let number = |field| status.get(field).int().unwrap_or_default();
    for field in ["replicas", "observedGeneration"].iter().chain(fields) {
        status.get(field).non_negative(&mut errors);
    }
    for field in fields {
        if number(field) > number("replicas") {
            let detail = "cannot be greater than status.replicas";
            status.get(field).invalid(detail, &mut errors);
        }
    }
    if number("availableReplicas") > number("readyReplicas") {
        let detail = "cannot be greater than readyReplicas";
        status.get("availableReplicas").invalid(detail, &mut errors);
    }
    errors
}

impl Strategy for ReplicaSet {
    fn has_generation(&self) -> bool {
        true
    }

    fn has_status(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        default_template(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        tree::as_object(object).insert("status".to_owned(), json!({"replicas": 0}));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        validate_template(object, "ReplicaSet")
    }

    fn validate_update(&self, new: &Value, old: &Value, write: Prepare) -> Vec<FieldError> {
        if write == Prepare::Status {
            return validate_counts(
                new,
                &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
            );
        }
        let mut errors = Vec::new();
        validation::immutable(new, old, &["spec", "selector"], &mut errors);
        errors
    }
}

const STRATEGIES: &[&str] = &["Recreate", "RollingUpdate"];

impl Strategy for Deployment {
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
        tree::default(spec, "progressDeadlineSeconds", 600);
        let strategy = tree::as_object(spec.entry("strategy".to_owned()).or_insert(Value::Null));
        tree::default_text(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate" {
            let rolling = tree::as_object(
                strategy
                    .entry("rollingUpdate".to_owned())
                    .or_insert(Value::Null),
            );
            tree::default(rolling, "maxUnavailable", "25%");
            tree::default(rolling, "maxSurge", "25%");
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        tree::as_object(object).insert("status".to_owned(), json!({}));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = validate_template(object, "Deployment");
        let path = Path::root("spec");
        let strategy = tree::at(object, &["spec", "strategy"]);
        let place = path.child("strategy");
        match tree::text(strategy, &["type"]) {
            "Recreate" if tree::at(strategy, &["rollingUpdate"]).is_object() => {
                let detail = "may not be specified when strategy `type` is 'Recreate'";
                errors.push(FieldError::forbidden(&place.child("rollingUpdate"), detail));
            }
            "Recreate" => {}
            "RollingUpdate" => validate_rolling(strategy, &place, &mut errors),
            kind => errors.push(FieldError::not_supported(
                &place.child("type"),
                kind,
                STRATEGIES,
            )),
        }
        let deadline = tree::int(object, &["spec", "progressDeadlineSeconds"]);
        let ready = tree::int(object, &["spec", "minReadySeconds"]).unwrap_or_default();
        if let Some(deadline) = deadline
            && deadline <= ready
        {
            let path = path.child("progressDeadlineSeconds");
            let detail = "must be greater than minReadySeconds";
            errors.push(FieldError::invalid(&path, deadline, detail));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, write: Prepare) -> Vec<FieldError> {
        if write == Prepare::Status {
            return validate_counts(
                new,
                &["updatedReplicas", "readyReplicas", "availableReplicas"],
            );
        }
        let mut errors = Vec::new();
        validation::immutable(new, old, &["spec", "selector"], &mut errors);
        errors
    }
}

/// Whether a count or percentage is nought.
pub(super) fn share_is_zero(value: &Value) -> bool {
    validation::int_or_percent(value).unwrap_or_default() == 0
}

/// Checks a count or percentage of pods; of unavailable ones there are at most all.
pub(super) fn validate_share(place: &Place<'_>, errors: &mut Errors) {
    let unavailable = place.path.as_str().ends_with("maxUnavailable");
    place.int_or_percent(unavailable.then_some(100), errors);
}

fn validate_rolling(strategy: &Value, path: &Path, errors: &mut Errors) {
    let rolling = Place::new(strategy, path.clone()).get("rollingUpdate");
    let (most, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
    validate_share(&most, errors);
    validate_share(&surge, errors);
    let zero = |place: &Place<'_>| validation::int_or_percent(place.value) == Some(0);
    if zero(&most) && zero(&surge) {
        most.invalid("may not be 0 when `maxSurge` is 0", errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(spec: Value) -> Value {
        let mut object = json!({"metadata": {"name": "d", "namespace": "n"}});
        object["spec"] = spec;
        Deployment.default(&mut object);
        object
    }

    #[test]
    fn a_minimal_deployment_gets_upstreams_defaults_and_is_valid() {
        let object = deployment(json!({"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]}}}));
        assert_eq!(object["spec"]["replicas"], 1);
        assert_eq!(
            object["spec"]["strategy"]["rollingUpdate"]["maxSurge"],
            "25%"
        );
        assert!(
            object["spec"]["template"]["spec"]
                .get("enableServiceLinks")
                .is_none()
        );
        assert!(Deployment.validate(&object).is_empty());
    }

    #[test]
    fn a_selector_must_match_the_template_and_never_changes() {
        let broken = deployment(json!({"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "c"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]}}}));
        let errors: Vec<String> = Deployment
            .validate(&broken)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            errors,
            [
                "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`"
            ]
        );
        let other = deployment(json!({"selector": {"matchLabels": {"a": "z"}}}));
        let errors = Deployment.validate_update(&other, &broken, Prepare::Main);
        assert!(
            errors[0].to_string().ends_with("field is immutable"),
            "{errors:?}"
        );
    }
}
