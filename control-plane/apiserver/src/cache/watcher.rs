//! One watch: a position in a resource's ring, a filter, and what the filter saw before.
//!
//! Changes are told relative to the selection: an object that leaves it is DELETED, one that
//! enters is ADDED. A slow watcher holds no queue; when its position falls off the ring the watch
//! ends with [`WatchError::Expired`].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::WatchCache;
use super::dispatch::{Interest, Sleeper};
use super::filter::Filter;
use super::list::Selected;
use super::resource::{Event, EventKind, ResourceCache, Slice};
use crate::object::Obj;
use crate::status::StatusError;

/// Events that one call delivers at most.
const BATCH_MAX: usize = 32;
/// What one message to one client costs, about: a TLS record and a system call.
const WRITE_COST: Duration = Duration::from_micros(10);
/// Shorter pauses between messages are none.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// Longest pause between messages.
const PAUSE_MAX: Duration = Duration::from_millis(10);

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

/// Where a watch begins. A state is at least of the revision given; `None`: of the newest
/// committed one, 0: of any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchStart {
    /// With the present state as ADDED events.
    State(Option<u64>),
    /// With the present state, then a bookmark that says so (`sendInitialEvents`).
    StateThenBookmark(Option<u64>),
    /// With changes from now on.
    Now,
    /// With changes after this revision.
    After(u64),
}

/// What wakes a watcher.
#[derive(Debug)]
enum Source {
    /// Every change of the resource.
    Tail(watch::Receiver<u64>),
    /// Changes that can concern it.
    Sleeper(Interest, u64, Arc<Sleeper>),
}

/// A running watch.
#[derive(Debug)]
pub struct Watcher {
    resource: Arc<ResourceCache>,
    filter: Filter,
    position: u64,
    source: Source,
    applied: watch::Receiver<u64>,
    /// Objects of the initial state that were not delivered yet.
    initial: Option<Selected>,
    /// The bookmark to send after the initial state.
    initial_bookmark: Option<u64>,
    /// The revision everything up to which was looked at.
    seen: u64,
    /// When the next messages may be taken, while many watch the same.
    not_before: Option<Instant>,
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
                (position, None, None, rv)
            }
            WatchStart::Now => {
                let (_, position) = resource.snapshot_and_position();
                (position, None, None, now)
            }
            WatchStart::State(_) | WatchStart::StateThenBookmark(_) => {
                let (objects, position, newest) = resource.state();
                let newest = newest.max(now);
                let initial = Selected::new(objects, filter.clone(), None);
                let bookmark = matches!(start, WatchStart::StateThenBookmark(_)).then_some(newest);
                (position, Some(initial), bookmark, newest)
            }
        };
        let source = match Interest::of(&filter) {
            None => Source::Tail(tail),
            Some(interest) => {
                let (number, sleeper) = resource.sleep(&interest, position);
                Source::Sleeper(interest, number, sleeper)
            }
        };
        Ok(Self {
            resource: Arc::clone(resource),
            filter,
            position,
            source,
            applied,
            initial,
            initial_bookmark,
            seen,
            not_before: None,
        })
    }

    /// The next messages, at least one. Cancel safe: nothing is taken before it is returned.
    ///
    /// # Errors
    /// [`WatchError::Expired`] when the watcher was too slow; the watch is then over.
    pub async fn next(&mut self) -> Result<Vec<WatchItem>, WatchError> {
        if let Some(initial) = &mut self.initial {
            let batch: Vec<WatchItem> = initial.take(BATCH_MAX).map(WatchItem::Added).collect();
            if !batch.is_empty() {
                return Ok(batch);
            }
            self.initial = None;
        }
        if let Some(rv) = self.initial_bookmark.take() {
            return Ok(vec![WatchItem::Bookmark {
                rv,
                initial_end: true,
            }]);
        }
        loop {
            if let Some(at) = self.not_before {
                tokio::time::sleep_until(at).await;
                self.not_before = None;
            }
            // Mark as seen before looking, so that an event between the look and the wait wakes.
            if let Source::Tail(tail) = &mut self.source {
                tail.mark_unchanged();
            }
            let applied = *self.applied.borrow();
            match self.look() {
                Slice::Gone => return Err(WatchError::Expired(self.seen)),
                Slice::Events(events, next) if !events.is_empty() => {
                    self.position = next;
                    self.seen = events.last().map_or(self.seen, |event| event.rv);
                    let items: Vec<WatchItem> = events
                        .iter()
                        .filter_map(|event| self.relative(event))
                        .collect();
                    if !items.is_empty() {
                        if events.len() < BATCH_MAX {
                            self.not_before = self.pause();
                        }
                        return Ok(items);
                    }
                }
                Slice::Events(_, next) => {
                    self.position = next;
                    self.seen = self.seen.max(applied);
                    match &mut self.source {
                        Source::Sleeper(_, _, sleeper) => sleeper.roused().await,
                        Source::Tail(tail) => {
                            if tail.changed().await.is_err() {
                                // The cache is gone with the server: nothing more will come.
                                return Err(WatchError::Expired(self.seen));
                            }
                        }
                    }
                }
            }
        }
    }

    fn look(&self) -> Slice {
        let sleeper = match &self.source {
            Source::Tail(_) => None,
            Source::Sleeper(_, _, sleeper) => Some(&**sleeper),
        };
        self.resource.slice(self.position, sleeper, BATCH_MAX)
    }

    /// Many watchers of the same thing share a core: each lets a little time pass between its
    /// messages, so that one write carries several. A few watchers never wait.
    fn pause(&self) -> Option<Instant> {
        let interest = match &self.source {
            Source::Tail(_) => None,
            Source::Sleeper(interest, _, _) => Some(interest),
        };
        let watchers = self.resource.watchers(interest);
        let watchers = u32::try_from(watchers).unwrap_or(u32::MAX);
        let pause = WRITE_COST.saturating_mul(watchers).min(PAUSE_MAX);
        (pause >= PAUSE_MIN).then(|| Instant::now() + pause)
    }

    /// A bookmark for now: everything up to its revision was delivered, since the watcher reads
    /// the applied revision before it looks into the ring. `None` while messages are waiting.
    #[must_use]
    pub fn bookmark(&mut self) -> Option<WatchItem> {
        if self.initial.is_some() || self.initial_bookmark.is_some() {
            return None;
        }
        let applied = *self.applied.borrow();
        let nothing_waits = match &self.source {
            // What concerns it was told under the ring's lock before it was applied.
            Source::Sleeper(_, _, sleeper) => !sleeper.is_roused(),
            Source::Tail(_) => match self.resource.slice(self.position, None, 1) {
                Slice::Events(events, _) => events.is_empty(),
                Slice::Gone => return None,
            },
        };
        if nothing_waits {
            self.seen = self.seen.max(applied);
        }
        Some(WatchItem::Bookmark {
            rv: self.seen,
            initial_end: false,
        })
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

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Source::Sleeper(interest, number, _) = &self.source {
            self.resource.leave(interest, *number);
        }
    }
}
