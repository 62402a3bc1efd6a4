//! What may change of a pod after it was created.

use serde_json::Value;

use crate::field::{FieldError, Path};
use crate::registry::strategy::keep_all_but_status;
use crate::tree;

const MESSAGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions \
    to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it \
    was previously negative)";

/// Checks an update of the main path: images, deadline, more tolerations, nothing else.
pub(super) fn validate(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut allowed = old.get("spec").cloned().unwrap_or(Value::Null);
    let now = tree::at(new, &["spec"]);
    for field in ["containers", "initContainers"] {
        let images: Vec<Value> = tree::list(now, &[field])
            .iter()
            .map(|c| c["image"].clone())
            .collect();
        let map = tree::as_object(&mut allowed);
        for (container, image) in tree::list_mut(map, field).iter_mut().zip(images) {
            tree::as_object(container).insert("image".to_owned(), image);
        }
    }
    tree::carry(&mut allowed, now, "activeDeadlineSeconds");
    tree::carry(&mut allowed, now, "schedulingGates");
    let path = Path::root("spec").child("tolerations");
    let before = tree::list(old, &["spec", "tolerations"]);
    let after = tree::list(now, &["tolerations"]);
    let dropped = before.iter().any(|toleration| !after.contains(toleration));
    if dropped {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        let moved = before
            .iter()
            .filter(|t| !after.contains(t))
            .any(|t| !only_seconds(t, after));
        if moved {
            errors.push(FieldError::forbidden(&path, detail));
        }
    }
    tree::carry(&mut allowed, now, "tolerations");
    if !tree::same(&allowed, now) {
        errors.push(FieldError::forbidden(&Path::root("spec"), MESSAGE));
    }
    errors
}

/// Whether `after` holds `toleration` with nothing but other seconds.
fn only_seconds(toleration: &Value, after: &[Value]) -> bool {
    after.iter().any(|candidate| {
        ["key", "operator", "value", "effect"].iter().all(|field| {
            tree::same(
                tree::at(candidate, &[field]),
                tree::at(toleration, &[field]),
            )
        })
    })
}

/// A status write keeps everything else, and a node cannot undo a deletion or empty the class.
pub(super) fn prepare_status(new: &mut Value, old: &Value) {
    keep_all_but_status(new, old);
    let class = tree::at(old, &["status", "qosClass"]).clone();
    if !class.is_null() {
        let status = tree::object_mut(new, "status");
        status.insert("qosClass".to_owned(), class);
    }
}
