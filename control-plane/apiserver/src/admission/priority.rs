//! Priority: the number behind a pod's priority class. The two system classes are built in; other
//! classes are not served yet.

use serde_json::{Value, json};

use crate::server::Target;
use crate::status::StatusError;
use crate::tree;

const SYSTEM_CLASSES: &[(&str, i64)] = &[
    ("system-cluster-critical", 2_000_000_000),
    ("system-node-critical", 2_000_001_000),
];

pub(super) fn complete(target: &Target, pod: &mut Value) -> Result<(), StatusError> {
    let class = tree::text(pod, &["spec", "priorityClassName"]).to_owned();
    let priority = if class.is_empty() {
        0
    } else {
        let known = SYSTEM_CLASSES.iter().find(|(name, _)| *name == class);
        let Some((_, priority)) = known else {
            let why = format!("no PriorityClass with name {class} was found");
            let gr = target.kind.group_resource();
            return Err(StatusError::forbidden(gr, &target.key.name, &why));
        };
        *priority
    };
    if let Some(asked) = tree::int(pod, &["spec", "priority"])
        && asked != priority
    {
        let why = format!(
            "the integer value of priority ({asked}) must not be provided in pod spec; priority \
             admission controller computed {priority} from the given PriorityClass name"
        );
        let gr = target.kind.group_resource();
        return Err(StatusError::forbidden(gr, &target.key.name, &why));
    }
    let spec = tree::object_mut(pod, "spec");
    spec.insert("priority".to_owned(), json!(priority));
    tree::default_text(spec, "preemptionPolicy", "PreemptLowerPriority");
    Ok(())
}
