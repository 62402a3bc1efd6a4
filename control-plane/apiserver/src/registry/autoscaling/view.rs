//! `autoscaling/v1`: one target for CPU in the spec, everything else of v2 in annotations that hold
//! JSON. What the annotations say comes back when the object is written.

use serde_json::{Map, Value, json};

use crate::registry::View;
use crate::tree;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const V1: &str = "autoscaling/v1";
const V2: &str = "autoscaling/v2";

pub(in crate::registry) const VIEW: View = View {
    stored: V2,
    show,
    store,
};

/// Whether a metric is the one that v1 has a field for.
fn is_cpu_percent(metric: &Value, numbers: &str) -> bool {
    metric["type"] == "Resource"
        && tree::text(metric, &["resource", "name"]) == "cpu"
        && tree::at(metric, &["resource", numbers, "averageUtilization"]).is_number()
}

/// A field that v1 names otherwise: path in v2, name in v1.
type Renamed = (&'static [&'static str], &'static str);

/// Fields of a source's spec; `target` and `metric` of v2 are flat in v1.
const SPEC_FIELDS: &[(&str, &[Renamed])] = &[
    (
        "object",
        &[
            (&["describedObject"], "target"),
            (&["metric", "name"], "metricName"),
            (&["metric", "selector"], "selector"),
            (&["target", "value"], "targetValue"),
            (&["target", "averageValue"], "averageValue"),
        ],
    ),
    (
        "pods",
        &[
            (&["metric", "name"], "metricName"),
            (&["metric", "selector"], "selector"),
            (&["target", "averageValue"], "targetAverageValue"),
        ],
    ),
    (
        "resource",
        &[
            (&["name"], "name"),
            (
                &["target", "averageUtilization"],
                "targetAverageUtilization",
            ),
            (&["target", "averageValue"], "targetAverageValue"),
        ],
    ),
    (
        "containerResource",
        &[
            (&["name"], "name"),
            (&["container"], "container"),
            (
                &["target", "averageUtilization"],
                "targetAverageUtilization",
            ),
            (&["target", "averageValue"], "targetAverageValue"),
        ],
    ),
    (
        "external",
        &[
            (&["metric", "name"], "metricName"),
            (&["metric", "selector"], "metricSelector"),
            (&["target", "value"], "targetValue"),
            (&["target", "averageValue"], "targetAverageValue"),
        ],
    ),
];

/// Fields of a source's status.
const STATUS_FIELDS: &[(&str, &[Renamed])] = &[
    (
        "object",
        &[
            (&["describedObject"], "target"),
            (&["metric", "name"], "metricName"),
            (&["metric", "selector"], "selector"),
            (&["current", "value"], "currentValue"),
            (&["current", "averageValue"], "averageValue"),
        ],
    ),
    (
        "pods",
        &[
            (&["metric", "name"], "metricName"),
            (&["metric", "selector"], "selector"),
            (&["current", "averageValue"], "currentAverageValue"),
        ],
    ),
    (
        "resource",
        &[
            (&["name"], "name"),
            (
                &["current", "averageUtilization"],
                "currentAverageUtilization",
            ),
            (&["current", "averageValue"], "currentAverageValue"),
        ],
    ),
    (
        "containerResource",
        &[
            (&["name"], "name"),
            (&["container"], "container"),
            (
                &["current", "averageUtilization"],
                "currentAverageUtilization",
            ),
            (&["current", "averageValue"], "currentAverageValue"),
        ],
    ),
    (
        "external",
        &[
            (&["metric", "name"], "metricName"),
            (&["metric", "selector"], "metricSelector"),
            (&["current", "value"], "currentValue"),
            (&["current", "averageValue"], "currentAverageValue"),
        ],
    ),
];

/// A metric of v2 as v1 writes it in an annotation.
fn flatten(metric: &Value, fields: &[(&str, &[Renamed])]) -> Value {
    let mut flat = json!({"type": metric["type"]});
    for (source, renamed) in fields {
        let from = tree::at(metric, &[source]);
        if !from.is_object() {
            continue;
        }
        let mut to = Map::new();
        for (path, name) in *renamed {
            let value = tree::at(from, path);
            if !value.is_null() {
                to.insert((*name).to_owned(), value.clone());
            }
        }
        flat[*source] = Value::Object(to);
    }
    flat
}

/// The metric of v2 that [`flatten`] was given.
fn unflatten(flat: &Value, fields: &[(&str, &[Renamed])]) -> Value {
    let mut metric = json!({"type": flat["type"]});
    for (source, renamed) in fields {
        let from = tree::at(flat, &[source]);
        if !from.is_object() {
            continue;
        }
        let mut to = Value::Object(Map::new());
        for (path, name) in *renamed {
            let value = tree::at(from, &[name]);
            if !value.is_null() {
                set(&mut to, path, value.clone());
            }
        }
        let target = tree::at(&to, &["target"]).clone();
        if target.is_object() {
            let kind = if target.get("averageUtilization").is_some() {
                "Utilization"
            } else if target.get("averageValue").is_some() {
                "AverageValue"
            } else {
                "Value"
            };
            set(&mut to, &["target", "type"], json!(kind));
        }
        metric[*source] = to;
    }
    metric
}

