//! PUT: replace an object or a subresource of it.

use proto_api::schema::Gvk;

use super::Call;
use super::objects::gvk;
use crate::http::{Request, Response};
use crate::registry::Subresource;
use crate::server::Target;
use crate::status::StatusError;

impl Call {
    pub(super) async fn update(
        &self,
        target: &Target,
        request: Request,
    ) -> Result<Response, StatusError> {
        self.accept_for(&target.kind)?;
        let expected = match target.subresource.and_then(Subresource::body) {
            Some((group, version, kind)) => Gvk {
                group,
                version,
                kind,
            },
            None => gvk(&target.kind),
        };
        let decoded = self.read_object(request, expected).await?;
        let context = self.write_context(false)?;
        let warnings = target.kind.strategy.warnings(&decoded.value);
        let (obj, created) = self
            .api
            .server
            .update(target, decoded.value, &context)
            .await?;
        let code = if created { 201 } else { 200 };
        let mut answer = self.written_answer(code, target, &obj)?;
        self.warn(&mut answer, &decoded.findings, &warnings)?;
        Ok(answer)
    }
}
