//! LIST: one page in the form that the client asked for, streamed.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::Call;
use super::objects::collection_namespace;
use super::selectors::list_request;
use crate::cache::ListPage;
use crate::http::{Format, ResourcePath, Response, chunked};
use crate::object::Obj;
use crate::registry::Kind;
use crate::server::Server;
use crate::status::StatusError;
use crate::tables::{self, Header};
use crate::tree;

impl Call {
    pub(super) async fn list(
        &self,
        kind: &Arc<Kind>,
        path: &ResourcePath,
    ) -> Result<Response, StatusError> {
        collection_namespace(kind, &path.namespace)?;
        let format = self.accept()?.format;
        let request = list_request(kind, &path.namespace, &self.query)?;
        let page = self.api.server.list(kind, &request).await?;
        let meta = list_meta(&page);
        match format {
            Format::Plain => Ok(plain(kind, &meta, page)),
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
                Ok(listed(&head, "rows", page, move |obj| {
                    let object = Server::shown(&kind, obj);
                    let row = tables::render_row(&*kind.table, &object, include, version, now);
                    Bytes::from(row.to_string())
                }))
            }
            Format::Metadata(version) => {
                let head = json!({
                    "kind": "PartialObjectMetadataList",
                    "apiVersion": format!("meta.k8s.io/{version}"), "metadata": meta,
                });
                let kind = Arc::clone(kind);
                Ok(listed(&head, "items", page, move |obj| {
                    let item = tables::partial_metadata(&Server::shown(&kind, obj), version);
                    Bytes::from(item.to_string())
                }))
            }
        }
    }
}

fn list_meta(page: &ListPage) -> Value {
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
fn plain(kind: &Arc<Kind>, meta: &Value, page: ListPage) -> Response {
    let head = json!({
        "kind": kind.list_kind, "apiVersion": kind.api_version(), "metadata": meta,
    });
    let kind = Arc::clone(kind);
    listed(&head, "items", page, move |obj| match kind.view {
        None => obj.json.clone(),
        Some(_) => Bytes::from(Server::shown(&kind, obj).to_string()),
    })
}

/// A list that is never in memory as a whole: `head` with the array `field` after its own fields,
/// each item made when its turn comes.
fn listed(
    head: &Value,
    field: &str,
    page: ListPage,
    item: impl Fn(&Arc<Obj>) -> Bytes + Send + 'static,
) -> Response {
    let mut start = head.clone();
    tree::as_object(&mut start).shift_remove(field);
    let mut start = start.to_string();
    start.pop();
    start.push_str(&format!(",\"{field}\":["));
    let items = page
        .items
        .into_iter()
        .enumerate()
        .flat_map(move |(i, obj)| {
            let comma = (i > 0).then(|| Bytes::from_static(b","));
            comma.into_iter().chain(std::iter::once(item(&obj)))
        });
    let tail = std::iter::once(Bytes::from_static(b"]}\n"));
    chunked(std::iter::once(Bytes::from(start)).chain(items).chain(tail))
}
