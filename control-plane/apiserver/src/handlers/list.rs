//! LIST: one page in the form that the client asked for, streamed.

use std::sync::Arc;

use bytes::Bytes;
use proto_api::schema::Schema;
use proto_api::{transcode, yaml};
use serde_json::{Map, Value, json};

use super::Call;
use super::answer::{list_meta_message, metadata_message, object_message};
use super::objects::{collection_namespace, gvk};
use super::selectors::list_request;
use crate::cache::Listing;
use crate::http::{
    Accept, Codec, Format, Layout, PROTOBUF_CONTENT_TYPE, ResourcePath, Response,
    YAML_CONTENT_TYPE, chunked, tree_response,
};
use crate::object::Obj;
use crate::registry::Kind;
use crate::server::Server;
use crate::status::StatusError;
use crate::tables::{self, Header};
use crate::tree;

/// Objects whose messages are made between two chances for other tasks to run.
const MESSAGES_PER_TURN: usize = 64;

impl Call {
    pub(super) async fn list(
        &self,
        kind: &Arc<Kind>,
        path: &ResourcePath,
    ) -> Result<Response, StatusError> {
        collection_namespace(kind, &path.namespace)?;
        let accept = self.accept_for(kind)?;
        let request = list_request(kind, &path.namespace, &self.query)?;
        let page = self.api.server.listing(kind, &request).await?;
        let meta = list_meta(&page);
        let layout = match accept.codec {
            Codec::Text(layout) => layout,
            Codec::Protobuf => {
                return messages(self.api.server.schema, kind, accept, &meta, page).await;
            }
        };
        match accept.format {
            Format::Plain => Ok(plain(kind, &meta, layout, page)),
            Format::Table(version) => {
                let kind = Arc::clone(kind);
                let include = self.include_object()?;
                let now = (self.api.server.clock)();
                let none = std::iter::empty();
                let head = tables::render(
                    &*kind.table,
                    none,
                    &meta,
                    include,
                    Header::Shown,
                    version,
                    now,
                );
                Ok(listed(&head, "rows", layout, page, move |obj| {
                    let object = Server::shown(&kind, obj);
                    let row = tables::render_row(&*kind.table, &object, include, version, now);
                    Bytes::from(row.to_string())
                }))
            }
            Format::Metadata(version) => {
                let head = metadata_list_head(version, &meta);
                let kind = Arc::clone(kind);
                Ok(listed(&head, "items", layout, page, move |obj| {
                    let item = tables::partial_metadata(&Server::shown(&kind, obj), version);
                    Bytes::from(item.to_string())
                }))
            }
        }
    }
}

fn metadata_list_head(version: &str, meta: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadataList",
        "apiVersion": format!("meta.k8s.io/{version}"), "metadata": meta,
    })
}

fn list_meta(page: &Listing) -> Value {
    let mut meta = json!({"resourceVersion": page.revision.to_string()});
    if let Some(token) = &page.continue_token {
        meta["continue"] = json!(token);
    }
    if let Some(remaining) = page.remaining {
        meta["remainingItemCount"] = json!(remaining);
    }
    meta
}

/// The objects' own bytes, one after the other.
fn plain(kind: &Arc<Kind>, meta: &Value, layout: Layout, page: Listing) -> Response {
    let head = json!({
        "kind": kind.list_kind, "apiVersion": kind.api_version(), "metadata": meta,
    });
    let kind = Arc::clone(kind);
    listed(&head, "items", layout, page, move |obj| match &kind.view {
        None => obj.json.clone(),
        Some(_) => Bytes::from(Server::shown(&kind, obj).to_string()),
    })
}

/// A list that is never in memory as a whole: `head` with the array `field`, each item made when
/// its turn comes.
fn listed(
    head: &Value,
    field: &'static str,
    layout: Layout,
    page: Listing,
    item: impl Fn(&Arc<Obj>) -> Bytes + Send + 'static,
) -> Response {
    let mut head = head.clone();
    tree::as_object(&mut head).shift_remove(field);
    let frame = match layout {
        Layout::JsonPretty | Layout::Yaml if page.objects.clone().next().is_none() => {
            tree::as_object(&mut head).insert(field.to_owned(), Value::Array(Vec::new()));
            return tree_response(200, &head, layout);
        }
        Layout::Json => json_frame(&head, field),
        Layout::JsonPretty => pretty_frame(&head, field),
        Layout::Yaml => yaml_frame(&head, field),
    };
    let separator = frame.separator;
    let items = page.objects.enumerate().flat_map(move |(i, obj)| {
        let before = if i > 0 { separator } else { "" };
        let item = laid_out(item(&obj), layout);
        [Bytes::from_static(before.as_bytes()), item]
    });
    let content_type = match layout {
        Layout::Json | Layout::JsonPretty => "application/json",
        Layout::Yaml => YAML_CONTENT_TYPE,
    };
    let start = std::iter::once(Bytes::from(frame.start));
    let end = std::iter::once(Bytes::from(frame.end));
    chunked(content_type, start.chain(items).chain(end))
}

