//! Objects in the version that was asked for, where a webhook converts between versions.
//!
//! All kinds pass here; only those whose definition names a webhook are touched. Inside a write an
//! object is in the version that was asked for; the commit turns it into the stored one and back.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::{Server, WriteMode};
use crate::cache::{Filter, Listing, WatchItem};
use crate::custom::Conversion;
use crate::object::{Obj, encode};
use crate::registry::Kind;
use crate::status::StatusError;

/// The one field that tells whether an object must be converted.
#[derive(Deserialize)]
struct Versioned<'a> {
    #[serde(rename = "apiVersion", borrow)]
    api_version: std::borrow::Cow<'a, str>,
}

fn is_in(obj: &Obj, api_version: &str) -> bool {
    let own: Result<Versioned<'_>, _> = serde_json::from_slice(&obj.json);
    own.is_ok_and(|own| own.api_version == api_version)
}

impl Server {
    /// `obj`, which is committed, as `kind` shows it.
    ///
    /// # Errors
    /// The conversion webhook fails.
    pub(crate) async fn in_version(
        &self,
        kind: &Kind,
        obj: Arc<Obj>,
    ) -> Result<Arc<Obj>, StatusError> {
        if kind.conversion().is_none() {
            return Ok(obj);
        }
        let mut all = self.all_in_version(kind, vec![obj]).await?;
        all.pop()
            .ok_or_else(|| StatusError::internal("a conversion without an object"))
    }

    /// Objects, which are committed, as `kind` shows them, in their order.
    ///
    /// # Errors
    /// The conversion webhook fails.
    pub(crate) async fn all_in_version(
        &self,
        kind: &Kind,
        mut objects: Vec<Arc<Obj>>,
    ) -> Result<Vec<Arc<Obj>>, StatusError> {
        let Some(conversion) = kind.conversion() else {
            return Ok(objects);
        };
        let desired = kind.api_version();
        let mut open = Vec::new();
        for (index, obj) in objects.iter_mut().enumerate() {
            if is_in(obj, &desired) {
                continue;
            }
            match conversion.kept(obj, kind.version) {
                Some(kept) => *obj = kept,
                None => open.push(index),
            }
        }
        let values: Vec<Value> = open.iter().map(|index| objects[*index].value()).collect();
        let made = self.convert(kind, conversion, values, &desired).await?;
        for (index, value) in open.into_iter().zip(made) {
            let made = Arc::new(shown_object(kind, &objects[index], &value)?);
            conversion.keep(&made, kind.version);
            objects[index] = made;
        }
        Ok(objects)
    }

    /// A page as `kind` shows it.
    ///
    /// # Errors
    /// The conversion webhook fails.
    pub(super) async fn page_in_version(
        &self,
        kind: &Kind,
        page: Listing,
    ) -> Result<Listing, StatusError> {
        if kind.conversion().is_none() {
            return Ok(page);
        }
        let objects = self.all_in_version(kind, page.objects.collect()).await?;
        let map = objects
            .into_iter()
            .map(|obj| (obj.key.clone(), obj))
            .collect();
        Ok(Listing {
            revision: page.revision,
            continue_token: page.continue_token,
            remaining: page.remaining,
            ..Listing::of(map, &Filter::in_namespace(""))
        })
    }

    /// Changes as `kind` shows them.
    ///
    /// # Errors
    /// The conversion webhook fails.
    pub(crate) async fn items_in_version(
        &self,
        kind: &Kind,
        mut items: Vec<WatchItem>,
    ) -> Result<Vec<WatchItem>, StatusError> {
        if kind.conversion().is_none() {
            return Ok(items);
        }
        let objects = items.iter_mut().filter_map(object_of);
        let objects = objects.map(|obj| Arc::clone(obj)).collect();
        let made = self.all_in_version(kind, objects).await?;
        for (slot, obj) in items.iter_mut().filter_map(object_of).zip(made) {
            *slot = obj;
        }
        Ok(items)
    }

    /// A stored object's tree as `kind` shows it: what a write starts from.
    ///
    /// # Errors
    /// The conversion webhook fails.
    pub(crate) async fn value_of(&self, kind: &Kind, obj: &Arc<Obj>) -> Result<Value, StatusError> {
        if kind.conversion().is_none() {
            return Ok(obj.value());
        }
        let shown = self.in_version(kind, Arc::clone(obj)).await?;
        Ok(shown.value())
    }

    /// Turns `value` into the version that objects of `kind` are stored in.
    ///
    /// # Errors
    /// The conversion webhook fails.
    pub(super) async fn store_version(
        &self,
        kind: &Kind,
        value: &mut Value,
    ) -> Result<(), StatusError> {
        let (Some(conversion), Some(stored)) = (kind.conversion(), kind.stored_version()) else {
            return Ok(());
        };
        if *value == Value::Null || value["apiVersion"] == stored.api_version.as_str() {
            return Ok(());
        }
        let own = std::slice::from_ref(value).to_vec();
        let to = (&*stored.custom, stored.api_version.as_str());
        let made = conversion.convert(self.webhooks.get(), own, to).await?;
        if let Some(made) = made.into_iter().next() {
            *value = made;
        }
        Ok(())
    }

    /// What a write made, as `kind` shows it. Nothing of a dry run is kept: it has the revision of
    /// what it did not replace.
    ///
    /// # Errors
    /// The conversion webhook fails.
    pub(super) async fn written_in_version(
        &self,
        kind: &Kind,
        obj: Arc<Obj>,
        mode: WriteMode,
    ) -> Result<Arc<Obj>, StatusError> {
        let desired = || kind.api_version();
        let Some(conversion) = kind.conversion().filter(|_| !is_in(&obj, &desired())) else {
            return Ok(obj);
        };
        if mode == WriteMode::Commit {
            return self.in_version(kind, obj).await;
        }
        let made = self
            .convert(kind, conversion, vec![obj.value()], &desired())
            .await?;
        let made = made.into_iter().next().unwrap_or_default();
        Ok(Arc::new(shown_object(kind, &obj, &made)?))
    }

    async fn convert(
        &self,
        kind: &Kind,
        conversion: &Conversion,
        objects: Vec<Value>,
        desired: &str,
    ) -> Result<Vec<Value>, StatusError> {
        let Some(custom) = kind.custom.as_deref() else {
            return Ok(objects);
        };
        let clients = self.webhooks.get();
        conversion
            .convert(clients, objects, (custom, desired))
            .await
    }
}

fn object_of(item: &mut WatchItem) -> Option<&mut Arc<Obj>> {
    match item {
        WatchItem::Added(obj) | WatchItem::Modified(obj) | WatchItem::Deleted(obj) => Some(obj),
        WatchItem::Bookmark { .. } => None,
    }
}

/// The object of a converted tree, at the revision of the stored one.
fn shown_object(kind: &Kind, stored: &Obj, value: &Value) -> Result<Obj, StatusError> {
    let bytes = encode(value).map_err(StatusError::internal)?;
    Obj::from_stored(stored.key.clone(), &bytes, stored.rv, |peek| {
        kind.read_fields(peek)
    })
    .map_err(StatusError::internal)
}
