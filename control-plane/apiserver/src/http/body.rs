//! Request bodies: bounded, and of a known format.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::HeaderMap;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use proto_api::decode::Encoding;

use crate::status::StatusError;

/// Largest body that is read (as upstream).
pub(crate) const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// How long a client may take for a body.
const BODY_WAIT: Duration = Duration::from_secs(60);

/// What a body's Content-Type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyKind {
    /// An object.
    Object(Encoding),
    /// A patch.
    JsonPatch,
    /// A patch.
    MergePatch,
    /// A patch.
    StrategicPatch,
    /// A patch.
    ApplyPatch,
}

const OBJECTS: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
const PATCHES: &str = "application/json-patch+json, application/merge-patch+json, \
                       application/strategic-merge-patch+json, application/apply-patch+yaml";

impl BodyKind {
    /// The kind of a body; JSON when the client does not say.
    ///
    /// # Errors
    /// 415 when we do not read it.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, StatusError> {
        let text = headers
            .get(CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        let media = text.split(';').next().unwrap_or_default().trim();
        Ok(match media {
            "" | "application/json" | "*/*" => Self::Object(Encoding::Json),
            "application/yaml" | "text/yaml" => Self::Object(Encoding::Yaml),
            "application/vnd.kubernetes.protobuf" => Self::Object(Encoding::Protobuf),
            "application/json-patch+json" => Self::JsonPatch,
            "application/merge-patch+json" => Self::MergePatch,
            "application/strategic-merge-patch+json" => Self::StrategicPatch,
            "application/apply-patch+yaml" => Self::ApplyPatch,
            _ => return Err(StatusError::unsupported_media_type(OBJECTS)),
        })
    }

    /// The encoding of an object.
    ///
    /// # Errors
    /// 415 for a patch.
    pub(crate) fn object(self) -> Result<Encoding, StatusError> {
        match self {
            Self::Object(encoding) => Ok(encoding),
            Self::JsonPatch | Self::MergePatch | Self::StrategicPatch | Self::ApplyPatch => {
                Err(StatusError::unsupported_media_type(OBJECTS))
            }
        }
    }

    /// The error for a body that is no patch we apply.
    pub(crate) fn not_a_patch() -> StatusError {
        StatusError::unsupported_media_type(PATCHES)
    }
}

/// Reads the whole body.
///
/// # Errors
/// 413 above [`BODY_BYTES_MAX`], 408 when it takes too long, 400 when the client breaks off.
pub(crate) async fn read_body(body: Incoming) -> Result<Bytes, StatusError> {
    let read = Limited::new(body, BODY_BYTES_MAX).collect();
    let Ok(read) = tokio::time::timeout(BODY_WAIT, read).await else {
        let seconds = BODY_WAIT.as_secs();
        let message = format!("the request body did not arrive within {seconds} seconds");
        return Err(StatusError::new(408, "Timeout", message));
    };
    match read {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(fault) if fault.is::<LengthLimitError>() => Err(StatusError::too_large(BODY_BYTES_MAX)),
        Err(fault) => Err(StatusError::bad_request(format!(
            "the body cannot be read: {fault}"
        ))),
    }
}
