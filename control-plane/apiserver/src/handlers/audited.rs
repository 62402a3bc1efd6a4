//! Requests in the audit log: what is noted when.

use std::sync::Arc;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Body as _;
use hyper::header::{HeaderName, HeaderValue, USER_AGENT};
use serde_json::Value;

use super::{Api, Call};
use crate::audit::{Asked, Trail};
use crate::http::{Peer, Request, RequestInfo, Response};
use crate::server::Notes;
use crate::status::StatusError;

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

impl Api {
    /// The trail of a new request, where there is a log.
    pub(super) fn trail(
        &self,
        peer: &Peer,
        info: &RequestInfo,
        request: &Request,
    ) -> Option<Arc<Trail>> {
        let log = self.audit.clone()?;
        let agent = request.headers().get(USER_AGENT);
        let uri = request.uri();
        let asked = Asked {
            verb: info.verb.to_owned(),
            resource: info.resource.clone(),
            path: uri.path().to_owned(),
            uri: uri
                .path_and_query()
                .map(ToString::to_string)
                .unwrap_or_default(),
            source: peer.address.ip().to_string(),
            agent: agent
                .and_then(|agent| agent.to_str().ok())
                .unwrap_or_default()
                .to_owned(),
        };
        Some(Arc::new(Trail::new(log, asked, (self.server.clock)())))
    }

    /// Ends the trail of a request that is refused.
    pub(super) fn note_refusal(&self, trail: Option<&Trail>, refusal: &StatusError) {
        if let Some(trail) = trail {
            let now = (self.server.clock)();
            trail.complete(refusal.code, &refusal.to_value(), now);
        }
    }
}

/// The answer with the id of its events.
pub(super) fn named(trail: Option<&Trail>, mut answer: Response) -> Response {
    if let Some(trail) = trail
        && let Ok(id) = HeaderValue::from_str(trail.id())
    {
        answer.headers_mut().insert(AUDIT_ID, id);
    }
    answer
}

/// Notes what admission said.
pub(super) fn note_said(trail: Option<&Trail>, notes: &Notes) {
    if let Some(trail) = trail {
        for (level, key, value) in notes.annotations() {
            trail.annotate(level, &key, &value);
        }
    }
}

impl Call {
    /// Ends the trail with the answer. The body of one that is a stream, or no JSON, is not shown.
    pub(super) async fn noted(&self, answer: Response) -> Response {
        let Some(trail) = &self.trail else {
            return answer;
        };
        note_said(Some(trail), &self.notes);
        let code = answer.status().as_u16();
        let clock = self.api.server.clock;
        if answer.body().size_hint().exact().is_none() {
            trail.started(code, clock());
            trail.complete(code, &Value::Null, clock());
            return answer;
        }
        if !trail.wants_response() {
            trail.complete(code, &Value::Null, clock());
            return answer;
        }
        let (head, body) = answer.into_parts();
        let bytes = match body.collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(never) => match never {},
        };
        let shown: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        trail.complete(code, &shown, clock());
        Response::from_parts(head, Full::new(bytes).boxed_unsync())
    }

    /// Notes the body that was sent.
    pub(super) fn note_body(&self, body: &Value) {
        if let Some(trail) = &self.trail {
            trail.request(body);
        }
    }
}
