//! Answers: JSON, text and streams.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::StatusCode;
use hyper::body::Frame;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use proto_api::{schema, transcode, yaml};
use serde_json::Value;

use super::{Codec, Layout, Parts};
use crate::status::StatusError;

/// Body of an answer.
pub(crate) type Body = UnsyncBoxBody<Parts, Infallible>;
/// An answer.
pub(crate) type Response = hyper::Response<Body>;

/// Content type of a Kubernetes protobuf body.
pub(crate) const PROTOBUF_CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// Content type of a YAML body.
pub(crate) const YAML_CONTENT_TYPE: &str = "application/yaml";

/// Bytes that one frame of a long answer holds, about.
const CHUNK_BYTES: usize = 64 * 1024;

/// A body whose bytes are all there.
pub(crate) fn whole(bytes: Bytes) -> Body {
    Full::new(Parts::from(bytes)).boxed_unsync()
}

/// A body that is made as it is written.
pub(crate) fn streamed_body<P: Into<Parts>>(
    stream: impl Stream<Item = P> + Send + 'static,
) -> Body {
    let frames = stream.map(|parts| Ok::<_, Infallible>(Frame::data(parts.into())));
    StreamBody::new(frames).boxed_unsync()
}

fn response(code: u16, content_type: &'static str, body: Body) -> Response {
    let mut response = hyper::Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// An answer of bytes that are JSON already.
pub(crate) fn json_bytes(code: u16, bytes: Bytes) -> Response {
    response(code, "application/json", whole(bytes))
}

/// An answer of bytes that are a protobuf body already.
pub(crate) fn protobuf_bytes(code: u16, bytes: Bytes) -> Response {
    response(code, PROTOBUF_CONTENT_TYPE, whole(bytes))
}

/// An answer of a JSON tree.
pub(crate) fn json_response(code: u16, value: &Value) -> Response {
    json_bytes(code, Bytes::from(value.to_string()))
}

/// An answer of a tree in one of the forms that are text.
pub(crate) fn tree_response(code: u16, value: &Value, layout: Layout) -> Response {
    match layout {
        Layout::Json => json_response(code, value),
        Layout::JsonPretty => json_bytes(code, Bytes::from(format!("{value:#}"))),
        Layout::Yaml => {
            let text = Bytes::from(yaml::to_string(value));
            response(code, YAML_CONTENT_TYPE, whole(text))
        }
    }
}

/// A refusal.
pub(crate) fn status_response(error: &StatusError, codec: Codec) -> Response {
    let status = error.to_value();
    let mut answer = match codec {
        Codec::Text(layout) => tree_response(error.code, &status, layout),
        Codec::Protobuf => match transcode::to_protobuf(schema::builtin(), &status) {
            Ok(body) => protobuf_bytes(error.code, Bytes::from(body)),
            Err(_) => json_response(error.code, &status),
        },
    };
    let seconds = error
        .details
        .as_ref()
        .map_or(0, |details| details.retry_after_seconds);
    if seconds > 0 {
        answer
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// An answer of plain text.
pub(crate) fn text_response(code: u16, text: impl Into<Bytes>) -> Response {
    response(code, "text/plain; charset=utf-8", whole(text.into()))
}

/// An answer whose end is not known yet.
pub(crate) fn streamed<P: Into<Parts>>(
    content_type: &'static str,
    stream: impl Stream<Item = P> + Send + 'static,
) -> Response {
    response(200, content_type, streamed_body(stream))
}

/// The answer holds `what` until its last byte is written, or the client is gone.
pub(crate) fn held<T: Send + Unpin + 'static>(answer: Response, what: T) -> Response {
    answer.map(|body| Held { body, _what: what }.boxed_unsync())
}

struct Held<T> {
    body: Body,
    _what: T,
}

impl<T: Unpin> hyper::body::Body for Held<T> {
    type Data = Parts;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Parts>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

/// An answer made of many parts, written in frames of about 64 KiB so that it is never
/// in memory as a whole.
pub(crate) fn chunked(
    content_type: &'static str,
    parts: impl Iterator<Item = Bytes> + Send + 'static,
) -> Response {
    let mut parts = parts.peekable();
    let frames = std::iter::from_fn(move || {
        parts.peek()?;
        let mut chunk = Parts::default();
        while let Some(part) =
            parts.next_if(|part| chunk.is_empty() || chunk.len() + part.len() <= CHUNK_BYTES)
        {
            chunk.push(part);
        }
        Some(chunk)
    });
    streamed(content_type, futures::stream::iter(frames))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn parts_are_joined_into_frames_and_nothing_is_lost() {
        let parts = (0..1000).map(|i| Bytes::from(format!("{i:0>300}")));
        let whole: Vec<u8> = parts.clone().flat_map(|p| p.to_vec()).collect();
        let mut body =
            chunked("application/json", parts.collect::<Vec<_>>().into_iter()).into_body();
        let mut seen = Vec::new();
        let mut frames = 0;
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.into_data().unwrap().into_bytes();
            assert!(bytes.len() <= CHUNK_BYTES);
            frames += 1;
            seen.extend_from_slice(&bytes);
        }
        assert_eq!(seen, whole);
        assert!(frames < 10);
    }
}
