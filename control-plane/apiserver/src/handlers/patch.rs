//! PATCH: JSON, merge and strategic merge patches, server-side apply.

use proto_api::apply::OnConflict;
use proto_api::decode::{self, Encoding};
use proto_api::schema::Gvk;

use super::Call;
use super::objects::gvk;
use crate::http::{BodyKind, Request, Response, json_response, read_body};
use crate::registry::Subresource;
use crate::server::{Patch, Target};
use crate::status::StatusError;

impl Call {
    pub(super) async fn patch(
        &self,
        target: &Target,
        request: Request,
    ) -> Result<Response, StatusError> {
        self.accept()?;
        let kind = BodyKind::of(&self.headers)?;
        let body = read_body(request.into_body()).await?;
        if kind == BodyKind::ApplyPatch {
            return self.apply(target, &body).await;
        }
        let (tree, mut findings) = decode::parse(&body, Encoding::Json)
            .map_err(|fault| StatusError::bad_request(format!("error decoding patch: {fault}")))?;
        let patch = match kind {
            BodyKind::JsonPatch => Patch::Json(tree),
            BodyKind::MergePatch => Patch::Merge(tree),
            BodyKind::StrategicPatch => Patch::Strategic(tree),
            BodyKind::ApplyPatch | BodyKind::Object(_) => return Err(BodyKind::not_a_patch()),
        };
        let expected = match target.subresource.and_then(Subresource::body) {
            Some((group, version, kind)) => Gvk {
                group,
                version,
                kind,
            },
            None => gvk(&target.kind),
        };
        self.refuse_findings(expected, &findings)?;
        let context = self.write_context(false)?;
        let refuse = |found: &[decode::Finding]| self.refuse_findings(expected, found);
        let patched = self
            .api
            .server
            .patch(target, &patch, &context, refuse)
            .await?;
        findings.extend(patched.findings);
        let mut answer = if target.subresource == Some(Subresource::Scale) {
            json_response(200, &crate::server::scale_of(&patched.obj.value()))
        } else {
            self.object_answer(200, &target.kind, &patched.obj)?
        };
        self.warn(&mut answer, &findings, &[])?;
        Ok(answer)
    }

    /// Server-side apply.
    async fn apply(&self, target: &Target, body: &[u8]) -> Result<Response, StatusError> {
        let applicable = matches!(target.subresource, None | Some(Subresource::Status));
        if !applicable || target.kind.view.is_some() {
            return Err(BodyKind::not_a_patch());
        }
        if self.query.get("fieldManager").is_none() {
            return Err(StatusError::new(
                422,
                "Invalid",
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is \
                 required for apply patch",
            ));
        }
        let (config, findings) = decode::parse(body, Encoding::Yaml)
            .map_err(|fault| StatusError::bad_request(format!("error decoding YAML: {fault}")))?;
        self.refuse_findings(gvk(&target.kind), &findings)?;
        let conflict = if self.query.flag("force") {
            OnConflict::Take
        } else {
            OnConflict::Refuse
        };
        let context = self.write_context(false)?;
        let (obj, created) = self
            .api
            .server
            .apply(target, &config, conflict, &context)
            .await?;
        let code = if created { 201 } else { 200 };
        let mut answer = self.object_answer(code, &target.kind, &obj)?;
        self.warn(&mut answer, &findings, &[])?;
        Ok(answer)
    }
}
