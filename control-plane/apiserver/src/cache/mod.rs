//! The watch cache: the whole store in memory, one persistent map and one event ring a resource.
//!
//! Owns: all objects, the applied revision, the allocation index. Must not know: HTTP, kinds'
//! rules. Data come from the store's change stream through one pump (`pump.rs`), so the cache
//! holds nothing that is not committed; readers take immutable snapshots. Invariant: when
//! `applied() == R`, every change up to R is in the maps and in the rings.

mod dispatch;
mod filter;
mod list;
mod pump;
mod resource;
#[cfg(test)]
mod tests;
mod token;
mod watcher;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;

pub use self::filter::{Field, FieldRequirement, Filter};
pub use self::list::{ListPage, ListRequest, Listing, Match, Selected};
pub use self::pump::{PumpError, load, pump};
pub(crate) use self::resource::ObjMap;
pub use self::resource::{Event, EventKind, ResourceCache};
#[cfg(feature = "fuzzing")]
pub(crate) use self::token::read_continue_token;
pub use self::watcher::{WatchError, WatchItem, WatchStart, Watcher};
use crate::alloc::AllocationIndex;
use crate::custom::{Installed, Stray};
use crate::object::Obj;
use crate::registry::{Kind, Registry};
use crate::status::StatusError;

/// How long a request waits for a revision before it answers "too large" (as upstream).
pub const REVISION_WAIT: Duration = Duration::from_secs(3);

/// Resources by storage group and plural.
type ByName = HashMap<(&'static str, &'static str), Arc<ResourceCache>>;

/// All resources and the revision they hold at.
#[derive(Debug)]
pub struct WatchCache {
    builtin: ByName,
    /// Of custom kinds; replaced as a whole when one comes, changes or goes.
    custom: ArcSwap<ByName>,
    applied: watch::Sender<u64>,
    registry: Registry,
    /// Written by the pump alone.
    installed: Mutex<Installed>,
    /// VIPs and node ports in use.
    pub allocations: AllocationIndex,
}

impl WatchCache {
    /// An empty cache of the registry's stored resources.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let builtin = registry
            .kinds()
            .map(|kind| ((kind.storage_group, kind.plural), kind))
            .map(|(key, kind)| (key, Arc::new(ResourceCache::new(Arc::clone(kind)))))
            .collect();
        Self {
            builtin,
            custom: ArcSwap::default(),
            registry: registry.clone(),
            installed: Mutex::default(),
            applied: watch::Sender::new(0),
            allocations: AllocationIndex::default(),
        }
    }

    /// The cache of `kind`. That of a custom kind which is gone meanwhile is empty and ends its
    /// watches.
    #[must_use]
    pub fn of(&self, kind: &Arc<Kind>) -> Arc<ResourceCache> {
        self.resource(kind.storage_group, kind.plural)
            .unwrap_or_else(|| Arc::new(ResourceCache::closed(Arc::clone(kind))))
    }

    pub(crate) fn resource(&self, group: &str, plural: &str) -> Option<Arc<ResourceCache>> {
        let builtin = self.builtin(group, plural);
        builtin.or_else(|| in_map(&self.custom.load(), group, plural).cloned())
    }

    fn builtin(&self, group: &str, plural: &str) -> Option<Arc<ResourceCache>> {
        in_map(&self.builtin, group, plural).cloned()
    }

    /// All resources as of now.
    #[must_use]
    pub fn resources(&self) -> Vec<Arc<ResourceCache>> {
        let custom = self.custom.load();
        self.builtin
            .values()
            .chain(custom.values())
            .cloned()
            .collect()
    }

    /// Follows a definition of custom kinds; `None`: it is gone. Only the pump calls this, before it
    /// tells of `rv`.
    pub(crate) fn follow_definition(&self, name: &str, stored: Option<&Obj>, rv: u64) {
        let mut installed = self.installed.lock();
        if installed.follow(name, stored, rv) {
            self.publish(&installed);
        }
    }

    /// Begins with the definitions that the store holds, and the objects of their kinds.
    fn reset_definitions(&self, definitions: &ObjMap, strays: &[Stray], rv: u64) {
        let mut installed = self.installed.lock();
        let mut before = std::mem::take(&mut *installed);
        before.clear();
        for (key, definition) in definitions {
            installed.follow(&key.name, Some(definition), rv);
        }
        installed.place(strays, rv);
        self.publish(&installed);
    }

    fn publish(&self, installed: &Installed) {
        let caches = installed.caches().map(|cache| {
            (
                (cache.kind.storage_group, cache.kind.plural),
                Arc::clone(cache),
            )
        });
        // A kind that is found has a cache: first the one, then the other.
        self.custom.store(Arc::new(caches.collect()));
        installed.publish(&self.registry);
    }

    /// The revision up to which everything is here.
    #[must_use]
    pub fn applied(&self) -> u64 {
        *self.applied.borrow()
    }

    /// A receiver that wakes on every applied revision.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    pub(crate) fn set_applied(&self, revision: u64) {
        self.applied.send_if_modified(|now| {
            let newer = revision > *now;
            if newer {
                *now = revision;
            }
            newer
        });
    }

    /// Waits until `revision` is applied.
    ///
    /// # Errors
    /// `Timeout` with cause ResourceVersionTooLarge after [`REVISION_WAIT`].
    pub async fn wait_for(&self, revision: u64) -> Result<(), StatusError> {
        if self.applied() >= revision {
            return Ok(());
        }
        let mut applied = self.subscribe();
        let reached = applied.wait_for(|now| *now >= revision);
        let outcome = tokio::time::timeout(REVISION_WAIT, reached).await;
        match outcome {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(StatusError::too_large_resource_version(
                revision,
                self.applied(),
            )),
        }
    }
}

/// A shorter borrow looks up as well as the key's own lifetime: the map is covariant in it.
fn in_map<'m, 'k>(
    map: &'m HashMap<(&'k str, &'k str), Arc<ResourceCache>>,
    group: &'k str,
    plural: &'k str,
) -> Option<&'m Arc<ResourceCache>> {
    map.get(&(group, plural))
}
