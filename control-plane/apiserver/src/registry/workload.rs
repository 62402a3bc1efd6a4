//! Deployment and ReplicaSet: defaults, validation, columns. One file, since both are "n pods of a
//! template" and change for the same causes.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::pod::{SpecOwner, default_spec, validate_spec};
use super::service::label_set;
use super::strategy::{Prepare, Strategy};
use crate::field::{FieldError, Path};
use crate::tables::{AGE, Column, NAME, Table, age, column, wide};
use crate::{tree, validation};

#[derive(Debug)]
pub(super) struct Deployment;

#[derive(Debug)]
pub(super) struct ReplicaSet;

const CONTAINERS: Column = wide(
    "Containers",
    "string",
    "Names of each container in the template.",
);
const IMAGES: Column = wide(
    "Images",
    "string",
    "Images referenced by each container in the template.",
);
const SELECTOR: Column = wide(
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

fn count(object: &Value, path: &[&str]) -> i64 {
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
    cells.extend(template_cells(object));
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
    cells.extend(template_cells(object));
    cells
}

fn template_cells(object: &Value) -> [Value; 3] {
    let containers = tree::list(object, &["spec", "template", "spec", "containers"]);
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

/// A label selector as `kubectl get -o wide` prints it.
pub(crate) fn selector_text(selector: &Value) -> String {
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

fn default_template(object: &mut Value) {
    let spec = tree::object_mut(object, "spec");
    tree::default(spec, "replicas", 1);
    let template = spec.entry("template".to_owned()).or_insert(Value::Null);
    default_spec(tree::object_mut(template, "spec"), SpecOwner::Template);
}

fn validate_template(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("spec");
    let spec = tree::at(object, &["spec"]);
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        validation::non_negative(tree::at(spec, &[field]), &path.child(field), &mut errors);
    }
    let selector = tree::at(spec, &["selector"]);
    let labels = tree::at(spec, &["template", "metadata", "labels"]);
    if selector.is_null() {
        errors.push(FieldError::required(&path.child("selector"), ""));
    } else {
        validation::label_selector(selector, &path.child("selector"), &mut errors);
        if tree::is_unset(tree::at(selector, &["matchLabels"]))
            && tree::is_unset(tree::at(selector, &["matchExpressions"]))
        {
            let detail = "empty selector is invalid for deployment";
            errors.push(FieldError::invalid(
                &path.child("selector"),
                selector.clone(),
                detail,
            ));
        } else if !selects(selector, labels) {
            let detail = "`selector` does not match template `labels`";
            let place = path.child("template").child("metadata").child("labels");
            let value = if labels.is_null() {
                json!({})
            } else {
                labels.clone()
            };
            errors.push(FieldError::invalid(&place, value, detail));
        }
    }
    let template = path.child("template");
    validation::labels(
        labels,
        &template.child("metadata").child("labels"),
        &mut errors,
    );
    let pod = tree::at(spec, &["template", "spec"]);
    validate_spec(
        pod,
        &template.child("spec"),
        SpecOwner::Template,
        &mut errors,
    );
    let restart = tree::text(pod, &["restartPolicy"]);
    if matches!(restart, "OnFailure" | "Never") {
        let path = template.child("spec").child("restartPolicy");
        errors.push(FieldError::not_supported(&path, restart, &["Always"]));
    }
    errors
}

/// Whether a label selector selects a set of labels.
fn selects(selector: &Value, labels: &Value) -> bool {
    let label = |key: &str| tree::at(labels, &[key]).as_str();
    let equal = tree::entries(selector, &["matchLabels"])
        .all(|(key, value)| label(key) == value.as_str() && value.is_string());
    equal
        && tree::list(selector, &["matchExpressions"])
            .iter()
            .all(|expression| {
                let value = label(tree::text(expression, &["key"]));
                let listed = value.is_some_and(|value| {
                    tree::list(expression, &["values"])
                        .iter()
                        .any(|v| v == value)
                });
                match tree::text(expression, &["operator"]) {
                    "In" => listed,
                    "NotIn" => !listed,
                    "Exists" => value.is_some(),
                    _ => value.is_none(),
                }
            })
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
        validate_template(object)
    }

    fn validate_update(&self, new: &Value, old: &Value, _write: Prepare) -> Vec<FieldError> {
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
        let mut errors = validate_template(object);
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

    fn validate_update(&self, new: &Value, old: &Value, _write: Prepare) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validation::immutable(new, old, &["spec", "selector"], &mut errors);
        errors
    }
}

fn validate_rolling(strategy: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let path = path.child("rollingUpdate");
    let mut zero = 0;
    for field in ["maxUnavailable", "maxSurge"] {
        let value = tree::at(strategy, &["rollingUpdate", field]);
        let number = match value {
            Value::Number(number) => number.as_i64(),
            Value::String(text) => text.strip_suffix('%').and_then(|t| t.parse().ok()),
            _ => None,
        };
        let place = path.child(field);
        match number {
            None => {
                let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
                errors.push(FieldError::invalid(&place, value.clone(), detail));
            }
            Some(number) if number < 0 => {
                let detail = "must be greater than or equal to 0";
                errors.push(FieldError::invalid(&place, value.clone(), detail));
            }
            Some(number) if field == "maxUnavailable" && value.is_string() && number > 100 => {
                let detail = "must not be greater than 100%";
                errors.push(FieldError::invalid(&place, value.clone(), detail));
            }
            Some(0) => zero += 1,
            Some(_) => {}
        }
    }
    if zero == 2 {
        let detail = "may not be 0 when `maxSurge` is 0";
        let value = tree::at(strategy, &["rollingUpdate", "maxUnavailable"]).clone();
        errors.push(FieldError::invalid(
            &path.child("maxUnavailable"),
            value,
            detail,
        ));
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
