//! DELETE: one object or a selection of them.

use std::sync::Arc;

use proto_api::decode;
use proto_api::schema::Gvk;
use serde_json::{Value, json};

use super::Call;
use super::objects::collection_namespace;
use super::selectors::list_request;
use crate::field::{FieldError, Path};
use crate::http::{BodyKind, Request, ResourcePath, Response, read_body};
use crate::registry::Kind;
use crate::server::{DeleteRequest, Deleted, Preconditions, Propagation, Target, WriteContext};
use crate::status::{Details, StatusError};
use crate::tree;

/// Core kinds whose last state is shown after a deletion; others answer with a Status (as
/// upstream).
const SHOWN_WHEN_DELETED: [&str; 8] = [
    "namespaces",
    "persistentvolumeclaims",
    "persistentvolumes",
    "pods",
    "podtemplates",
    "resourcequotas",
    "serviceaccounts",
    "services",
];

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
        self.accept_for(&target.kind)?;
        let (delete, context) = self.delete_options(request).await?;
        match self.api.server.delete(target, &delete, &context).await? {
            Deleted::Lingers(obj) => self.object_answer(200, &target.kind, &obj),
            Deleted::Gone(obj)
                if target.kind.group.is_empty()
                    && SHOWN_WHEN_DELETED.contains(&target.kind.plural) =>
            {
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
                self.success(200, Some(&details))
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
        self.accept_for(kind)?;
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
        self.tree_answer(200, &answer)
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
                .map_err(|fault| StatusError::bad_request(fault.message(OPTIONS, &body)))?
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
    let grace_seconds = tree::int(options, &["gracePeriodSeconds"]);
    let policy = tree::text(options, &["propagationPolicy"]);
    let orphan = tree::at(options, &["orphanDependents"]).as_bool();
    let path = Path::root("propagationPolicy");
    let mut errors = Vec::new();
    if orphan.is_some() && !policy.is_empty() {
        let why = "orphanDependents and deletionPropagation cannot be both set";
        errors.push(FieldError::invalid(&path, policy, why));
    }
    let propagation = match (policy, orphan) {
        ("", Some(true)) | ("Orphan", _) => Some(Propagation::Orphan),
        ("", Some(false)) | ("Background", _) => Some(Propagation::Background),
        ("Foreground", _) => Some(Propagation::Foreground),
        ("", None) => None,
        (other, _) => {
            let supported = ["Foreground", "Background", "Orphan", "nil"];
            errors.push(FieldError::not_supported(&path, other, &supported));
            None
        }
    };
    let dry_run: Vec<&str> = tree::list(options, &["dryRun"])
        .iter()
        .filter_map(Value::as_str)
        .collect();
    errors.extend(dry_run_error(&dry_run));
    if !errors.is_empty() {
        let refused = StatusError::invalid("meta.k8s.io", "DeleteOptions", "", &errors);
        return Err(refused);
    }
    let text = |name| {
        let text = tree::text(options, &["preconditions", name]);
        (!text.is_empty()).then(|| text.to_owned())
    };
    let preconditions = Preconditions {
        uid: text("uid"),
        resource_version: text("resourceVersion"),
    };
    let request = DeleteRequest {
        grace_seconds,
        preconditions,
        propagation,
    };
    Ok((request, !dry_run.is_empty()))
}

/// `All` is the only dry run there is.
pub(super) fn dry_run_error(values: &[&str]) -> Option<FieldError> {
    if values.iter().all(|value| *value == "All") {
        return None;
    }
    let path = Path::root("dryRun");
    Some(FieldError::not_supported_list(&path, values, &["All"]))
}
