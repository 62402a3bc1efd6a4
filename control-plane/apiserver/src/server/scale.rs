//! The `scale` subresource: replicas of a workload in one form for all kinds.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Server, Target, WriteContext};
use crate::field::{FieldError, Path};
use crate::object::Obj;
use crate::status::StatusError;
use crate::tree;

/// The Scale of an object.
pub(crate) fn of(object: &Value) -> Value {
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
    let selector = crate::registry::scale_selector(object);
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": own,
        "spec": {"replicas": tree::int(object, &["spec", "replicas"]).unwrap_or_default()},
        "status": {
            "replicas": tree::int(object, &["status", "replicas"]).unwrap_or_default(),
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
    tree::object_mut(&mut object, "spec").insert("replicas".to_owned(), json!(replicas));
    let rv = tree::at(scale, &["metadata", "resourceVersion"]).clone();
    tree::object_mut(&mut object, "metadata").insert("resourceVersion".to_owned(), rv);
    Ok(object)
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
