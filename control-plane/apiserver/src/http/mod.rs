//! HTTP as the API speaks it: paths, queries, bodies, formats, answers. No kinds, no rules.

mod accept;
mod body;
mod compress;
mod guarded;
mod limits;
mod listener;
mod parts;
mod query;
mod request_info;
mod respond;

pub(crate) use self::accept::{Accept, Codec, Format, Layout, Offer};
pub(crate) use self::body::{BodyKind, read_body};
pub(crate) use self::compress::compressed;
pub(crate) use self::limits::refuse_oversize;
pub(crate) use self::listener::{Listener, Peer, serve};
pub(crate) use self::parts::Parts;
pub(crate) use self::query::{Query, decode};
pub(crate) use self::request_info::{RequestInfo, ResourcePath};
pub(crate) use self::respond::{
    Body, PROTOBUF_CONTENT_TYPE, Response, YAML_CONTENT_TYPE, chunked, held, json_bytes,
    json_response, protobuf_bytes, status_response, streamed, streamed_body, text_response,
    tree_response, whole,
};

/// A request with its body still unread.
pub(crate) type Request = hyper::Request<hyper::body::Incoming>;
