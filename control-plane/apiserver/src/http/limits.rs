//! How large a request's head may be, each refusal with its reason.

use super::Request;
use crate::status::StatusError;

/// Longest path and query.
pub(super) const URL_BYTES_MAX: usize = 32 * 1024;
/// Bytes of all header names and values together.
pub(super) const HEADER_BYTES_MAX: usize = 32 * 1024;
/// Number of headers.
pub(super) const HEADERS_MAX: usize = 128;
/// What the transport itself reads of a head before it breaks off without a Status: enough that
/// the limits above are told in words.
pub(super) const TRANSPORT_HEAD_MAX: u32 = 96 * 1024;

/// Refuses a head that is too large.
///
/// # Errors
/// 414 for the URL, 431 for the headers.
pub(crate) fn refuse_oversize(request: &Request) -> Result<(), StatusError> {
    let uri = request.uri();
    let url_bytes = uri.path_and_query().map_or(0, |both| both.as_str().len());
    if url_bytes > URL_BYTES_MAX {
        let message =
            format!("the path and query are too long: {url_bytes} bytes, limit is {URL_BYTES_MAX}");
        return Err(StatusError::new(414, "RequestURITooLong", message));
    }
    let headers = request.headers();
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if bytes > HEADER_BYTES_MAX || headers.len() > HEADERS_MAX {
        let message = format!(
            "the request headers are too large: {} headers of {bytes} bytes, limits are \
             {HEADERS_MAX} and {HEADER_BYTES_MAX}",
            headers.len()
        );
        return Err(StatusError::new(
            431,
            "RequestHeaderFieldsTooLarge",
            message,
        ));
    }
    Ok(())
}
