//! DELETE: one object or a selection of them.

use std::sync::Arc;

use proto_api::decode;
use proto_api::schema::Gvk;
use serde_json::{Value, json};

use super::Call;
use super::objects::{collection_namespace, success};
use super::selectors::list_request;
use crate::http::{BodyKind, Request, ResourcePath, Response, read_body};
use crate::registry::Kind;
use crate::server::{DeleteRequest, Deleted, Preconditions, Propagation, Target, WriteContext};
use crate::status::{Details, StatusError};
use crate::tree;

const OPTIONS: Gvk<'static> = Gvk {
    group: "",
    version: "v1",
    kind: "DeleteOptions",
};

impl Call {
    pub(super) async fn delete(
        &self,
        target: &Target,
        request: Request,
    ) -> Result<Response, StatusError> {
        self.accept()?;
        let (delete, context) = self.delete_options(request).await?;
        match self.api.server.delete(target, &delete, &context).await? {
            Deleted::Lingers(obj) => self.object_answer(200, &target.kind, &obj),
            // Upstream shows a deleted pod, and a Status for most other kinds.
            Deleted::Gone(obj) if target.kind.kind == "Pod" => {
                self.object_answer(200, &target.kind, &obj)
            }
            Deleted::Gone(obj) => {
                let details = Details {
                    name: target.key.name.to_string(),
                    group: target.kind.group.to_owned(),
                    kind: target.kind.plural.to_owned(),
                    uid: obj.meta.uid.to_string(),
                    ..Details::default()
                };
                Ok(success(200, Some(&details)))
            }
        }
    }

    pub(super) async fn delete_collection(
        &self,
        kind: &Arc<Kind>,
        path: &ResourcePath,
        request: Request,
    ) -> Result<Response, StatusError> {
        collection_namespace(kind, &path.namespace)?;
        self.accept()?;
        let list = list_request(kind, &path.namespace, &self.query)?;
        let (delete, context) = self.delete_options(request).await?;
        let items = self
            .api
            .server
            .delete_collection(kind, &list, &delete, &context)
            .await?;
        let items: Vec<Value> = items.iter().map(|obj| obj.value()).collect();
        let answer = json!({
            "kind": kind.list_kind, "apiVersion": kind.api_version(),
            "metadata": {"resourceVersion": self.api.server.cache.applied().to_string()},
            "items": items,
        });
        Ok(crate::http::json_response(200, &answer))
    }

    /// DeleteOptions from the body, else from the query.
    async fn delete_options(
        &self,
        request: Request,
    ) -> Result<(DeleteRequest, WriteContext), StatusError> {
        let kind = BodyKind::of(&self.headers)?;
        let body = read_body(request.into_body()).await?;
        let options = if body.is_empty() {
            self.query_options()?
        } else {
            let schema = self.api.server.schema;
            decode::body(schema, Some(OPTIONS), &body, kind.object()?)
                .map_err(|fault| StatusError::bad_request(fault.message(OPTIONS)))?
                .value
        };
        let (delete, dry_run) = delete_request(&options)?;
        Ok((delete, self.write_context(dry_run)?))
    }

    fn query_options(&self) -> Result<Value, StatusError> {
        let mut options = json!({});
        if let Some(seconds) = self.query.number("gracePeriodSeconds")? {
            options["gracePeriodSeconds"] = json!(seconds);
        }
        if let Some(policy) = self.query.get("propagationPolicy") {
            options["propagationPolicy"] = json!(policy);
        }
        if let Some(orphan) = self.query.tristate("orphanDependents") {
            options["orphanDependents"] = json!(orphan);
        }
        Ok(options)
    }
}

/// What DeleteOptions ask for, and whether they only ask.
pub(super) fn delete_request(options: &Value) -> Result<(DeleteRequest, bool), StatusError> {
    let invalid = |text: String| {
        StatusError::new(
            422,
            "Invalid",
            format!("DeleteOptions.meta.k8s.io \"\" is invalid: {text}"),
        )
    };
    let grace_seconds = tree::int(options, &["gracePeriodSeconds"]);
    let policy = tree::text(options, &["propagationPolicy"]);
    let orphan = tree::at(options, &["orphanDependents"]).as_bool();
    if orphan.is_some() && !policy.is_empty() {
        return Err(invalid(
            "propagationPolicy: Invalid value: \"\": orphanDependents and deletionPropagation \
             cannot be both set"
                .to_owned(),
        ));
    }
    let propagation = match (policy, orphan) {
        ("", Some(true)) | ("Orphan", _) => Some(Propagation::Orphan),
        ("", Some(false)) | ("Background", _) => Some(Propagation::Background),
        ("Foreground", _) => Some(Propagation::Foreground),
        ("", None) => None,
        (other, _) => {
            return Err(invalid(format!(
                "propagationPolicy: Unsupported value: \"{other}\": supported values: \
                 \"Foreground\", \"Background\", \"Orphan\", \"nil\""
            )));
        }
    };
    let text = |name| {
        let text = tree::text(options, &["preconditions", name]);
        (!text.is_empty()).then(|| text.to_owned())
    };
    let preconditions = Preconditions {
        uid: text("uid"),
        resource_version: text("resourceVersion"),
    };
    let dry_run = tree::list(options, &["dryRun"])
        .iter()
        .any(|value| value == "All");
    Ok((
        DeleteRequest {
            grace_seconds,
            preconditions,
            propagation,
        },
        dry_run,
    ))
}
