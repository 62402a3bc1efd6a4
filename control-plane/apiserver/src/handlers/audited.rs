//! Requests in the audit log: what is noted when.

use std::sync::Arc;

use http_body_util::{BodyExt as _, Full};
use hyper::HeaderMap;
use hyper::body::Body as _;
use hyper::header::{HeaderName, HeaderValue, USER_AGENT};
use serde_json::Value;

use super::{Api, Call};
use crate::audit::{Asked, Trail};
use crate::http::{Peer, Request, RequestInfo, Response};
use crate::server::{Notes, new_uid};
use crate::status::StatusError;

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

impl Api {
    /// The trail of a new request, where there is a log.
    pub(super) fn trail(
        &self,
        peer: &Peer,
        info: &RequestInfo,
        request: &Request,
        id: &HeaderValue,
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
        let id = id.to_str().unwrap_or_default().to_owned();
        Some(Arc::new(Trail::new(log, id, asked, (self.server.clock)())))
    }

    /// Ends the trail of a request that is refused.
    pub(super) fn note_refusal(&self, trail: Option<&Trail>, refusal: &StatusError) {
        if let Some(trail) = trail {
            let now = (self.server.clock)();
            trail.complete(refusal.code, &refusal.to_value(), now);
        }
    }
}

/// The id of a request and of its events: the client's own, else a fresh one.
pub(super) fn audit_id(headers: &HeaderMap) -> HeaderValue {
    let own = headers.get(AUDIT_ID);
    let own = own.filter(|id| !id.is_empty() && id.len() <= AUDIT_ID_BYTES_MAX);
    own.cloned().unwrap_or_else(|| {
        let id = HeaderValue::try_from(new_uid());
        id.unwrap_or(HeaderValue::from_static("unknown"))
    })
}

/// Longer ids of clients are not taken over.
const AUDIT_ID_BYTES_MAX: usize = 64;

/// The answer with the id of its request.
pub(super) fn named(id: HeaderValue, mut answer: Response) -> Response {
    answer.headers_mut().insert(AUDIT_ID, id);
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
