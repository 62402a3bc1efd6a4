//! GET of one object.

use super::Call;
use super::selectors::resource_version;
use crate::http::Response;
use crate::registry::Subresource;
use crate::server::Target;
use crate::status::StatusError;

impl Call {
    pub(super) async fn get(&self, target: &Target) -> Result<Response, StatusError> {
        self.accept_for(&target.kind)?;
        let rv = resource_version(&self.query)?;
        let obj = self.api.server.get(target, rv).await?;
        if target.subresource == Some(Subresource::Scale) {
            return self.tree_answer(200, &crate::server::scale_of(&target.kind, &obj.value()));
        }
        self.object_answer(200, &target.kind, &obj)
    }
}
