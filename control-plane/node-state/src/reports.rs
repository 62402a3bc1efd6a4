//! What nodes report -> API objects, each checked against the node that says it.

use control_plane_client::api::{ApiError, ApiHandle, DeleteOptions, ObjectKey, Patch};
use control_plane_client::informers::Informers;
use control_plane_client::resources;
use proto::agent::v1 as pb;
use proto_api::types::core::v1::{Event, Node, Pod};
use serde_json::{Value, json};
use tonic::Status;

/// Seconds for which a node's Lease is valid (`kubelet --node-lease-duration-seconds`).
const LEASE_SECONDS: u32 = 40;
/// Namespace of node leases.
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// Stores reports.
#[derive(Debug, Clone)]
pub(crate) struct Reports {
    informers: Informers,
}

fn outcome(outcome: pb::ReportOutcome, message: String) -> pb::PodResult {
    pb::PodResult {
        outcome: outcome.into(),
        message,
    }
}

fn refused(error: &ApiError) -> pb::PodResult {
    let kind = match error.code {
        404 => pb::ReportOutcome::Gone,
        400 | 403 | 413 | 422 => pb::ReportOutcome::Rejected,
        _ => pb::ReportOutcome::Retry,
    };
    outcome(kind, error.message.clone())
}

pub(crate) fn status(error: &ApiError) -> Status {
    let message = error.message.clone();
    match error.code {
        400 | 413 | 422 => Status::invalid_argument(message),
        403 => Status::permission_denied(message),
        404 => Status::not_found(message),
        _ => Status::unavailable(message),
    }
}

impl Reports {
    pub(crate) fn new(informers: Informers) -> Self {
        Self { informers }
    }

    fn api(&self) -> &ApiHandle {
        self.informers.api()
    }

    /// Stores a pod's status, or removes the pod that the node has finished.
    pub(crate) async fn pod(&self, node: &str, report: &pb::PodReport) -> pb::PodResult {
        let key = ObjectKey::new(report.namespace.as_str(), report.name.as_str());
        let pod = match self.pod_of(node, &key, &report.uid).await {
            Ok(pod) => pod,
            Err(result) => return result,
        };
        let answer = if report.finished {
            let options = DeleteOptions {
                grace_period_seconds: Some(0),
                uid: Some(report.uid.clone()),
                ..DeleteOptions::default()
            };
            self.api().delete(resources::PODS, &key, &options).await
        } else {
            let status = match serde_json::from_slice::<Value>(&report.status) {
                Ok(status) => status,
                Err(error) => {
                    return outcome(
                        pb::ReportOutcome::Rejected,
                        format!("not a status: {error}"),
                    );
                }
            };
            // The whole status at once, and only for this uid: nothing of an older one survives.
            let op = if pod.status.is_some() {
                "replace"
            } else {
                "add"
            };
            let patch = json!([
                {"op": "test", "path": "/metadata/uid", "value": report.uid},
                {"op": op, "path": "/status", "value": status},
            ]);
            let patch = Patch::Json(patch);
            self.api()
                .patch(resources::PODS, &key, Some("status"), patch)
                .await
                .map(drop)
        };
        match answer {
            Ok(()) => outcome(pb::ReportOutcome::Stored, String::new()),
            Err(error) => refused(&error),
        }
    }

    /// The pod, if it is this node's and still the one that the report means.
    async fn pod_of(&self, node: &str, key: &ObjectKey, uid: &str) -> Result<Pod, pb::PodResult> {
        let pod = match self.informers.of::<Pod>().get(key) {
            Some(cached) if cached.metadata.uid.as_deref() == Some(uid) => cached.value.clone(),
            // The cache may be a moment behind, or the pod is gone: ask.
            Some(_) | None => {
                let object = self.api().get(resources::PODS, key).await;
                let object = object.map_err(|error| refused(&error))?;
                object.decode::<Pod>().map_err(|error| {
                    outcome(
                        pb::ReportOutcome::Retry,
                        format!("the pod does not decode: {error}"),
                    )
                })?
            }
        };
        if pod.metadata.uid.as_deref() != Some(uid) {
            let message = format!("pod {key} has another uid now");
            return Err(outcome(pb::ReportOutcome::Gone, message));
        }
        let bound = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        if bound != Some(node) {
            let message = format!("pod {key} is not on node {node}");
            return Err(outcome(pb::ReportOutcome::Rejected, message));
        }
        Ok(pod)
    }

    /// Registers the node or updates its labels and status. Answers the Node as stored.
    pub(crate) async fn node(&self, name: &str, body: &[u8]) -> Result<Vec<u8>, Status> {
        let node: Node = serde_json::from_slice(body)
            .map_err(|error| Status::invalid_argument(format!("not a Node: {error}")))?;
        if node.metadata.name.as_deref() != Some(name) {
            return Err(Status::permission_denied(format!(
                "a node reports itself only ({name})"
            )));
        }
        let key = ObjectKey::new("", name);
        let to_json = |error: serde_json::Error| Status::invalid_argument(error.to_string());
        let known = match self.api().get(resources::NODES, &key).await {
            Ok(known) => known,
            Err(error) if error.is_not_found() => {
                let body = serde_json::to_value(&node).map_err(to_json)?;
                match self.api().create(resources::NODES, "", body).await {
                    Ok(created) => created,
                    Err(error) if error.is_already_exists() => self
                        .api()
                        .get(resources::NODES, &key)
                        .await
                        .map_err(|e| status(&e))?,
                    Err(error) => return Err(status(&error)),
                }
            }
            Err(error) => return Err(status(&error)),
        };
        let known: Node = known.decode().map_err(|error| {
            Status::internal(format!("the stored Node does not decode: {error}"))
        })?;
        self.node_labels(&key, &known, &node).await?;
        let new_status = serde_json::to_value(&node.status).map_err(to_json)?;
        let op = if known.status.is_some() {
            "replace"
        } else {
            "add"
        };
        let patch = Patch::Json(json!([{"op": op, "path": "/status", "value": new_status}]));
        let stored = self
            .api()
            .patch(resources::NODES, &key, Some("status"), patch)
            .await;
        Ok(stored.map_err(|error| status(&error))?.json.to_vec())
    }

