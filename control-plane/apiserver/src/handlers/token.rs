//! `serviceaccounts/token`, and how others check our tokens.

use hyper::header::{CONTENT_TYPE, HeaderValue};
use proto_api::schema::Gvk;
use serde_json::json;

use super::Call;
use crate::auth::{ISSUER, TokenKeys};
use crate::http::{Request, Response, json_response};
use crate::server::Target;
use crate::status::StatusError;

const TOKEN_REQUEST: Gvk<'static> = Gvk {
    group: "authentication.k8s.io",
    version: "v1",
    kind: "TokenRequest",
};

impl Call {
    pub(super) async fn issue_token(
        &self,
        target: &Target,
        request: Request,
    ) -> Result<Response, StatusError> {
        let mut body = self.read_object(request, TOKEN_REQUEST).await?.value;
        let server = &self.api.server;
        let context = self.write_context(false)?;
        Box::pin(server.review_body(target, &mut body, &context)).await?;
        server
            .admission
            .check_node_token(target, &self.user, &body)?;
        let issued = server.issue_token(&self.api.tokens, target, &body).await?;
        self.tree_answer(201, &issued)
    }
}

/// The public keys of the token issuer.
pub(super) fn jwks(tokens: &TokenKeys) -> Response {
    let mut answer = json_response(200, &tokens.jwks());
    let kind = HeaderValue::from_static("application/jwk-set+json");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

/// The OpenID provider configuration of the token issuer.
pub(super) fn openid_configuration() -> Response {
    json_response(
        200,
        &json!({
            "issuer": ISSUER,
            "jwks_uri": format!("{ISSUER}/openid/v1/jwks"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }),
    )
}
