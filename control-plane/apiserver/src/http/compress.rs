//! gzip of large answers, for clients that accept it.

use std::io::Write as _;

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{Stream, StreamExt as _};
use http_body_util::BodyStream;
use hyper::HeaderMap;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY};

use super::parts::Parts;
use super::respond::{Body, Response, streamed_body, whole};

/// Answers below this are sent as they are (as upstream).
const LARGE: usize = 128 * 1024;
/// How much plain text is compressed at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// Compresses an answer of more than [`LARGE`] bytes, when the client accepts gzip. Only for
/// answers whose bytes are there: the first [`LARGE`] are waited for.
pub(crate) async fn compressed(answer: Response, headers: &HeaderMap) -> Response {
    let objects = answer
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|text| text.starts_with("application/"));
    let done = answer.headers().contains_key(CONTENT_ENCODING);
    if !objects || done || answer.status() != 200 || !accepts_gzip(headers) {
        return answer;
    }
    let (mut head, body) = answer.into_parts();
    let (start, rest) = split(body).await;
    let Some(rest) = rest else {
        return Response::from_parts(head, whole(start));
    };
    let gzip = HeaderValue::from_static("gzip");
    head.headers.insert(CONTENT_ENCODING, gzip);
    let vary = HeaderValue::from_static("Accept-Encoding");
    head.headers.append(VARY, vary);
    let plain = futures::stream::iter([start]).chain(rest);
    Response::from_parts(head, streamed_body(zip(plain)))
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let refused = |clause: &str| clause.contains("q=0") && !clause.contains("q=0.");
    headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|clause| clause.split(';').next() == Some("gzip") && !refused(clause))
}

type Rest = std::pin::Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// The whole body when it is small, else its start and the rest.
async fn split(body: Body) -> (Bytes, Option<Rest>) {
    let mut frames = BodyStream::new(body).filter_map(|frame| {
        let data = frame.ok().and_then(|frame| frame.into_data().ok());
        std::future::ready(data.map(Parts::into_bytes))
    });
    let Some(first) = frames.next().await else {
        return (Bytes::new(), None);
    };
    let mut second = frames.next().await;
    let mut start = BytesMut::from(first);
    while let Some(bytes) = second.take() {
        start.extend_from_slice(&bytes);
        if start.len() > LARGE {
            break;
        }
        second = frames.next().await;
    }
    let large = start.len() > LARGE;
    (start.freeze(), large.then(|| Box::pin(frames) as Rest))
}

fn zip(plain: impl Stream<Item = Bytes> + Send + Unpin + 'static) -> impl Stream<Item = Bytes> {
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let state = (plain, Some(encoder), Bytes::new());
    futures::stream::unfold(state, |(mut plain, mut encoder, mut waiting)| async move {
        loop {
            let mut zipper = encoder.take()?;
            if waiting.is_empty() {
                waiting = match plain.next().await {
                    Some(bytes) => bytes,
                    // Writing into memory cannot fail.
                    None => {
                        let end = Bytes::from(zipper.finish().unwrap_or_default());
                        return Some((end, (plain, None, Bytes::new())));
                    }
                };
            }
            let turn = waiting.split_to(waiting.len().min(CHUNK_BYTES));
            let written = zipper.write_all(&turn);
            debug_assert!(written.is_ok(), "memory takes everything");
            let out = std::mem::take(zipper.get_mut());
            encoder = Some(zipper);
            if !out.is_empty() {
                return Some((Bytes::from(out), (plain, encoder, waiting)));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use http_body_util::BodyExt as _;

    use super::*;
    use crate::http::json_bytes;

    async fn answered(body: Bytes, accepted: &str) -> (bool, Bytes) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, accepted.parse().unwrap());
        let answer = compressed(json_bytes(200, body), &headers).await;
        let zipped = answer.headers().contains_key(CONTENT_ENCODING);
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (zipped, bytes)
    }

    #[tokio::test]
    async fn only_large_answers_are_compressed_and_only_for_who_accepts_it() {
        let large = Bytes::from("{\"a\":1},".repeat(100_000));
        let (zipped, bytes) = answered(large.clone(), "gzip, deflate").await;
        assert!(zipped && bytes.len() < large.len() / 10);
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&*bytes)
            .read_to_end(&mut plain)
            .unwrap();
        assert_eq!(plain, large);
        let small = large.slice(..LARGE);
        assert_eq!(answered(small.clone(), "gzip").await, (false, small));
        assert_eq!(
            answered(large.clone(), "gzip;q=0, br").await,
            (false, large)
        );
    }
}