    /// Sets labels and annotations that the node reports; others stay.
    async fn node_labels(&self, key: &ObjectKey, known: &Node, node: &Node) -> Result<(), Status> {
        let missing = |has: &std::collections::BTreeMap<String, String>,
                       wants: &std::collections::BTreeMap<String, String>| {
            wants
                .iter()
                .any(|(name, value)| has.get(name) != Some(value))
        };
        let (has, wants) = (&known.metadata, &node.metadata);
        if !missing(&has.labels, &wants.labels) && !missing(&has.annotations, &wants.annotations) {
            return Ok(());
        }
        let patch = json!({"metadata": {
            "labels": wants.labels, "annotations": wants.annotations,
        }});
        let answer = self
            .api()
            .patch(resources::NODES, key, None, Patch::Merge(patch))
            .await;
        answer.map(drop).map_err(|error| status(&error))
    }

    /// Stores events: the first of a name is created, later ones update its count.
    pub(crate) async fn event(&self, body: &[u8]) -> Result<(), Status> {
        let event: Event = serde_json::from_slice(body)
            .map_err(|error| Status::invalid_argument(format!("not an Event: {error}")))?;
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let name = event.metadata.name.clone().unwrap_or_default();
        let body = serde_json::to_value(&event)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        match self.api().create(resources::EVENTS, &namespace, body).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_already_exists() => {
                let patch = Patch::Merge(json!({
                    "count": event.count, "lastTimestamp": event.last_timestamp,
                    "message": event.message, "series": event.series,
                }));
                let key = ObjectKey::new(namespace, name);
                let answer = self.api().patch(resources::EVENTS, &key, None, patch).await;
                answer.map(drop).map_err(|error| status(&error))
            }
            Err(error) => Err(status(&error)),
        }
    }

    /// A token for the service account of one of this node's pods.
    pub(crate) async fn token(
        &self,
        node: &str,
        request: &pb::IssueTokenRequest,
    ) -> Result<pb::IssueTokenResponse, Status> {
        let key = ObjectKey::new(request.namespace.as_str(), request.pod_name.as_str());
        let pod = self
            .pod_of(node, &key, &request.pod_uid)
            .await
            .map_err(|result| Status::permission_denied(result.message))?;
        let account = pod
            .spec
            .and_then(|spec| spec.service_account_name)
            .unwrap_or_default();
        if account != request.service_account {
            return Err(Status::permission_denied(format!(
                "pod {key} runs as service account {account:?}, not {:?}",
                request.service_account
            )));
        }
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {
                "audiences": request.audiences, "expirationSeconds": request.expiration_seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": request.pod_name,
                    "uid": request.pod_uid},
            },
        });
        let key = ObjectKey::new(request.namespace.as_str(), account.as_str());
        let answer = self
            .api()
            .create_subresource(resources::SERVICE_ACCOUNTS, &key, "token", body)
            .await
            .map_err(|error| status(&error))?;
        let field = |name: &str| {
            answer
                .pointer(&format!("/status/{name}"))
                .and_then(Value::as_str)
        };
        let (Some(token), Some(expires)) = (field("token"), field("expirationTimestamp")) else {
            return Err(Status::internal(
                "the answer to the TokenRequest has no token",
            ));
        };
        let expires: jiff::Timestamp = expires
            .parse()
            .map_err(|error| Status::internal(format!("the token's end is no time: {error}")))?;
        Ok(pb::IssueTokenResponse {
            token: token.to_owned(),
            expires_unix_seconds: u64::try_from(expires.as_second()).unwrap_or(0),
        })
    }

    /// Renews the node's Lease, creating it the first time.
    pub(crate) async fn heartbeat(&self, node: &str) -> Result<(), ApiError> {
        let key = ObjectKey::new(LEASE_NAMESPACE, node);
        let now = jiff::Timestamp::now();
        let renew_time = format!("{now:.6}");
        let patch = Patch::Merge(json!({"spec": {"renewTime": renew_time}}));
        match self.api().patch(resources::LEASES, &key, None, patch).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => self.create_lease(node, &renew_time).await,
            Err(error) => Err(error),
        }
    }

    async fn create_lease(&self, node: &str, renew_time: &str) -> Result<(), ApiError> {
        // The Lease belongs to the Node; before the node has registered there is none to belong to,
        // and the next heartbeat tries again.
        let Some(owner) = self.informers.of::<Node>().get(&ObjectKey::new("", node)) else {
            return Ok(());
        };
        let uid = owner.metadata.uid.clone();
        let body = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": node, "namespace": LEASE_NAMESPACE, "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}]},
            "spec": {"holderIdentity": node, "leaseDurationSeconds": LEASE_SECONDS,
                "renewTime": renew_time},
        });
        match self
            .api()
            .create(resources::LEASES, LEASE_NAMESPACE, body)
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if error.is_already_exists() => Ok(()),
            Err(error) => Err(error),
        }
    }
}
