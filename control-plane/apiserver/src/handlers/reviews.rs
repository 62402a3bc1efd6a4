//! Questions about who one is and what one may. Answered, never stored.

use proto_api::schema::Gvk;
use serde_json::{Value, json};

use super::Call;
use crate::auth::{Attributes, Decision, NODES, PolicyRule, User};
use crate::field::{FieldError, Path};
use crate::http::{Request, ResourcePath, Response};
use crate::registry::Scope;
use crate::status::{GroupResource, StatusError};
use crate::tree;

/// A kind that is only ever posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Review {
    pub(super) group: &'static str,
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
    pub(super) singular: &'static str,
    pub(super) scope: Scope,
}

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

const fn review(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
) -> Review {
    Review {
        group,
        kind,
        plural,
        singular,
        scope: Scope::Cluster,
    }
}

pub(super) const REVIEWS: &[Review] = &[
    review(
        AUTHENTICATION,
        "SelfSubjectReview",
        "selfsubjectreviews",
        "selfsubjectreview",
    ),
    review(AUTHENTICATION, "TokenReview", "tokenreviews", "tokenreview"),
    Review {
        scope: Scope::Namespaced,
        ..review(
            AUTHORIZATION,
            "LocalSubjectAccessReview",
            "localsubjectaccessreviews",
            "localsubjectaccessreview",
        )
    },
    review(
        AUTHORIZATION,
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        "selfsubjectaccessreview",
    ),
    review(
        AUTHORIZATION,
        "SelfSubjectRulesReview",
        "selfsubjectrulesreviews",
        "selfsubjectrulesreview",
    ),
    review(
        AUTHORIZATION,
        "SubjectAccessReview",
        "subjectaccessreviews",
        "subjectaccessreview",
    ),
];

/// Group, plural and scope of every review.
#[cfg(test)]
pub(crate) fn review_resources() -> impl Iterator<Item = (&'static str, &'static str, Scope)> {
    REVIEWS.iter().map(|r| (r.group, r.plural, r.scope))
}

impl Review {
    pub(super) fn find(path: &ResourcePath) -> Option<Self> {
        REVIEWS
            .iter()
            .find(|r| r.group == path.group && path.version == "v1" && r.plural == path.plural)
            .copied()
    }

    fn invalid(self, error: FieldError) -> StatusError {
        StatusError::invalid(self.group, self.kind, "", &[error])
    }
}

impl Call {
    pub(super) async fn review(
        &self,
        review: Review,
        path: &ResourcePath,
        request: Request,
    ) -> Result<Response, StatusError> {
        let namespaced = review.scope == Scope::Namespaced;
        if namespaced == path.namespace.is_empty() || !path.name.is_empty() {
            return Err(StatusError::path_not_found());
        }
        let gr = GroupResource {
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
            "TokenReview" => self.review_token(&answer)?,
            "SelfSubjectRulesReview" => self.review_rules(&answer)?,
            "SelfSubjectAccessReview" => self.access(&self.user, &asked(review, &answer)?),
            _ => {
                check_namespace(review, path, &answer)?;
                let user = subject(review, &answer)?;
                self.access(&user, &asked(review, &answer)?)
            }
        };
        tree::as_object(&mut answer).insert("status".to_owned(), status);
        let meta = tree::object_mut(&mut answer, "metadata");
        tree::default(meta, "creationTimestamp", self.api.server.now_text());
        self.tree_answer(201, &answer)
    }

    fn review_token(&self, review: &Value) -> Result<Value, StatusError> {
        let token = tree::text(review, &["spec", "token"]);
        if token.is_empty() {
            return Err(StatusError::bad_request(
                "token is required for TokenReview in authentication",
            ));
        }
        let audiences: Vec<String> = tree::list(review, &["spec", "audiences"])
            .iter()
            .filter_map(|audience| audience.as_str().map(str::to_owned))
            .collect();
        Ok(match self.api.token_user(token, &audiences) {
            Ok((user, audiences)) => json!({
                "authenticated": true, "user": user_info(&user), "audiences": audiences,
            }),
            Err(why) => json!({"user": {}, "error": why}),
        })
    }