fn set(value: &mut Value, path: &[&str], new: Value) {
    match path {
        [] => *value = new,
        [name, rest @ ..] => {
            let slot = tree::as_object(value)
                .entry((*name).to_owned())
                .or_insert(Value::Null);
            set(slot, rest, new);
        }
    }
}

fn annotate(object: &mut Value, key: &str, value: &Value) {
    let meta = tree::object_mut(object, "metadata");
    let annotations = meta.entry("annotations".to_owned()).or_insert(Value::Null);
    tree::as_object(annotations).insert(key.to_owned(), json!(value.to_string()));
}

/// Takes an annotation's JSON out of the object; `None` when there is none, or no JSON.
fn take_annotation(object: &mut Value, key: &str) -> Option<Value> {
    let meta = tree::object_mut(object, "metadata");
    let annotations = meta.get_mut("annotations")?.as_object_mut()?;
    let text = annotations.shift_remove(key)?;
    if annotations.is_empty() {
        meta.shift_remove("annotations");
    }
    serde_json::from_str(text.as_str()?).ok()
}

/// Takes `metrics` out of `part`, the CPU percentage apart from the others.
fn split(part: &mut tree::Object, metrics: &str, numbers: &str) -> (Option<Value>, Vec<Value>) {
    let mut rest = match part.shift_remove(metrics) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    };
    let at = rest
        .iter()
        .position(|metric| is_cpu_percent(metric, numbers));
    let percent = at.map(|at| {
        let metric = rest.remove(at);
        tree::at(&metric, &["resource", numbers, "averageUtilization"]).clone()
    });
    (percent, rest)
}

fn show(mut object: Value) -> Value {
    let flat = |metrics: Vec<Value>, fields| -> Option<Value> {
        let flat: Vec<Value> = metrics
            .iter()
            .map(|metric| flatten(metric, fields))
            .collect();
        (!flat.is_empty()).then_some(Value::Array(flat))
    };
    let spec = tree::object_mut(&mut object, "spec");
    let (percent, rest) = split(spec, "metrics", "target");
    if let Some(percent) = percent {
        spec.insert("targetCPUUtilizationPercentage".to_owned(), percent);
    }
    let behavior = spec.shift_remove("behavior");
    let mut notes = vec![(METRICS, flat(rest, SPEC_FIELDS)), (BEHAVIOR, behavior)];
    if object.get("status").is_some() {
        let status = tree::object_mut(&mut object, "status");
        let (percent, rest) = split(status, "currentMetrics", "current");
        if let Some(percent) = percent {
            status.insert("currentCPUUtilizationPercentage".to_owned(), percent);
        }
        let conditions = status.shift_remove("conditions");
        let conditions = conditions.filter(|conditions| !tree::is_unset(conditions));
        notes.push((CURRENT, flat(rest, STATUS_FIELDS)));
        notes.push((CONDITIONS, conditions));
    }
    for (key, value) in notes {
        if let Some(value) = value {
            annotate(&mut object, key, &value);
        }
    }
    object["apiVersion"] = json!(V1);
    object
}

/// The list in an annotation, in the form of v2.
fn taken(object: &mut Value, key: &str, fields: &[(&str, &[Renamed])]) -> Vec<Value> {
    let flat = take_annotation(object, key).unwrap_or(Value::Null);
    let items = tree::list(&flat, &[]).iter();
    items.map(|metric| unflatten(metric, fields)).collect()
}

fn cpu(numbers: &str, percent: &Value) -> Value {
    let mut resource = json!({"name": "cpu", numbers: {"averageUtilization": percent}});
    if numbers == "target" {
        resource[numbers]["type"] = json!("Utilization");
    }
    json!({"type": "Resource", "resource": resource})
}

fn store(mut object: Value) -> Value {
    let mut metrics = taken(&mut object, METRICS, SPEC_FIELDS);
    let mut current = taken(&mut object, CURRENT, STATUS_FIELDS);
    let behavior = take_annotation(&mut object, BEHAVIOR);
    let conditions = take_annotation(&mut object, CONDITIONS);
    let spec = tree::object_mut(&mut object, "spec");
    if let Some(percent) = spec.shift_remove("targetCPUUtilizationPercentage") {
        metrics.insert(0, cpu("target", &percent));
    }
    if !metrics.is_empty() {
        spec.insert("metrics".to_owned(), Value::Array(metrics));
    }
    if let Some(behavior) = behavior {
        spec.insert("behavior".to_owned(), behavior);
    }
    if object.get("status").is_some() {
        let status = tree::object_mut(&mut object, "status");
        if let Some(percent) = status.shift_remove("currentCPUUtilizationPercentage") {
            current.insert(0, cpu("current", &percent));
        }
        if !current.is_empty() {
            status.insert("currentMetrics".to_owned(), Value::Array(current));
        }
        if let Some(conditions) = conditions {
            status.insert("conditions".to_owned(), conditions);
        }
    }
    object["apiVersion"] = json!(V2);
    object
}
