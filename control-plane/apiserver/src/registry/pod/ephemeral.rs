//! Ephemeral containers: what may be added to a running pod, and how.

use serde_json::Value;

use crate::field::{FieldError, Path};
use crate::tree;

/// A write keeps everything but the ephemeral containers.
pub(crate) fn prepare_ephemeral(new: &mut Value, old: &Value) {
    let added = tree::at(new, &["spec", "ephemeralContainers"]).clone();
    keep_all_but_metadata_writes(new, old);
    let spec = tree::object_mut(new, "spec");
    if added.is_null() {
        spec.shift_remove("ephemeralContainers");
    } else {
        spec.insert("ephemeralContainers".to_owned(), added);
    }
}

/// The stored object with the new one's precondition and managers.
pub(super) fn keep_all_but_metadata_writes(new: &mut Value, old: &Value) {
    let mut kept = old.clone();
    for field in ["resourceVersion", "managedFields"] {
        let written = tree::at(new, &["metadata", field]).clone();
        let meta = tree::object_mut(&mut kept, "metadata");
        if written.is_null() && field == "resourceVersion" {
            // An update without a precondition.
            meta.shift_remove(field);
        } else if !written.is_null() {
            meta.insert(field.to_owned(), written);
        }
    }
    *new = kept;
}

/// Checks that what is there stays as it is.
pub(crate) fn validate_ephemeral_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let path = Path::root("spec").child("ephemeralContainers");
    let all = |pod| tree::list(pod, &["spec", "ephemeralContainers"]);
    let mut errors = Vec::new();
    for container in all(old) {
        let name = tree::text(container, &["name"]);
        let found = all(new).iter().find(|c| tree::text(c, &["name"]) == name);
        let what = match found {
            None => "removed",
            Some(found) if !tree::same(found, container) => "changed",
            Some(_) => continue,
        };
        let detail = format!("existing ephemeral containers \"{name}\" may not be {what}\n");
        errors.push(FieldError::forbidden(&path, &detail));
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(
        clippy::needless_pass_by_value,
        reason = "what json! makes is given away"
    )]
    fn pod(ephemeral: Value) -> Value {
        json!({"metadata": {"name": "p", "labels": {"a": "b"}}, "spec": {
            "containers": [{"name": "main", "image": "i"}], "ephemeralContainers": ephemeral}})
    }

    #[test]
    fn only_the_ephemeral_containers_are_taken_over() {
        let old = pod(Value::Null);
        let mut new = pod(json!([{"name": "debug", "image": "i"}]));
        new["spec"]["containers"][0]["image"] = json!("other");
        new["metadata"]["labels"] = json!({});
        prepare_ephemeral(&mut new, &old);
        assert_eq!(new["spec"]["containers"], old["spec"]["containers"]);
        assert_eq!(new["metadata"]["labels"], old["metadata"]["labels"]);
        assert_eq!(new["spec"]["ephemeralContainers"][0]["name"], "debug");
    }

    #[test]
    fn what_is_there_stays_as_it_is() {
        let old = pod(json!([{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]));
        let more = pod(json!([
            {"name": "a", "image": "i"}, {"name": "b", "image": "i"}, {"name": "c", "image": "i"}]));
        assert_eq!(validate_ephemeral_update(&more, &old), []);
        let other = pod(json!([{"name": "a", "image": "j"}]));
        let errors = validate_ephemeral_update(&other, &old);
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let said = |name: &str, what: &str| {
            format!(
                "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"{name}\" may \
                 not be {what}\n"
            )
        };
        assert_eq!(errors, [said("a", "changed"), said("b", "removed")]);
    }
}
