//! One resource as everybody in the process sees it: the shared store and who is told of changes.
//!
//! Owns: the order "store first, handlers second", so that a handler's reader finds at least the
//! change it was told of. One writer (the reflector). Handlers run on the writer's task: they note a
//! key in a queue and return. Invariant: each handler sees, for every key, Added, Modified*, Deleted in
//! that order, whenever it subscribed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tracing::error;

use crate::api::{Object, ObjectKey, ObjectList, WatchEvent};
use crate::kind::Kind;
use crate::store::{Cached, Put, Snapshot};

/// One change of the store.
#[derive(Debug)]
pub enum Change<K> {
    /// The object is new.
    Added(Arc<Cached<K>>),
    /// The object changed.
    Modified {
        /// Before.
        old: Arc<Cached<K>>,
        /// After.
        new: Arc<Cached<K>>,
    },
    /// The object is gone; its last known state.
    Deleted(Arc<Cached<K>>),
}

impl<K> Change<K> {
    /// The state after the change, or the last one.
    #[must_use]
    pub fn object(&self) -> &Arc<Cached<K>> {
        match self {
            Self::Added(object) | Self::Modified { new: object, .. } | Self::Deleted(object) => {
                object
            }
        }
    }

    /// The state before the change.
    #[must_use]
    pub fn old(&self) -> Option<&Arc<Cached<K>>> {
        match self {
            Self::Added(_) => None,
            Self::Modified { old, .. } | Self::Deleted(old) => Some(old),
        }
    }

    /// The state after the change; `None` when the object is gone.
    #[must_use]
    pub fn new_state(&self) -> Option<&Arc<Cached<K>>> {
        match self {
            Self::Added(new) | Self::Modified { new, .. } => Some(new),
            Self::Deleted(_) => None,
        }
    }
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

/// The shared view of one resource.
pub struct Informer<K: Kind> {
    store: RwLock<Snapshot<K>>,
    /// Locked before `store`; held while handlers run, so a late subscriber misses nothing.
    handlers: Mutex<Handlers<K>>,
    synced: watch::Sender<bool>,
    undecodable: AtomicU64,
}

struct Handlers<K> {
    next_id: u64,
    all: Vec<(u64, Handler<K>)>,
}

impl<K: Kind> std::fmt::Debug for Informer<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Informer")
            .field("resource", &K::RESOURCE.plural)
            .field("objects", &self.store.read().len())
            .finish_non_exhaustive()
    }
}

/// Keeps a handler subscribed; dropping it ends the calls.
#[must_use = "the handler is called only while this lives"]
pub struct Subscription(Option<Box<dyn FnOnce() + Send + Sync>>);

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Subscription")
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(end) = self.0.take() {
            end();
        }
    }
}

impl<K: Kind> Default for Informer<K> {
    fn default() -> Self {
        Self {
            store: RwLock::new(Snapshot::default()),
            handlers: Mutex::new(Handlers {
                next_id: 0,
                all: Vec::new(),
            }),
            synced: watch::Sender::new(false),
            undecodable: AtomicU64::new(0),
        }
    }
}

