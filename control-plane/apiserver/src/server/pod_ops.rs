//! Binding a pod to a node.

use serde_json::{Value, json};

use super::{Server, Target, WriteContext};
use crate::field::{FieldError, Path};
use crate::registry::Subresource;
use crate::status::StatusError;
use crate::tree;

impl Server {
    /// Assigns a pod to the node that `binding` names.
    ///
    /// # Errors
    /// Conflict when the pod has a node or is being deleted; Invalid when no node is named.
    pub async fn bind(
        &self,
        target: &Target,
        binding: &Value,
        context: &WriteContext,
    ) -> Result<(), StatusError> {
        let node = tree::text(binding, &["target", "name"]).to_owned();
        let kind = tree::text(binding, &["target", "kind"]);
        let mut errors = Vec::new();
        let path = Path::root("target");
        if node.is_empty() {
            errors.push(FieldError::required(&path.child("name"), ""));
        }
        if !matches!(kind, "" | "Node") {
            errors.push(FieldError::not_supported(
                &path.child("kind"),
                kind,
                &["Node"],
            ));
        }
        if !errors.is_empty() {
            return Err(StatusError::invalid(
                "",
                "Binding",
                &target.key.name,
                &errors,
            ));
        }
        let write = Target {
            subresource: Some(Subresource::Binding),
            ..target.clone()
        };
        let mut binding = binding.clone();
        Box::pin(self.review_body(&write, &mut binding, context)).await?;
        let node = tree::text(&binding, &["target", "name"]).to_owned();
        let context = &context.clone().unreviewed();
        let now = self.now_text();
        let uid = tree::text(&binding, &["metadata", "uid"]).to_owned();
        let gr = crate::status::GroupResource {
            group: "",
            resource: "pods/binding",
        };
        self.modify(&write, context, |old| {
            let conflict = |why: String| StatusError::conflict(gr, &target.key.name, &why);
            let assigned = tree::text(old, &["spec", "nodeName"]);
            if !assigned.is_empty() {
                let name = &target.key.name;
                return Err(conflict(format!(
                    "pod {name} is already assigned to node \"{assigned}\""
                )));
            }
            if !tree::is_unset(tree::at(old, &["metadata", "deletionTimestamp"])) {
                let name = &target.key.name;
                return Err(conflict(format!(
                    "pod {name} is being deleted, cannot be assigned to a host"
                )));
            }
            let mut new = old.clone();
            let meta = tree::object_mut(&mut new, "metadata");
            meta.shift_remove("resourceVersion");
            if !uid.is_empty() {
                meta.insert("uid".to_owned(), json!(uid));
            }
            tree::object_mut(&mut new, "spec").insert("nodeName".to_owned(), json!(node));
            set_scheduled(&mut new, &now);
            Ok(new)
        })
        .await?;
        Ok(())
    }
}

/// Sets the condition PodScheduled.
fn set_scheduled(pod: &mut Value, now: &str) {
    let status = tree::object_mut(pod, "status");
    let conditions = status
        .entry("conditions".to_owned())
        .or_insert_with(|| json!([]));
    if let Some(conditions) = conditions.as_array_mut() {
        conditions.retain(|condition| condition["type"] != "PodScheduled");
        conditions.push(json!({
            "type": "PodScheduled", "status": "True", "lastProbeTime": null,
            "lastTransitionTime": now,
        }));
    }
}
