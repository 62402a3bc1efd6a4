//! POST: a new object, a binding, an eviction.

use std::sync::Arc;

use proto_api::decode::Decoded;
use proto_api::schema::Gvk;
use serde_json::Value;

use super::Call;
use super::delete::delete_request;
use super::objects::gvk;
use crate::http::{BodyKind, Request, ResourcePath, Response, read_body};
use crate::registry::Kind;
use crate::server::Target;
use crate::status::StatusError;
use crate::tree;

const BINDING: Gvk<'static> = Gvk {
    group: "",
    version: "v1",
    kind: "Binding",
};
const EVICTION: Gvk<'static> = Gvk {
    group: "policy",
    version: "v1",
    kind: "Eviction",
};

impl Call {
    pub(super) async fn create(
        &self,
        kind: &Arc<Kind>,
        path: &ResourcePath,
        request: Request,
    ) -> Result<Response, StatusError> {
        self.accept_for(kind)?;
        let decoded = self.read_object(request, gvk(kind)).await?;
        let context = self.write_context(false)?;
        let mut warnings = kind.strategy.warnings(&decoded.value);
        let admission = &self.api.server.admission;
        warnings.extend(admission.pod_security_warnings(&path.namespace, &decoded.value));
        let made = self
            .api
            .server
            .create(kind, &path.namespace, decoded.value, &context)
            .await?;
        let mut answer = self.object_answer(201, kind, &made)?;
        self.warn(&mut answer, &decoded.findings, &warnings)?;
        Ok(answer)
    }

    pub(super) async fn bind(
        &self,
        target: &Target,
        request: Request,
    ) -> Result<Response, StatusError> {
        let decoded = self.read_object(request, BINDING).await?;
        let context = self.write_context(false)?;
        self.api
            .server
            .bind(target, &decoded.value, &context)
            .await?;
        self.success(201, None)
    }

    /// `POST …/bindings`: the pod's name is in the body.
    pub(super) async fn create_binding(
        &self,
        path: &ResourcePath,
        request: Request,
    ) -> Result<Response, StatusError> {
        if self.info.verb != "create" || path.namespace.is_empty() {
            return Err(StatusError::path_not_found());
        }
        let decoded = self.read_object(request, BINDING).await?;
        let pods = self.api.server.kind("", "v1", "pods")?;
        let name = tree::text(&decoded.value, &["metadata", "name"]);
        let target = Target::new(&pods, &path.namespace, name);
        let context = self.write_context(false)?;
        self.api
            .server
            .bind(&target, &decoded.value, &context)
            .await?;
        self.success(201, None)
    }

    pub(super) async fn evict(
        &self,
        target: &Target,
        request: Request,
    ) -> Result<Response, StatusError> {
        let mut decoded = self.read_eviction(request).await?;
        let name = tree::text(&decoded.value, &["metadata", "name"]);
        if !name.is_empty() && name != &*target.key.name {
            return Err(StatusError::bad_request(
                "name in URL does not match name in Eviction object",
            ));
        }
        let options = decoded
            .value
            .get("deleteOptions")
            .cloned()
            .unwrap_or(Value::Null);
        let (delete, dry_run) = delete_request(&options)?;
        let context = self.write_context(dry_run)?;
        let server = &self.api.server;
        Box::pin(server.review_body(target, &mut decoded.value, &context)).await?;
        // They were asked about the eviction; the deletion is part of it (as upstream).
        let context = context.unreviewed();
        server.evict(target, &delete, &context).await?;
        self.success(201, None)
    }

    /// An Eviction, also in the words of `policy/v1beta1`, which mean the same.
    async fn read_eviction(&self, request: Request) -> Result<Decoded, StatusError> {
        let encoding = BodyKind::of(&self.headers)?.object()?;
        let mut body = read_body(request.into_body()).await?;
        if let Ok(mut text) = serde_json::from_slice::<Value>(&body)
            && text["apiVersion"] == "policy/v1beta1"
        {
            text["apiVersion"] = Value::from("policy/v1");
            body = text.to_string().into();
        }
        let decoded = self.decode(&body, encoding, EVICTION)?;
        self.refuse_findings(EVICTION, &decoded.findings)?;
        Ok(decoded)
    }
}