impl<K: Kind> Informer<K> {
    /// The state now. O(1); the snapshot never changes.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot<K> {
        self.store.read().clone()
    }

    /// One object now.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<Cached<K>>> {
        self.store.read().get(key).cloned()
    }

    /// Revision up to which the store misses nothing.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.store.read().revision()
    }

    /// Objects that did not decode since start; they are left out and logged.
    #[must_use]
    pub fn undecodable(&self) -> u64 {
        self.undecodable.load(Ordering::Relaxed)
    }

    /// Waits until the first list is in the store.
    pub async fn synced(&self) {
        let mut synced = self.synced.subscribe();
        // The sender lives in `self`, so the wait cannot end without the value.
        let _closed = synced.wait_for(|synced| *synced).await.is_err();
    }

    /// Whether the first list is in the store.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Calls `handler` for every object there is (as Added) and for every change from now on, until
    /// the subscription is dropped. The handler must not block and must not subscribe to this
    /// informer.
    pub fn subscribe(
        self: &Arc<Self>,
        handler: impl Fn(&Change<K>) + Send + Sync + 'static,
    ) -> Subscription {
        let mut handlers = self.handlers.lock();
        for cached in self.snapshot().iter() {
            handler(&Change::Added(Arc::clone(cached)));
        }
        let id = handlers.next_id;
        handlers.next_id += 1;
        handlers.all.push((id, Box::new(handler)));
        drop(handlers);
        let informer = Arc::downgrade(self);
        Subscription(Some(Box::new(move || {
            if let Some(informer) = informer.upgrade() {
                informer
                    .handlers
                    .lock()
                    .all
                    .retain(|(other, _)| *other != id);
            }
        })))
    }

    /// Makes the store equal to `list`: adds, changes and removes what differs.
    pub(crate) fn replace(&self, list: ObjectList) {
        let handlers = self.handlers.lock();
        let decoded: Vec<_> = list
            .items
            .into_iter()
            .filter_map(|object| self.decode(object))
            .collect();
        let mut changes = Vec::new();
        {
            let mut store = self.store.write();
            let listed: std::collections::HashSet<&ObjectKey> =
                decoded.iter().map(|cached| &cached.key).collect();
            let gone: Vec<ObjectKey> = store
                .iter()
                .filter(|cached| !listed.contains(&cached.key) && cached.revision <= list.revision)
                .map(|cached| cached.key.clone())
                .collect();
            for key in gone {
                changes.extend(store.remove(&key, list.revision).map(Change::Deleted));
            }
            for cached in decoded {
                changes.extend(put(&mut store, cached));
            }
            store.advance(list.revision);
        }
        tell(&handlers, &changes);
        drop(handlers);
        self.synced.send_replace(true);
    }

    /// Applies events in order; gives back the revision to go on from.
    pub(crate) fn apply(&self, events: Vec<WatchEvent>) -> u64 {
        let steps: Vec<Step<K>> = events.into_iter().map(|event| self.step(event)).collect();
        let handlers = self.handlers.lock();
        let mut changes = Vec::with_capacity(steps.len());
        let revision = {
            let mut store = self.store.write();
            for step in steps {
                changes.extend(take(&mut store, step));
            }
            store.revision()
        };
        tell(&handlers, &changes);
        revision
    }

    /// Decodes outside the lock.
    fn step(&self, event: WatchEvent) -> Step<K> {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let revision = object.revision;
                self.decode(object)
                    .map_or(Step::Advance(revision), Step::Put)
            }
            WatchEvent::Deleted(object) => Step::Remove(object.key, object.revision),
            WatchEvent::Bookmark(revision) => Step::Advance(revision),
        }
    }

    fn decode(&self, object: Object) -> Option<Arc<Cached<K>>> {
        match object.decode::<K>() {
            Ok(value) => {
                let Object {
                    key,
                    revision,
                    json: _,
                } = object;
                Some(Arc::new(Cached {
                    key,
                    revision,
                    value,
                }))
            }
            Err(error) => {
                self.undecodable.fetch_add(1, Ordering::Relaxed);
                error!(
                    kind = K::RESOURCE.kind, key = %object.key, revision = object.revision, %error,
                    "object does not decode: left out of the cache"
                );
                None
            }
        }
    }
}

/// An event, decoded.
enum Step<K> {
    Put(Arc<Cached<K>>),
    Remove(ObjectKey, u64),
    Advance(u64),
}

fn take<K: Kind>(store: &mut Snapshot<K>, step: Step<K>) -> Option<Change<K>> {
    match step {
        Step::Put(cached) => put(store, cached),
        Step::Remove(key, revision) => {
            let newer = store
                .get(&key)
                .is_some_and(|cached| cached.revision > revision);
            if newer {
                return None;
            }
            store.remove(&key, revision).map(Change::Deleted)
        }
        Step::Advance(revision) => {
            store.advance(revision);
            None
        }
    }
}

fn put<K: Kind>(store: &mut Snapshot<K>, cached: Arc<Cached<K>>) -> Option<Change<K>> {
    match store.put(Arc::clone(&cached)) {
        Put::Added => Some(Change::Added(cached)),
        Put::Replaced(old) => Some(Change::Modified { old, new: cached }),
        Put::Stale => None,
    }
}

/// Calls every handler with every change. A modification that changes the uid is a deletion and a
/// creation that a relist has merged: it is told as the two.
fn tell<K: Kind>(handlers: &Handlers<K>, changes: &[Change<K>]) {
    for change in changes {
        match change {
            Change::Modified { old, new } if old.value.uid() != new.value.uid() => {
                let parts = [
                    Change::Deleted(Arc::clone(old)),
                    Change::Added(Arc::clone(new)),
                ];
                for part in &parts {
                    handlers.all.iter().for_each(|(_, handler)| handler(part));
                }
            }
            Change::Added(_) | Change::Modified { .. } | Change::Deleted(_) => {
                handlers.all.iter().for_each(|(_, handler)| handler(change));
            }
        }
    }
}
