//! PATCH: JSON, merge and strategic merge patches, server-side apply.

use proto_api::apply::OnConflict;
use proto_api::decode::{self, Encoding};

use super::Call;
use super::objects::{FieldValidation, gvk};
use crate::field::{FieldError, Path};
use crate::http::{BodyKind, Request, Response, read_body};
use crate::registry::Subresource;
use crate::server::{Patch, Target};
use crate::status::StatusError;

impl Call {
    pub(super) async fn patch(
        &self,
        target: &Target,
        request: Request,
    ) -> Result<Response, StatusError> {
        self.accept_for(&target.kind)?;
        let kind = BodyKind::of(&self.headers)?;
        let body = read_body(request.into_body()).await?;
        if kind == BodyKind::ApplyPatch {
            return self.apply(target, &body).await;
        }
        let (tree, mut findings) = decode::parse(&body, Encoding::Json)
            .map_err(|fault| StatusError::bad_request(format!("error decoding patch: {fault}")))?;
        self.note_body(&tree);
        let patch = match kind {
            BodyKind::JsonPatch => Patch::Json(tree),
            BodyKind::MergePatch => Patch::Merge(tree),
            BodyKind::StrategicPatch if target.kind.custom.is_some() => {
                return Err(BodyKind::not_a_patch());
            }
            BodyKind::StrategicPatch => Patch::Strategic(tree),
            BodyKind::ApplyPatch | BodyKind::Object(_) => return Err(BodyKind::not_a_patch()),
        };
        let refuse = |found: &[decode::Finding]| self.refuse_patch(&body, found);
        refuse(&findings)?;
        let context = self.write_context(false)?;
        let patched = self
            .api
            .server
            .patch(target, &patch, &context, refuse)
            .await?;
        findings.extend(patched.findings);
        let mut answer = if target.subresource == Some(Subresource::Scale) {
            self.tree_answer(
                200,
                &crate::server::scale_of(&target.kind, &patched.obj.value()),
            )?
        } else {
            self.object_answer(200, &target.kind, &patched.obj)?
        };
        self.warn(&mut answer, &findings, &[])?;
        Ok(answer)
    }

    /// Strict validation refuses a patch with, or that leads to, unknown or duplicate fields.
    fn refuse_patch(&self, patch: &[u8], findings: &[decode::Finding]) -> Result<(), StatusError> {
        if findings.is_empty() || self.field_validation()? != FieldValidation::Strict {
            return Ok(());
        }
        let shown = String::from_utf8_lossy(patch).into_owned();
        let why = decode::strict_message(findings);
        let error = FieldError::invalid(&Path::root("patch"), shown, why);
        Err(StatusError::invalid("", "", "", &[error]))
    }

    /// Server-side apply.
    async fn apply(&self, target: &Target, body: &[u8]) -> Result<Response, StatusError> {
        let applicable = matches!(target.subresource, None | Some(Subresource::Status));
        if !applicable || target.kind.is_view() {
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
        self.note_body(&config);
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