/// What stands around the items of a list.
struct Frame {
    start: String,
    separator: &'static str,
    end: String,
}

fn json_frame(head: &Value, field: &str) -> Frame {
    let mut start = head.to_string();
    start.pop();
    start.push_str(&format!(",\"{field}\":["));
    Frame {
        start,
        separator: ",",
        end: "]}\n".to_owned(),
    }
}

fn pretty_frame(head: &Value, field: &str) -> Frame {
    let head = format!("{head:#}");
    let head = head.trim_end_matches("\n}");
    Frame {
        start: format!("{head},\n  \"{field}\": [\n    "),
        separator: ",\n    ",
        end: "\n  ]\n}".to_owned(),
    }
}

/// Keys of YAML answers are sorted.
fn yaml_frame(head: &Value, field: &str) -> Frame {
    let part = |wanted: fn(&str, &str) -> bool| {
        let fields = head.as_object().into_iter().flatten();
        let part = fields.filter(|(name, _)| wanted(name, field));
        let part = part.map(|(name, value)| (name.clone(), value.clone()));
        let part: Map<String, Value> = part.collect();
        match part.is_empty() {
            true => String::new(),
            false => yaml::to_string(&Value::Object(part)),
        }
    };
    Frame {
        start: format!("{}{field}:\n", part(|name, field| name < field)),
        separator: "",
        end: part(|name, field| name > field),
    }
}

/// An item of a list; it is JSON of one line.
fn laid_out(item: Bytes, layout: Layout) -> Bytes {
    let tree = || serde_json::from_slice::<Value>(&item).unwrap_or_default();
    match layout {
        Layout::Json => item,
        Layout::JsonPretty => Bytes::from(format!("{:#}", tree()).replace('\n', "\n    ")),
        Layout::Yaml => Bytes::from(yaml::list_item(&tree())),
    }
}

/// A list as protobuf. Its length comes before its items, so every item is looked at twice: once
/// for its length, once for its bytes. Stored objects keep their message, others are made again.
async fn messages(
    schema: &'static Schema,
    kind: &Arc<Kind>,
    accept: Accept,
    meta: &Value,
    page: Listing,
) -> Result<Response, StatusError> {
    let own = Arc::clone(kind);
    let item = move |obj: &Obj| match (accept.format, &own.view) {
        (Format::Metadata(version), _) => {
            let item = tables::partial_metadata(&Server::shown(&own, obj), version);
            metadata_message(schema, &item).map(Bytes::from)
        }
        (_, None) => object_message(schema, &own, obj),
        (_, Some(_)) => super::answer::tree_message(schema, gvk(&own), &Server::shown(&own, obj)),
    };
    let (api_version, list_kind) = match accept.format {
        Format::Metadata(version) => (
            format!("meta.k8s.io/{version}"),
            "PartialObjectMetadataList".to_owned(),
        ),
        _ => (kind.api_version(), kind.list_kind.to_owned()),
    };
    let meta = list_meta_message(schema, meta)?;
    let mut start = transcode::field_head(LIST_META, meta.len() as u64);
    start.extend_from_slice(&meta);
    let mut len = start.len() as u64;
    for (i, obj) in page.objects.clone().enumerate() {
        let item = item(&obj)?.len() as u64;
        len += transcode::field_head(LIST_ITEMS, item).len() as u64 + item;
        if i % MESSAGES_PER_TURN == MESSAGES_PER_TURN - 1 {
            tokio::task::yield_now().await;
        }
    }
    let mut head = transcode::envelope_head(&api_version, &list_kind, len);
    head.append(&mut start);
    let items = page.objects.flat_map(move |obj| {
        // Made without fault a moment ago from the same bytes.
        let item = item(&obj).unwrap_or_default();
        let head = transcode::field_head(LIST_ITEMS, item.len() as u64);
        [Bytes::from(head), item]
    });
    let tail = std::iter::once(Bytes::from_static(transcode::ENVELOPE_TAIL));
    let parts = std::iter::once(Bytes::from(head)).chain(items).chain(tail);
    Ok(chunked(PROTOBUF_CONTENT_TYPE, parts))
}

/// Numbers of the two fields that every list has.
const LIST_META: u32 = 1;
const LIST_ITEMS: u32 = 2;
