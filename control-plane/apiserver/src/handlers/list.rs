//! LIST: one page in the form that the client asked for, streamed.

use bytes::Bytes;
use serde_json::{Value, json};

use super::Call;
use super::objects::collection_namespace;
use super::selectors::list_request;
use crate::cache::ListPage;
use crate::http::{Format, ResourcePath, Response, chunked, json_response};
use crate::registry::Kind;
use crate::server::Server;
use crate::status::StatusError;
use crate::tables::{self, Header};

impl Call {
    pub(super) async fn list(
        &self,
        kind: &'static Kind,
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
                let values: Vec<Value> = page
                    .items
                    .iter()
                    .map(|obj| Server::shown(kind, obj))
                    .collect();
                let include = self.include_object()?;
                let now = (self.api.server.clock)();
                let rows = values.iter();
                let table = tables::render(
                    kind.table,
                    rows,
                    &meta,
                    include,
                    Header::Shown,
                    version,
                    now,
                );
                Ok(json_response(200, &table))
            }
            Format::Metadata(version) => {
                let items: Vec<Value> = page
                    .items
                    .iter()
                    .map(|obj| tables::partial_metadata(&Server::shown(kind, obj), version))
                    .collect();
                let list = json!({
                    "kind": "PartialObjectMetadataList",
                    "apiVersion": format!("meta.k8s.io/{version}"),
                    "metadata": meta, "items": items,
                });
                Ok(json_response(200, &list))
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
fn plain(kind: &'static Kind, meta: &Value, page: ListPage) -> Response {
    let head = format!(
        "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{meta},\"items\":[",
        kind.kind,
        kind.api_version()
    );
    let items = page
        .items
        .into_iter()
        .enumerate()
        .flat_map(move |(i, obj)| {
            let json = match kind.view {
                None => obj.json.clone(),
                Some(_) => Bytes::from(Server::shown(kind, &obj).to_string()),
            };
            let comma = (i > 0).then(|| Bytes::from_static(b","));
            comma.into_iter().chain(std::iter::once(json))
        });
    let tail = std::iter::once(Bytes::from_static(b"]}\n"));
    chunked(std::iter::once(Bytes::from(head)).chain(items).chain(tail))
}
