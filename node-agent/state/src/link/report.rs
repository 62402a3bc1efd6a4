//! Reports over the link: each is a call of its own with an answer of its own.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use proto::agent::v1 as pb;
use proto_api::types::core::v1::{Event, Node, PodStatus};
use tonic::{Code, Request, Status};

use super::{Link, REPORT_TIMEOUT};
use crate::upstream::{IssuedToken, PodRef, TokenRequest, Upstream, UpstreamError};

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(REPORT_TIMEOUT);
    request
}

fn refused(what: &str, status: &Status) -> UpstreamError {
    let reason = status.message().to_owned();
    match status.code() {
        Code::NotFound => UpstreamError::Gone {
            what: what.to_owned(),
        },
        Code::InvalidArgument | Code::PermissionDenied | Code::Unimplemented => {
            UpstreamError::Rejected {
                what: what.to_owned(),
                reason,
            }
        }
        _ => UpstreamError::Unavailable { reason },
    }
}

fn to_json<T: serde::Serialize>(what: &str, value: &T) -> Result<Vec<u8>, UpstreamError> {
    serde_json::to_vec(value).map_err(|error| UpstreamError::Rejected {
        what: what.to_owned(),
        reason: error.to_string(),
    })
}

impl Link {
    async fn report_pod(&self, report: pb::PodReport) -> Result<(), UpstreamError> {
        let what = format!("pod {}/{}", report.namespace, report.name);
        let request = pb::ReportPodsRequest { pods: vec![report] };
        let answer = self
            .client()
            .report_pods(timed(request))
            .await
            .map_err(|status| refused(&what, &status))?
            .into_inner();
        let Some(result) = answer.results.into_iter().next() else {
            return Err(UpstreamError::Unavailable {
                reason: "the answer names no pod".into(),
            });
        };
        match result.outcome() {
            pb::ReportOutcome::Stored => Ok(()),
            pb::ReportOutcome::Gone => Err(UpstreamError::Gone { what }),
            pb::ReportOutcome::Rejected => Err(UpstreamError::Rejected {
                what,
                reason: result.message,
            }),
            pb::ReportOutcome::Retry | pb::ReportOutcome::Unspecified => {
                Err(UpstreamError::Unavailable {
                    reason: result.message,
                })
            }
        }
    }
}

#[async_trait]
impl Upstream for Link {
    async fn pod_status(&self, pod: &PodRef, status: &PodStatus) -> Result<(), UpstreamError> {
        let report = pb::PodReport {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            status: to_json(&pod.name, status)?,
            finished: false,
        };
        self.report_pod(report).await
    }

    async fn pod_finished(&self, pod: &PodRef) -> Result<(), UpstreamError> {
        let report = pb::PodReport {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            status: Vec::new(),
            finished: true,
        };
        self.report_pod(report).await
    }

    async fn node(&self, node: &Node) -> Result<Node, UpstreamError> {
        let what = "this node";
        let request = pb::ReportNodeRequest {
            node: to_json(what, node)?,
        };
        let answer = self
            .client()
            .report_node(timed(request))
            .await
            .map_err(|status| refused(what, &status))?
            .into_inner();
        serde_json::from_slice(&answer.node).map_err(|error| UpstreamError::Rejected {
            what: what.to_owned(),
            reason: format!("the answer is not a Node: {error}"),
        })
    }

    async fn events(&self, events: &[Event]) -> Result<(), UpstreamError> {
        let what = "events";
        let events = events
            .iter()
            .map(|event| to_json(what, event))
            .collect::<Result<_, _>>()?;
        self.client()
            .report_events(timed(pb::ReportEventsRequest { events }))
            .await
            .map_err(|status| refused(what, &status))?;
        Ok(())
    }

    async fn token(&self, request: &TokenRequest) -> Result<IssuedToken, UpstreamError> {
        let what = format!(
            "service account {}/{}",
            request.pod.namespace, request.service_account
        );
        let message = pb::IssueTokenRequest {
            namespace: request.pod.namespace.clone(),
            service_account: request.service_account.clone(),
            pod_name: request.pod.name.clone(),
            pod_uid: request.pod.uid.clone(),
            audiences: request.audiences.clone(),
            expiration_seconds: request.expiration_seconds,
        };
        let answer = self
            .client()
            .issue_token(timed(message))
            .await
            .map_err(|status| refused(&what, &status))?
            .into_inner();
        let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(answer.expires_unix_seconds);
        Ok(IssuedToken {
            token: answer.token,
            expires,
        })
    }
}
