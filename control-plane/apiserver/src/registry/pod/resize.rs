//! In-place resize: cpu and memory of a running pod's containers.

use serde_json::{Value, json};

use super::ephemeral::keep_all_but_metadata_writes;
use super::resources::qos_class;
use crate::field::{FieldError, Path};
use crate::tree;

const LISTS: [&str; 2] = ["containers", "initContainers"];

/// A write keeps everything but the containers' resources and how they are changed.
pub(crate) fn prepare_resize(new: &mut Value, old: &Value) {
    let wanted = new.get("spec").cloned().unwrap_or_default();
    keep_all_but_metadata_writes(new, old);
    let spec = tree::object_mut(new, "spec");
    for list in LISTS {
        for container in tree::list_mut(spec, list) {
            let name = container["name"].clone();
            let found = tree::list(&wanted, &[list])
                .iter()
                .find(|c| c["name"] == name);
            let Some(found) = found else { continue };
            for field in ["resources", "resizePolicy"] {
                tree::carry(container, found, field);
            }
        }
    }
}

/// Checks the change from `old` to `new`.
pub(crate) fn validate_resize(new: &Value, old: &Value) -> Vec<FieldError> {
    let path = Path::root("spec");
    let mirror = "kubernetes.io/config.mirror";
    if !tree::at(old, &["metadata", "annotations", mirror]).is_null() {
        let detail = "static pods cannot be resized";
        return vec![FieldError::forbidden(&Path::root(""), detail)];
    }
    let mut errors = Vec::new();
    let class = qos_class(new);
    let before = match tree::text(old, &["status", "qosClass"]) {
        "" => qos_class(old),
        class => class,
    };
    if class != before {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid(&path, class, detail));
    }
    for list in LISTS {
        let pairs = tree::list(new, &["spec", list]);
        let pairs = pairs.iter().zip(tree::list(old, &["spec", list]));
        for (index, (new, old)) in pairs.enumerate() {
            let path = path.child(list).index(index).child("resources");
            let sidecar = tree::text(old, &["restartPolicy"]) == "Always";
            container(new, old, &path, &mut errors);
            if list == "initContainers" && !sidecar && resources(new) != resources(old) {
                let detail = "only cpu and memory resources for sidecar containers are mutable";
                errors.push(FieldError::forbidden(&Path::root("spec"), detail));
            }
        }
    }
    errors
}

fn resources(container: &Value) -> &Value {
    tree::at(container, &["resources"])
}

fn container(new: &Value, old: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for (list, what) in [("limits", "limits"), ("requests", "requests")] {
        for name in ["cpu", "memory"] {
            let gone = tree::at(resources(new), &[list, name]).is_null();
            if gone && !tree::at(resources(old), &[list, name]).is_null() {
                let detail = format!("resource {what} cannot be removed");
                errors.push(FieldError::forbidden(&path.child(list), &detail));
                break;
            }
        }
    }
    if rest(resources(new)) != rest(resources(old)) {
        let detail = "only cpu and memory resources are mutable";
        errors.push(FieldError::forbidden(&Path::root("spec"), detail));
    }
}

/// What may not change.
fn rest(resources: &Value) -> Value {
    let mut rest = resources.clone();
    for list in ["limits", "requests"] {
        if let Some(Value::Object(amounts)) = rest.get_mut(list) {
            amounts.shift_remove("cpu");
            amounts.shift_remove("memory");
        }
        if rest
            .get(list)
            .is_some_and(|list| *list == json!({}) || list.is_null())
        {
            tree::as_object(&mut rest).shift_remove(list);
        }
    }
    if rest.is_null() { json!({}) } else { rest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(
        clippy::needless_pass_by_value,
        reason = "what json! makes is given away"
    )]
    fn pod(resources: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "a", "image": "i", "resources": resources}]}})
    }

    fn refusals(old: Value, new: Value) -> Vec<String> {
        let errors = validate_resize(&pod(new), &pod(old));
        errors.iter().map(ToString::to_string).collect()
    }

    fn cpu(request: &str, limit: &str) -> Value {
        json!({"requests": {"cpu": request}, "limits": {"cpu": limit}})
    }

    #[test]
    fn only_resources_are_taken_over() {
        let old = pod(cpu("100m", "200m"));
        let mut new = pod(cpu("150m", "300m"));
        new["spec"]["containers"][0]["image"] = json!("other");
        prepare_resize(&mut new, &old);
        let container = &new["spec"]["containers"][0];
        assert_eq!(container["image"], "i");
        assert_eq!(container["resources"], cpu("150m", "300m"));
    }

    #[test]
    fn more_cpu_is_granted() {
        let refused = refusals(cpu("100m", "200m"), cpu("150m", "300m"));
        assert_eq!(refused, Vec::<String>::new());
    }

    #[test]
    fn the_class_stays() {
        let both = json!({"requests": {"cpu": "1", "memory": "1Mi"}, "limits": {"cpu": "1", "memory": "1Mi"}});
        let more = json!({"requests": {"cpu": "1", "memory": "1Mi"}, "limits": {"cpu": "2", "memory": "1Mi"}});
        assert_eq!(
            refusals(both, more),
            [
                "spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing"
            ]
        );
    }

    #[test]
    fn what_was_given_is_not_taken_away_and_nothing_else_changes() {
        let at = "spec.containers[0].resources";
        let less = json!({"requests": {"cpu": "100m"}});
        assert_eq!(
            refusals(cpu("100m", "200m"), less),
            [format!(
                "{at}.limits: Forbidden: resource limits cannot be removed"
            )]
        );
        let mut device = cpu("100m", "200m");
        device["limits"]["example.com/device"] = json!("1");
        assert_eq!(
            refusals(cpu("100m", "200m"), device),
            ["spec: Forbidden: only cpu and memory resources are mutable"]
        );
    }
}
