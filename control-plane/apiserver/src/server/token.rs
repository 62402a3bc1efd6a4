//! TokenRequest: a service account's token, bound to a pod, a secret or a node when asked.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Server, Target, timestamp};
use crate::auth::{IssueRequest, IssuedToken, TokenKeys};
use crate::field::{FieldError, Path};
use crate::object::{Obj, ObjKey};
use crate::status::StatusError;
use crate::tree;

const GROUP: &str = "authentication.k8s.io";
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
        check_uid(target, tree::text(request, &["metadata", "uid"]), &account)?;
        let mut issue = IssueRequest {
            namespace: target.key.namespace.to_string(),
            account: target.key.name.to_string(),
            account_uid: account.meta.uid.to_string(),
            audiences,
            expiration_seconds: seconds,
            pod: None,
            node: None,
            secret: None,
        };
        self.bind_token(
            target,
            tree::at(request, &["spec", "boundObjectRef"]),
            &mut issue,
        )?;
        let now = (self.clock)().as_second();
        let issued = keys.issue(&issue, now).map_err(StatusError::internal)?;
        let seconds = issued.expires_at - now;
        Ok(answer(request, target, &issued, seconds, &self.now_text()))
    }

    /// Binds the token to the object that `bound` refers to.
    fn bind_token(
        &self,
        target: &Target,
        bound: &Value,
        issue: &mut IssueRequest,
    ) -> Result<(), StatusError> {
        if !bound.is_object() {
            return Ok(());
        }
        let named = |obj: &Obj| (obj.key.name.to_string(), obj.meta.uid.to_string());
        let path = Path::root("spec").child("boundObjectRef");
        let (version, kind) = (
            tree::text(bound, &["apiVersion"]),
            tree::text(bound, &["kind"]),
        );
        match (version, kind) {
            ("v1" | "", "Pod") => {
                let pod = self.bound_object("pods", &target.key.namespace, bound)?;
                let value = pod.value();
                check_account(target, &value)?;
                issue.pod = Some(named(&pod));
                let node = tree::text(&value, &["spec", "nodeName"]);
                let nodes = self.kind("", "v1", "nodes")?;
                let node = self.cache.of(&nodes).get(&ObjKey::new("", node));
                issue.node = node.map(|node| named(&node));
            }
            ("v1" | "", "Secret") => {
                let secret = self.bound_object("secrets", &target.key.namespace, bound)?;
                issue.secret = Some(named(&secret));
            }
            ("v1" | "", "Node") => {
                let node = self.bound_object("nodes", "", bound)?;
                issue.node = Some(named(&node));
            }
            (version, kind) => {
                let error = if matches!(version, "v1" | "") {
                    FieldError::not_supported(&path.child("kind"), kind, &["Node", "Pod", "Secret"])
                } else {
                    FieldError::not_supported(&path.child("apiVersion"), version, &["v1"])
                };
                let name = &target.key.name;
                return Err(StatusError::invalid(GROUP, "TokenRequest", name, &[error]));
            }
        }
        Ok(())
    }

    fn bound_object(
        &self,
        plural: &str,
        namespace: &str,
        bound: &Value,
    ) -> Result<Arc<Obj>, StatusError> {
        let kind = self.kind("", "v1", plural)?;
        let name = tree::text(bound, &["name"]);
        let Some(found) = self.cache.of(&kind).get(&ObjKey::new(namespace, name)) else {
            return Err(StatusError::not_found(kind.group_resource(), name));
        };
        let uid = tree::text(bound, &["uid"]);
        if !uid.is_empty() && uid != &*found.meta.uid {
            let why = format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. \
                 The object might have been deleted and then recreated"
            );
            return Err(StatusError::conflict(kind.group_resource(), name, &why));
        }
        Ok(found)
    }
}

fn check_uid(target: &Target, uid: &str, account: &Obj) -> Result<(), StatusError> {
    if uid.is_empty() || uid == &*account.meta.uid {
        return Ok(());
    }
    let why = format!(
        "the UID in the token request ({uid}) does not match the UID of the service account"
    );
    let name = &target.key.name;
    Err(StatusError::conflict(
        target.kind.group_resource(),
        name,
        &why,
    ))
}

fn check_account(target: &Target, pod: &Value) -> Result<(), StatusError> {
    if tree::text(pod, &["spec", "serviceAccountName"]) == &*target.key.name {
        return Ok(());
    }
    Err(StatusError::bad_request(format!(
        "cannot bind token for serviceaccount \"{}\" to pod running with different serviceaccount \
         name.",
        target.key.name
    )))
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
