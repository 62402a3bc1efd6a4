//! What fuzz targets reach of the server's inside; changes with what reads bytes from outside.
//!
//! Each function decodes as the server does and panics only for a bug.

use bytes::Bytes;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method};
use proto_api::schema::Gvk;
use rustls_pki_types::CertificateDer;
use serde_json::Value;

use crate::cache::read_continue_token;
use crate::handlers::{read_messages, read_queries};
use crate::http::{Accept, BodyKind, Offer, Query, RequestInfo};
use crate::object::{Obj, ObjKey, parse_store_key};
use crate::registry::Registry;
use crate::validation;

/// Headers that choose formats.
pub fn accept(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else {
        return;
    };
    let mut headers = HeaderMap::new();
    for name in [ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE] {
        headers.insert(name, value.clone());
    }
    for offer in [Offer::All, Offer::Text] {
        let _accept = Accept::of(&headers, offer).is_ok();
        let _stream = Accept::of_stream(&headers, offer).is_ok();
    }
    let _codec = Accept::of_status(&headers);
    let _aggregated = Accept::discovery(&headers);
    let _kind = BodyKind::of(&headers).is_ok();
}

/// A query string, as lists, watches and deletions read it.
pub fn query(text: &str) {
    let query = Query::parse(Some(text));
    for kind in Registry::default().kinds().take(QUERIED_KINDS) {
        read_queries(kind, &query);
    }
}

/// Kinds whose selectable fields are tried.
const QUERIED_KINDS: usize = 12;

/// A path with every method.
pub fn path(text: &str) {
    for method in [Method::GET, Method::POST, Method::DELETE, Method::PATCH] {
        let info = RequestInfo::parse(&method, text, &Query::default());
        if let Some(resource) = info.resource {
            assert!(!resource.version.is_empty() || !resource.plural.is_empty());
        }
    }
}

/// A continue token.
pub fn continue_token(text: &str) {
    read_continue_token(text);
}

/// A client's certificate.
pub fn certificate(der: &[u8]) {
    let user = crate::auth::certificate_user(&CertificateDer::from(der));
    drop(user);
}

/// Messages of the clients of commands and of forwarded ports.
pub fn channels(message: &Bytes) {
    read_messages(message);
}

/// A stored object, as another replica or an older version may have written it.
pub fn stored(key: &str, value: &Bytes) {
    let _parts = parse_store_key(key);
    let read = Obj::from_stored(ObjKey::new("d", "n"), value, 7, |_| Box::default());
    if let Ok(object) = read {
        let _value = object.value();
    }
}

/// Defaults and checks a decoded object of any built-in kind.
pub fn validate(mut value: Value) {
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let Some(kind) = Registry::default().by_gvk(Gvk::parse(&api_version, &kind)) else {
        return;
    };
    if kind.is_view() {
        return;
    }
    let old = value.clone();
    kind.strategy.default(&mut value);
    kind.strategy.prepare_create(&mut value);
    let _errors = validation::object_meta(&kind, &value);
    let _errors = kind.strategy.validate(&value);
    let _errors = kind.strategy.validate_create(&value);
    let _errors = validation::object_meta_update(&value, &old);
    let now = jiff::Timestamp::UNIX_EPOCH;
    let include = crate::tables::IncludeObject::None;
    let _row = crate::tables::render_row(&*kind.table, &value, include, "v1", now);
}
