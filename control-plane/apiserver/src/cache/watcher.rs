//! One watch: a position in a resource's ring, a filter, and what the filter saw before.
//!
//! Changes are told relative to the selection: an object that leaves it is DELETED, one that
//! enters is ADDED. A slow watcher holds no queue; when its position falls off the ring the watch
//! ends with [`WatchError::Expired`].

use std::sync::Arc;

use tokio::sync::watch;

use super::filter::Filter;
use super::resource::{Event, EventKind, ResourceCache, Slice};
use super::{WatchCache, list};
use crate::object::Obj;
use crate::status::StatusError;

/// Events that one call delivers at most.
const BATCH_MAX: usize = 64;

/// One message of a watch.
#[derive(Debug, Clone)]
pub enum WatchItem {
    /// New to the selection.
    Added(Arc<Obj>),
    /// Changed inside the selection.
    Modified(Arc<Obj>),
    /// Gone, or no longer selected; as of the change's revision.
    Deleted(Arc<Obj>),
    /// Nothing up to this revision is missing. `initial_end` ends the initial set.
    Bookmark {
        /// The revision.
        rv: u64,
        /// The set asked for with `sendInitialEvents` is complete.
        initial_end: bool,
    },
}

/// Why a watch ended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WatchError {
    /// Its position is no longer kept: list again.
    #[error("too old resource version: {0}")]
    Expired(u64),
}

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchStart {
    /// With the present state as ADDED events.
    State,
    /// With the present state, then a bookmark that says so (`sendInitialEvents`).
    StateThenBookmark,
    /// With changes after this revision.
    After(u64),
}

/// A running watch.
#[derive(Debug)]
pub struct Watcher {
    resource: Arc<ResourceCache>,
    filter: Filter,
    position: u64,
    tail: watch::Receiver<u64>,
    applied: watch::Receiver<u64>,
    /// Objects of the initial state that were not delivered yet, last first.
    initial: Vec<Arc<Obj>>,
    /// The bookmark to send after the initial state.
    initial_bookmark: Option<u64>,
    /// The revision everything up to which was looked at.
    seen: u64,
}

impl Watcher {
    /// Starts a watch on `resource`.
    ///
    /// # Errors
    /// 410 Expired when `start` lies before what is kept.
    pub fn start(
        cache: &WatchCache,
        resource: &Arc<ResourceCache>,
        filter: Filter,
        start: WatchStart,
    ) -> Result<Self, StatusError> {
        let tail = resource.tail();
        let applied = cache.subscribe();
        // Read before the state: the state then holds at least everything up to it.
        let now = *applied.borrow();
        let (position, initial, initial_bookmark, seen) = match start {
            WatchStart::After(rv) => {
                let position = resource.position_after(rv).ok_or_else(|| {
                    StatusError::expired(format!("too old resource version: {rv} ({now})"))
                })?;
                (position, Vec::new(), None, rv)
            }
            WatchStart::State | WatchStart::StateThenBookmark => {
                let (objects, position) = resource.snapshot_and_position();
                let mut initial: Vec<Arc<Obj>> = list::range(&objects, &filter, None)
                    .filter(|obj| filter.matches(obj))
                    .map(Arc::clone)
                    .collect();
                let newest = initial.iter().map(|obj| obj.rv).max().unwrap_or(0).max(now);
                initial.reverse();
                let bookmark = (start == WatchStart::StateThenBookmark).then_some(newest);
                (position, initial, bookmark, newest)
            }
        };
        Ok(Self {
            resource: Arc::clone(resource),
            filter,
            position,
            tail,
            applied,
            initial,
            initial_bookmark,
            seen,
        })
    }

    /// The next messages, at least one. Cancel safe: nothing is taken before it is returned.
    ///
    /// # Errors
    /// [`WatchError::Expired`] when the watcher was too slow; the watch is then over.
    pub async fn next(&mut self) -> Result<Vec<WatchItem>, WatchError> {
        if !self.initial.is_empty() {
            let keep = self.initial.len().saturating_sub(BATCH_MAX);
            let batch = self.initial.split_off(keep);
            return Ok(batch.into_iter().rev().map(WatchItem::Added).collect());
        }
        if let Some(rv) = self.initial_bookmark.take() {
            return Ok(vec![WatchItem::Bookmark {
                rv,
                initial_end: true,
            }]);
        }
        loop {
            // Mark as seen before looking, so that an event between the look and the wait wakes.
            self.tail.mark_unchanged();
            let applied = *self.applied.borrow();
            match self.resource.slice(self.position, BATCH_MAX) {
                Slice::Gone => return Err(WatchError::Expired(self.seen)),
                Slice::Events(events, next) if !events.is_empty() => {
                    self.position = next;
                    self.seen = events.last().map_or(self.seen, |event| event.rv);
                    let items: Vec<WatchItem> = events
                        .iter()
                        .filter_map(|event| self.relative(event))
                        .collect();
                    if !items.is_empty() {
                        return Ok(items);
                    }
                }
                Slice::Events(..) => {
                    self.seen = self.seen.max(applied);
                    if self.tail.changed().await.is_err() {
                        // The cache is gone with the server: nothing more will come.
                        return Err(WatchError::Expired(self.seen));
                    }
                }
            }
        }
    }

    /// A bookmark for now: everything up to its revision was delivered, since the watcher reads
    /// the applied revision before it looks into the ring. `None` while messages are waiting.
    #[must_use]
    pub fn bookmark(&mut self) -> Option<WatchItem> {
        if !self.initial.is_empty() || self.initial_bookmark.is_some() {
            return None;
        }
        let applied = *self.applied.borrow();
        match self.resource.slice(self.position, 1) {
            Slice::Events(events, _) if events.is_empty() => {
                self.seen = self.seen.max(applied);
                Some(WatchItem::Bookmark {
                    rv: self.seen,
                    initial_end: false,
                })
            }
            Slice::Events(..) => Some(WatchItem::Bookmark {
                rv: self.seen,
                initial_end: false,
            }),
            Slice::Gone => None,
        }
    }

    /// What `event` means to this selection.
    fn relative(&self, event: &Event) -> Option<WatchItem> {
        let was = event
            .prev
            .as_ref()
            .is_some_and(|prev| self.filter.matches(prev));
        let is = event.kind != EventKind::Deleted && self.filter.matches(&event.obj);
        match (was, is) {
            (false, false) => None,
            (false, true) => Some(WatchItem::Added(Arc::clone(&event.obj))),
            (true, true) => Some(WatchItem::Modified(Arc::clone(&event.obj))),
            (true, false) if event.kind == EventKind::Deleted => {
                Some(WatchItem::Deleted(Arc::clone(&event.obj)))
            }
            (true, false) => {
                let last = event.prev.as_ref()?.at_revision(event.rv);
                Some(WatchItem::Deleted(Arc::new(last)))
            }
        }
    }
}
