//! The watch cache: the whole store in memory, one persistent map and one event ring a resource.
//!
//! Owns: all objects, the applied revision, the allocation index. Must not know: HTTP, kinds'
//! rules. Data come from the store's change stream through one pump (`pump.rs`), so the cache
//! holds nothing that is not committed; readers take immutable snapshots. Invariant: when
//! `applied() == R`, every change up to R is in the maps and in the rings.

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

use tokio::sync::watch;

pub use self::filter::{Field, FieldRequirement, Filter};
pub use self::list::{ListPage, ListRequest, Match};
pub use self::pump::{PumpError, load, pump};
pub use self::resource::{Event, EventKind, ResourceCache};
pub use self::watcher::{WatchError, WatchItem, WatchStart, Watcher};
use crate::alloc::AllocationIndex;
use crate::registry::{Kind, Registry};
use crate::status::StatusError;

/// How long a request waits for a revision before it answers "too large" (as upstream).
pub const REVISION_WAIT: Duration = Duration::from_secs(3);

/// All resources and the revision they hold at.
#[derive(Debug)]
pub struct WatchCache {
    resources: HashMap<(&'static str, &'static str), Arc<ResourceCache>>,
    applied: watch::Sender<u64>,
    /// VIPs and node ports in use.
    pub allocations: AllocationIndex,
}

impl WatchCache {
    /// An empty cache of the registry's stored resources.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let resources = registry
            .kinds()
            .map(|kind| ((kind.storage_group, kind.plural), kind))
            .map(|(key, kind)| (key, Arc::new(ResourceCache::new(kind))))
            .collect();
        Self {
            resources,
            applied: watch::Sender::new(0),
            allocations: AllocationIndex::default(),
        }
    }

    /// The cache of `kind`.
    ///
    /// # Panics
    /// When `kind` is not of the registry this cache was made for.
    #[must_use]
    pub fn of(&self, kind: &Kind) -> &Arc<ResourceCache> {
        self.resource(kind.storage_group, kind.plural)
            .expect("every kind of the registry has a cache")
    }

    pub(crate) fn resource(&self, group: &str, plural: &str) -> Option<&Arc<ResourceCache>> {
        // The map's key has static lifetimes; a shorter borrow looks up as well.
        self.resources
            .iter()
            .find(|((g, p), _)| *g == group && *p == plural)
            .map(|(_, r)| r)
    }

    /// All resources.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<ResourceCache>> {
        self.resources.values()
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
