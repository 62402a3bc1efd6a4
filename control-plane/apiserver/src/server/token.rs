//! TokenRequest: a service account's token, bound to a pod when asked.

use serde_json::{Value, json};

use super::{Server, Target, timestamp};
use crate::auth::{IssueRequest, IssuedToken, TokenKeys};
use crate::field::{FieldError, Path};
use crate::object::ObjKey;
use crate::status::{GroupResource, StatusError};
use crate::tree;

/// Seconds that a token is valid when the request does not say.
const SECONDS: i64 = 3600;
/// Shortest life that may be asked for.
const SECONDS_MIN: i64 = 600;
/// Longest life that may be asked for.
const SECONDS_MAX: i64 = 1 << 32;

impl Server {
    /// Issues the token that `request` (a TokenRequest) asks for the account `target`; returns the
    /// request with its status.
    ///
    /// # Errors
    /// The account or the pod is not there; the life asked for is too short or too long.
    pub async fn issue_token(
        &self,
        keys: &TokenKeys,
        target: &Target,
        request: &Value,
    ) -> Result<Value, StatusError> {
        let account = self
            .get(
                &Target {
                    subresource: None,
                    ..target.clone()
                },
                None,
            )
            .await?;
        let seconds = tree::int(request, &["spec", "expirationSeconds"]).unwrap_or(SECONDS);
        check_seconds(target, seconds)?;
        let audiences = tree::list(request, &["spec", "audiences"])
            .iter()
            .filter_map(|audience| audience.as_str().map(str::to_owned))
            .collect();
        let (pod, node) = self.bound_pod(target, request)?;
        let issue = IssueRequest {
            namespace: target.key.namespace.to_string(),
            account: target.key.name.to_string(),
            account_uid: account.meta.uid.to_string(),
            audiences,
            expiration_seconds: seconds,
            pod,
            node,
        };
        let issued = keys
            .issue(&issue, (self.clock)().as_second())
            .map_err(StatusError::internal)?;
        Ok(answer(request, target, &issued, seconds, &self.now_text()))
    }

    /// Name and uid of the pod that the token is bound to, and of its node.
    #[expect(clippy::type_complexity, reason = "two optional pairs, used once")]
    fn bound_pod(
        &self,
        target: &Target,
        request: &Value,
    ) -> Result<(Option<(String, String)>, Option<(String, String)>), StatusError> {
        let bound = tree::at(request, &["spec", "boundObjectRef"]);
        if !bound.is_object() {
            return Ok((None, None));
        }
        let kind = tree::text(bound, &["kind"]);
        if kind != "Pod" {
            let path = Path::root("spec").child("boundObjectRef").child("kind");
            let errors = [FieldError::not_supported(&path, kind, &["Pod"])];
            let name = &target.key.name;
            return Err(StatusError::invalid(
                "authentication.k8s.io",
                "TokenRequest",
                name,
                &errors,
            ));
        }
        let name = tree::text(bound, &["name"]);
        let pods = self.kind("", "v1", "pods")?;
        let Some(pod) = self
            .cache
            .of(&pods)
            .get(&ObjKey::new(&target.key.namespace, name))
        else {
            return Err(StatusError::not_found(pods.group_resource(), name));
        };
        let uid = tree::text(bound, &["uid"]);
        if !uid.is_empty() && uid != &*pod.meta.uid {
            let gr = GroupResource {
                group: "",
                resource: "pods",
            };
            let why = format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. \
                 The object might have been deleted and then recreated"
            );
            return Err(StatusError::conflict(gr, name, &why));
        }
        let value = pod.value();
        let own = tree::text(&value, &["spec", "serviceAccountName"]);
        if own != &*target.key.name {
            let message = format!(
                "cannot bind token for serviceaccount \"{}\" to pod running with different serviceaccount name.",
                target.key.name
            );
            return Err(StatusError::bad_request(message));
        }
        let node = tree::text(&value, &["spec", "nodeName"]);
        let nodes = self.kind("", "v1", "nodes")?;
        let node = self
            .cache
            .of(&nodes)
            .get(&ObjKey::new("", node))
            .map(|found| (node.to_owned(), found.meta.uid.to_string()));
        Ok((Some((name.to_owned(), pod.meta.uid.to_string())), node))
    }
}

fn check_seconds(target: &Target, seconds: i64) -> Result<(), StatusError> {
    let path = Path::root("spec").child("expirationSeconds");
    let detail = if seconds < SECONDS_MIN {
        "may not specify a duration less than 10 minutes"
    } else if seconds > SECONDS_MAX {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(());
    };
    let errors = [FieldError::invalid(&path, seconds, detail)];
    Err(StatusError::invalid(
        "authentication.k8s.io",
        "TokenRequest",
        &target.key.name,
        &errors,
    ))
}

fn answer(
    request: &Value,
    target: &Target,
    issued: &IssuedToken,
    seconds: i64,
    now: &str,
) -> Value {
    let expires = jiff::Timestamp::from_second(issued.expires_at).unwrap_or_default();
    let mut spec = request.get("spec").cloned().unwrap_or_else(|| json!({}));
    spec["audiences"] = json!(issued.audiences);
    spec["expirationSeconds"] = json!(seconds);
    json!({
        "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
        "metadata": {
            "name": &*target.key.name, "namespace": &*target.key.namespace,
            "creationTimestamp": now,
        },
        "spec": spec,
        "status": {"token": issued.token, "expirationTimestamp": timestamp(expires)},
    })
}
