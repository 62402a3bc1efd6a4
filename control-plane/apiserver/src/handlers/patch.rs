//! PATCH: JSON, merge and strategic merge patches.

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
            None => gvk(target.kind),
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
            self.object_answer(200, target.kind, &patched.obj)?
        };
        self.warn(&mut answer, &findings, &[])?;
        Ok(answer)
    }
}
