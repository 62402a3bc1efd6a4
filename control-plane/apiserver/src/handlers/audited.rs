//! Requests in the audit log: what is noted when.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use http_body_util::BodyExt as _;
use hyper::HeaderMap;
use hyper::body::{Body as _, Frame, SizeHint};
use hyper::header::{HeaderName, HeaderValue, USER_AGENT};
use jiff::Timestamp;
use serde_json::Value;

use super::{Api, Call};
use crate::audit::{Asked, Trail};
use crate::http::{Body, Parts, Peer, Request, RequestInfo, Response, whole};
use crate::server::{Notes, new_uid};
use crate::status::StatusError;

/// Bytes of a list that an event may show.
const SHOWN_BYTES_MAX: usize = 4 << 20;
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
    /// Ends the trail with the answer: at once, or at the end of one that is a stream. What is no
    /// JSON, or too long, is not shown.
    pub(super) async fn noted(&self, answer: Response) -> Response {
        let Some(trail) = &self.trail else {
            return answer;
        };
        let code = answer.status().as_u16();
        let clock = self.api.server.clock;
        if answer.body().size_hint().exact().is_none() {
            let lists = self.info.verb == "list";
            if !lists {
                trail.started(code, clock());
            }
            let kept = (lists && trail.wants_response()).then(BytesMut::new);
            let trail = Arc::clone(trail);
            return answer.map(|body| {
                Followed {
                    body,
                    trail,
                    code,
                    clock,
                    kept,
                }
                .boxed_unsync()
            });
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
        Response::from_parts(head, whole(bytes))
    }

    /// Notes the body that was sent.
    pub(super) fn note_body(&self, body: &Value) {
        if let Some(trail) = &self.trail {
            trail.request(body);
        }
    }
}

/// An answer whose trail ends with it: with its last byte, or when the client is gone.
struct Followed {
    body: Body,
    trail: Arc<Trail>,
    code: u16,
    clock: fn() -> Timestamp,
    /// What has passed, where it is to be shown and is not too long.
    kept: Option<BytesMut>,
}

impl hyper::body::Body for Followed {
    type Data = Parts;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Parts>, Infallible>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Some(kept) = &mut self.kept
        {
            if kept.len() + data.len() <= SHOWN_BYTES_MAX {
                data.pieces()
                    .for_each(|piece| kept.extend_from_slice(piece));
            } else {
                self.kept = None;
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        // Of a list that was not read to its end nothing is shown: it is no JSON.
        let kept = self.kept.take().unwrap_or_default();
        let shown = serde_json::from_slice(&kept).unwrap_or_default();
        self.trail.complete(self.code, &shown, (self.clock)());
    }
}
