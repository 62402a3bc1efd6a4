//! The one writer of the cache: loads the store, then applies its changes in revision order.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control_plane_storage::{Batch, Change, ChangesError, LoadError, Rev, Store};
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::WatchCache;
use super::resource::{ObjMap, ResourceCache};
use crate::alloc::is_number;
use crate::custom::Stray;
use crate::object::{Obj, ObjKey, parse_store_key};
use crate::registry::Kind;

/// How often rings are looked at for events that are too old.
const TRIM_INTERVAL: Duration = Duration::from_secs(30);
/// The kind that makes kinds.
const DEFINITIONS: (&str, &str) = ("apiextensions.k8s.io", "customresourcedefinitions");
/// Pause between attempts to read a store that fails.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Why the cache cannot be filled.
#[derive(Debug, thiserror::Error)]
pub enum PumpError {
    /// The store's snapshot could not be read.
    #[error("load the store into the watch cache")]
    Load(#[from] LoadError),
}

/// Reads the whole store into `cache`; returns the revision it is of.
///
/// # Errors
/// The store cannot be read.
pub async fn load(cache: &WatchCache, store: &dyn Store) -> Result<u64, PumpError> {
    let mut load = store.load(b"").await?;
    let mut maps: HashMap<(&'static str, &'static str), ObjMap> = HashMap::new();
    let mut index = Vec::new();
    let mut strays = Vec::new();
    while let Some(page) = load.pages.next().await {
        for entry in page? {
            let Ok(key) = std::str::from_utf8(&entry.key) else {
                continue;
            };
            // Objects of custom kinds wait for their definitions.
            let Some((resource, obj_key)) =
                locate(key, |group, plural| cache.builtin(group, plural))
            else {
                if is_number(key) {
                    index.push(key.into());
                } else {
                    strays.push(Stray {
                        key: key.to_owned(),
                        value: entry.value,
                        rv: entry.rev.0,
                    });
                }
                continue;
            };
            let kind = &resource.kind;
            if is_number(key) {
                index.push(key.into());
            }
            if let Some(obj) = decode(kind, &obj_key, &entry.value, entry.rev) {
                maps.entry((kind.storage_group, kind.plural))
                    .or_default()
                    .insert(obj_key, obj);
            }
        }
    }
    let rev = load.rev.0;
    let definitions = maps.get(&DEFINITIONS).cloned().unwrap_or_default();
    for resource in cache.builtin.values() {
        let key = (resource.kind.storage_group, resource.kind.plural);
        resource.reset(maps.remove(&key).unwrap_or_default(), rev);
    }
    cache.reset_definitions(&definitions, &strays, rev);
    cache.allocations.reset(index.into_iter());
    cache.set_applied(rev);
    Ok(rev)
}

/// Follows the store until `stop`. A gap in the changes reloads everything; watchers then get 410
/// and list again, as they must.
pub async fn pump(cache: &WatchCache, store: &dyn Store, mut after: u64, stop: CancellationToken) {
    let mut trim = tokio::time::interval(TRIM_INTERVAL);
    trim.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut changes = store.changes(Rev(after));
    loop {
        // Cancel safe: a stream's `next`, a timer and a token lose nothing when dropped.
        let next = tokio::select! {
            () = stop.cancelled() => return,
            _ = trim.tick() => {
                let now = Instant::now();
                cache.resources().iter().for_each(|resource| resource.trim(now));
                continue;
            }
            next = changes.next() => next,
        };
        match next {
            Some(Ok(batch)) => {
                apply(cache, &batch);
                after = batch.rev.0;
            }
            Some(Err(ChangesError::Closed)) | None => return,
            Some(Err(fault)) => {
                warn!(%fault, after, "changes broke off; reloading the watch cache");
                let Some(rev) = reload(cache, store, &stop).await else {
                    return;
                };
                after = rev;
                changes = store.changes(Rev(after));
            }
        }
    }
}

async fn reload(cache: &WatchCache, store: &dyn Store, stop: &CancellationToken) -> Option<u64> {
    loop {
        match load(cache, store).await {
            Ok(rev) => return Some(rev),
            Err(PumpError::Load(LoadError::Closed)) => return None,
            Err(fault) => error!(%fault, "the store cannot be read; trying again"),
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(RETRY_INTERVAL) => {}
        }
    }
}

fn apply(cache: &WatchCache, batch: &Batch) {
    let now = Instant::now();
    for change in &batch.changes {
        let Ok(key) = std::str::from_utf8(change.key()) else {
            continue;
        };
        match change {
            _ if !is_number(key) => {}
            Change::Put { .. } => cache.allocations.insert(key),
            Change::Delete { .. } => cache.allocations.remove(key),
        }
        let Some((resource, obj_key)) = locate(key, |group, plural| cache.resource(group, plural))
        else {
            continue;
        };
        match change {
            Change::Put { value, .. } => {
                if let Some(obj) = decode(&resource.kind, &obj_key, value, batch.rev) {
                    resource.apply(&obj_key, batch.rev.0, Some(obj), now);
                }
            }
            Change::Delete { .. } => resource.apply(&obj_key, batch.rev.0, None, now),
        }
        if (resource.kind.group, resource.kind.plural) == DEFINITIONS {
            let stored = resource.get(&obj_key);
            cache.follow_definition(&obj_key.name, stored.as_deref(), batch.rev.0);
        }
    }
    cache.set_applied(batch.rev.0);
}

fn locate(
    key: &str,
    resource: impl FnOnce(&str, &str) -> Option<Arc<ResourceCache>>,
) -> Option<(Arc<ResourceCache>, ObjKey)> {
    let (group, plural, namespace, name) = parse_store_key(key)?;
    let resource = resource(group, plural)?;
    Some((resource, ObjKey::new(namespace, name)))
}

fn decode(kind: &Kind, key: &ObjKey, stored: &[u8], rev: Rev) -> Option<Arc<Obj>> {
    match Obj::from_stored(key.clone(), stored, rev.0, |peek| kind.read_fields(peek)) {
        Ok(obj) => Some(Arc::new(obj)),
        Err(fault) => {
            error!(kind = kind.kind, namespace = %key.namespace, name = %key.name, revision = rev.0,
                %fault, "stored object cannot be read; it is left out, restore it from a backup");
            None
        }
    }
}
