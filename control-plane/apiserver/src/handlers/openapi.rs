//! OpenAPI v3: an index with hashes, and one document per group and version, made when first asked
//! for.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use control_plane_apiextensions::open_api;
use hyper::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, HeaderValue, IF_NONE_MATCH,
};
use proto_api::openapi;
use serde_json::{Value, json};

use super::Call;
use super::discovery::{Listed, Served};
use super::objects::gvk;
use crate::http::{Response, json_bytes, text_response};
use crate::status::StatusError;

/// The documents of the kinds of one generation of the registry.
#[derive(Default)]
pub(crate) struct OpenApi {
    made: ArcSwapOption<Documents>,
}

/// The documents by path below `/openapi/v3/`, and the index of them.
struct Documents {
    generation: u64,
    by_path: BTreeMap<String, Arc<Document>>,
    index: OnceLock<Bytes>,
}

struct Document {
    group: &'static str,
    version: &'static str,
    made: OnceLock<Made>,
}

struct Made {
    body: Bytes,
    hash: String,
}

impl OpenApi {
    fn of(&self, served: &Served) -> Arc<Documents> {
        let made = self.made.load_full();
        if let Some(made) = &made
            && made.generation == served.generation()
        {
            return Arc::clone(made);
        }
        let document = |(group, version): (&'static str, &'static str)| {
            let path = match group {
                "" => format!("api/{version}"),
                group => format!("apis/{group}/{version}"),
            };
            let made = OnceLock::new();
            let document = Arc::new(Document {
                group,
                version,
                made,
            });
            (path, document)
        };
        let documents = Arc::new(Documents {
            generation: served.generation(),
            by_path: served.group_versions().into_iter().map(document).collect(),
            index: OnceLock::new(),
        });
        self.made.store(Some(Arc::clone(&documents)));
        documents
    }
}

impl Call {
    pub(super) fn openapi(&self, rest: &[&str]) -> Result<Response, StatusError> {
        match rest {
            ["v2"] if self.asks_for_legacy() => Ok(legacy_response()),
            ["v2"] => Ok(self.document(&self.merged())),
            ["v3"] => Ok(json_bytes(200, self.index())),
            ["v3", path @ ..] => {
                let served = self.api.discovery.served();
                let documents = self.api.openapi.of(&served);
                let document = documents.by_path.get(&path.join("/"));
                let document = document.ok_or_else(StatusError::path_not_found)?;
                Ok(self.document(self.made(&served, document)))
            }
            _ => Err(StatusError::path_not_found()),
        }
    }

    /// kubectl asks for v2, as protobuf, when the v3 document does not know a kind.
    fn asks_for_legacy(&self) -> bool {
        let accepted = self
            .headers
            .get(ACCEPT)
            .and_then(|value| value.to_str().ok());
        accepted.is_some_and(|types| types.contains("proto-openapi.spec.v2"))
    }

    fn index(&self) -> Bytes {
        let served = self.api.discovery.served();
        let documents = self.api.openapi.of(&served);
        let make = || {
            let mut paths = serde_json::Map::new();
            for (path, document) in &documents.by_path {
                let hash = &self.made(&served, document).hash;
                let url = format!("/openapi/v3/{path}?hash={hash}");
                paths.insert(path.clone(), json!({"serverRelativeURL": url}));
            }
            Bytes::from(json!({"paths": Value::Object(paths)}).to_string())
        };
        documents.index.get_or_init(make).clone()
    }

    /// The v2 document: seldom asked for and large, so it is made each time.
    fn merged(&self) -> Made {
        let served = self.api.discovery.served();
        let documents = self.api.openapi.of(&served);
        let trees = documents.by_path.values().map(|document| {
            let body = &self.made(&served, document).body;
            serde_json::from_slice::<Value>(body).unwrap_or_default()
        });
        let body = openapi::merged(trees).to_string().into_bytes();
        let hash = openapi::hash(&body);
        Made {
            body: Bytes::from(body),
            hash,
        }
    }

    fn made<'a>(&self, served: &Served, document: &'a Document) -> &'a Made {
        document.made.get_or_init(|| {
            let server = &self.api.server;
            let Document { group, version, .. } = document;
            let own: Vec<&Listed> = served.of_group(group, version).collect();
            let resources: Vec<openapi::Resource<'_>> =
                own.iter().map(|r| r.for_openapi()).collect();
            let kinds = server.registry.served();
            let custom: Vec<_> = kinds
                .iter()
                .filter(|kind| kind.group == *group && kind.version == *version)
                .filter_map(|kind| {
                    let custom = kind.custom.as_ref()?;
                    Some(open_api(gvk(kind), kind.list_kind, &custom.source))
                })
                .flatten()
                .collect();
            let body = openapi::document(server.schema, group, version, &resources, &custom);
            let hash = openapi::hash(&body);
            Made {
                body: Bytes::from(body),
                hash,
            }
        })
    }

    /// A document that is asked for by its hash never changes.
    fn document(&self, made: &Made) -> Response {
        let etag = format!("\"{}\"", made.hash);
        let known = self
            .headers
            .get(IF_NONE_MATCH)
            .and_then(|value| value.to_str().ok());
        let mut answer = if known == Some(etag.as_str()) {
            text_response(304, Bytes::new())
        } else {
            json_bytes(200, made.body.clone())
        };
        let headers = answer.headers_mut();
        if let Ok(etag) = HeaderValue::from_str(&etag) {
            headers.insert(ETAG, etag);
        }
        if self.query.get("hash") == Some(made.hash.as_str()) {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
            headers.insert(
                EXPIRES,
                HeaderValue::from_static("Tue, 19 Jan 2038 03:14:07 GMT"),
            );
        }
        answer
    }
}

fn legacy_response() -> Response {
    let mut answer = text_response(200, openapi::legacy_document());
    let protobuf = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(protobuf));
    answer
}