    fn review_rules(&self, review: &Value) -> Result<Value, StatusError> {
        let namespace = tree::text(review, &["spec", "namespace"]);
        if namespace.is_empty() {
            return Err(StatusError::bad_request("no namespace on request"));
        }
        let rules = self.api.server.authorizer.rules_of(&self.user, namespace);
        let of = |paths: bool| -> Vec<Value> {
            rules
                .iter()
                .filter(|rule| rule.urls.is_empty() != paths)
                .map(PolicyRule::to_value)
                .collect()
        };
        let node = self.user.in_group(NODES);
        let mut status = json!({
            "resourceRules": of(false), "nonResourceRules": of(true), "incomplete": node,
        });
        if node {
            status["evaluationError"] =
                json!("node authorizer does not support user rule resolution");
        }
        Ok(status)
    }

    fn access(&self, user: &User, asked: &Attributes) -> Value {
        match self.api.server.authorizer.authorize(user, asked) {
            Decision::Allowed { reason } => json!({"allowed": true, "reason": &*reason}),
            Decision::Denied { reason } if reason.is_empty() => json!({"allowed": false}),
            Decision::Denied { reason } => json!({"allowed": false, "reason": &*reason}),
        }
    }
}

/// A local review asks about its own namespace.
fn check_namespace(review: Review, path: &ResourcePath, body: &Value) -> Result<(), StatusError> {
    if review.scope == Scope::Cluster {
        return Ok(());
    }
    let spec = Path::root("spec");
    let other = tree::at(body, &["spec", "nonResourceAttributes"]);
    if other.is_object() {
        let path = spec.child("nonResourceAttributes");
        let detail = "disallowed on this kind of request";
        return Err(review.invalid(FieldError::invalid(&path, other.clone(), detail)));
    }
    let named = tree::text(body, &["metadata", "namespace"]);
    if !named.is_empty() && named != path.namespace {
        return Err(StatusError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let asked = tree::text(body, &["spec", "resourceAttributes", "namespace"]);
    if asked != path.namespace {
        let path = spec.child("resourceAttributes").child("namespace");
        let error = FieldError::invalid(&path, asked, "must match metadata.namespace");
        return Err(review.invalid(error));
    }
    Ok(())
}

/// Who a SubjectAccessReview is about.
fn subject(review: Review, body: &Value) -> Result<User, StatusError> {
    let texts = |value: &Value| -> Vec<String> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|text| text.as_str().map(str::to_owned))
            .collect()
    };
    let user = User {
        name: tree::text(body, &["spec", "user"]).to_owned(),
        uid: tree::text(body, &["spec", "uid"]).to_owned(),
        groups: texts(tree::at(body, &["spec", "groups"])),
        extra: tree::entries(body, &["spec", "extra"])
            .map(|(key, values)| (key.clone(), texts(values)))
            .collect(),
    };
    if user.name.is_empty() && user.groups.is_empty() {
        let path = Path::root("spec").child("user");
        let detail = "at least one of user or group must be specified";
        return Err(review.invalid(FieldError::invalid(&path, "", detail)));
    }
    Ok(user)
}

/// What a review asks for.
fn asked(review: Review, body: &Value) -> Result<Attributes, StatusError> {
    let part = |name: &str| tree::at(body, &["spec", name]);
    let (resource, other) = (part("resourceAttributes"), part("nonResourceAttributes"));
    let spec = Path::root("spec");
    let text = |part: &Value, field: &str| tree::text(part, &[field]).to_owned();
    match (resource.is_object(), other.is_object()) {
        (true, true) => {
            let path = spec.child("nonResourceAttributes");
            let detail = "cannot be specified in combination with resourceAttributes";
            Err(review.invalid(FieldError::invalid(&path, other.clone(), detail)))
        }
        (false, false) => {
            let path = spec.child("resourceAttributes");
            let detail =
                "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            Err(review.invalid(FieldError::invalid(&path, Value::Null, detail)))
        }
        (true, false) => Ok(Attributes {
            verb: text(resource, "verb"),
            group: text(resource, "group"),
            version: text(resource, "version"),
            resource: text(resource, "resource"),
            subresource: text(resource, "subresource"),
            namespace: text(resource, "namespace"),
            name: text(resource, "name"),
            fields: tree::text(resource, &["fieldSelector", "rawSelector"]).to_owned(),
            path: String::new(),
        }),
        (false, true) => Ok(Attributes {
            verb: text(other, "verb"),
            path: text(other, "path"),
            ..Attributes::default()
        }),
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
