//! The `scale` subresource: replicas of a workload in one form for all kinds.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Server, Target, WriteContext};
use crate::field::{FieldError, Path};
use crate::object::Obj;
use crate::registry::Kind;
use crate::status::StatusError;
use crate::tree;

/// The Scale of an object.
pub(crate) fn of(kind: &Kind, object: &Value) -> Value {
    let custom = kind
        .custom
        .as_ref()
        .and_then(|custom| custom.scale.as_ref());
    let meta = tree::at(object, &["metadata"]);
    let mut own = serde_json::Map::new();
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        if let Some(value) = meta.get(field) {
            own.insert(field.to_owned(), value.clone());
        }
    }
    let (spec, status, selector) = match custom {
        None => (
            tree::int(object, &["spec", "replicas"]),
            tree::int(object, &["status", "replicas"]),
            crate::registry::scale_selector(object),
        ),
        Some(paths) => (
            tree::int(object, &names(&paths.spec_replicas)),
            tree::int(object, &names(&paths.status_replicas)),
            paths
                .label_selector
                .as_ref()
                .map_or_else(String::new, |path| {
                    tree::text(object, &names(path)).to_owned()
                }),
        ),
    };
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": own,
        "spec": {"replicas": spec.unwrap_or_default()},
        "status": {
            "replicas": status.unwrap_or_default(),
            "selector": selector,
        },
    })
}

/// The object with the replicas of `scale`.
pub(super) fn into(target: &Target, object: &Value, scale: &Value) -> Result<Value, StatusError> {
    let replicas = tree::int(scale, &["spec", "replicas"]).unwrap_or_default();
    if replicas < 0 {
        let path = Path::root("spec").child("replicas");
        let detail = "must be greater than or equal to 0";
        let errors = [FieldError::invalid(&path, replicas, detail)];
        return Err(StatusError::invalid(
            "autoscaling",
            "Scale",
            &target.key.name,
            &errors,
        ));
    }
    let mut object = object.clone();
    let custom = target
        .kind
        .custom
        .as_ref()
        .and_then(|custom| custom.scale.as_ref());
    let path = custom.map_or_else(
        || vec!["spec", "replicas"],
        |paths| names(&paths.spec_replicas),
    );
    set(&mut object, &path, json!(replicas));
    let rv = tree::at(scale, &["metadata", "resourceVersion"]).clone();
    tree::object_mut(&mut object, "metadata").insert("resourceVersion".to_owned(), rv);
    Ok(object)
}

fn names(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}

/// Sets the value at `path`, making the maps on the way.
fn set(object: &mut Value, path: &[&str], value: Value) {
    match path {
        [] => *object = value,
        [name, rest @ ..] => {
            let slot = tree::as_object(object).entry(*name).or_insert(Value::Null);
            set(slot, rest, value);
        }
    }
}

impl Server {
    pub(super) async fn update_scale(
        &self,
        target: &Target,
        scale: &Value,
        context: &WriteContext,
    ) -> Result<Arc<Obj>, StatusError> {
        self.modify(target, context, |old| into(target, old, scale))
            .await
    }
}
