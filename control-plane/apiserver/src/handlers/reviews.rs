//! Questions about oneself: who am I, may I. Answered, never stored.

use proto_api::schema::Gvk;
use serde_json::{Value, json};

use super::Call;
use crate::auth::{Attributes, Decision, User};
use crate::http::{Request, ResourcePath, Response, json_response};
use crate::status::StatusError;
use crate::tree;

/// A kind that is only ever posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Review {
    pub(super) group: &'static str,
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
    pub(super) singular: &'static str,
}

pub(super) const REVIEWS: &[Review] = &[
    Review {
        group: "authentication.k8s.io",
        kind: "SelfSubjectReview",
        plural: "selfsubjectreviews",
        singular: "selfsubjectreview",
    },
    Review {
        group: "authentication.k8s.io",
        kind: "TokenReview",
        plural: "tokenreviews",
        singular: "tokenreview",
    },
    Review {
        group: "authorization.k8s.io",
        kind: "SelfSubjectAccessReview",
        plural: "selfsubjectaccessreviews",
        singular: "selfsubjectaccessreview",
    },
];

impl Review {
    pub(super) fn find(path: &ResourcePath) -> Option<Self> {
        REVIEWS
            .iter()
            .find(|r| r.group == path.group && path.version == "v1" && r.plural == path.plural)
            .copied()
    }
}

impl Call {
    pub(super) async fn review(
        &self,
        review: Review,
        request: Request,
    ) -> Result<Response, StatusError> {
        let gr = crate::status::GroupResource {
            group: review.group,
            resource: review.plural,
        };
        if self.info.verb != "create" {
            return Err(StatusError::method_not_supported(gr, self.info.verb));
        }
        let gvk = Gvk {
            group: review.group,
            version: "v1",
            kind: review.kind,
        };
        let mut answer = self.read_object(request, gvk).await?.value;
        let status = match review.kind {
            "SelfSubjectReview" => json!({"userInfo": user_info(&self.user)}),
            "TokenReview" => self.review_token(tree::text(&answer, &["spec", "token"])),
            _ => self.review_access(&answer),
        };
        tree::as_object(&mut answer).insert("status".to_owned(), status);
        let meta = tree::object_mut(&mut answer, "metadata");
        tree::default(meta, "creationTimestamp", self.api.server.now_text());
        Ok(json_response(201, &answer))
    }

    fn review_token(&self, token: &str) -> Value {
        match self.api.tokens.verify(token) {
            Ok(subject) => json!({
                "authenticated": true, "user": user_info(&subject.user),
                "audiences": [crate::auth::ISSUER],
            }),
            Err(fault) => json!({"authenticated": false, "error": fault.to_string()}),
        }
    }

    fn review_access(&self, review: &Value) -> Value {
        let text = |part: &str, field: &str| tree::text(review, &["spec", part, field]).to_owned();
        let resource = "resourceAttributes";
        let attributes = if tree::at(review, &["spec", resource]).is_object() {
            Attributes {
                verb: text(resource, "verb"),
                group: text(resource, "group"),
                version: text(resource, "version"),
                resource: text(resource, "resource"),
                subresource: text(resource, "subresource"),
                namespace: text(resource, "namespace"),
                name: text(resource, "name"),
                path: String::new(),
            }
        } else {
            let other = "nonResourceAttributes";
            Attributes {
                verb: text(other, "verb"),
                path: text(other, "path"),
                ..Attributes::default()
            }
        };
        match self.api.authorizer.authorize(&self.user, &attributes) {
            Decision::Allowed { reason } => json!({"allowed": true, "reason": reason}),
            Decision::Denied => json!({"allowed": false}),
        }
    }
}

fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}
