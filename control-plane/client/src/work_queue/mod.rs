//! The work queue: keys to reconcile, each at most once waiting and at most once in work.
//!
//! Owns: de-duplication (a key added while it is worked on is worked on again afterwards), delays and
//! per-key back-off. Must not know what a key means. A key is bounded work: however often an object
//! changes, it waits once. Invariant: every added key is handed out after its last `add`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::backoff::delay_after;

#[cfg(test)]
mod tests;

/// Keys a queue holds at most, ready and delayed together: several times the largest tested number of
/// objects of one type. A key beyond is dropped and counted; the slow resync adds it again.
pub const KEYS_MAX: usize = 1_000_000;

/// First delay of the per-key back-off.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(5);

/// Longest delay of the per-key back-off.
pub const BACKOFF_MAX: Duration = Duration::from_secs(1000);

/// What a queue's keys must be.
pub trait Key: Clone + Eq + Hash + Ord + Debug + Send + Sync + 'static {}
impl<T: Clone + Eq + Hash + Ord + Debug + Send + Sync + 'static> Key for T {}

/// A queue of keys shared by producers (handlers) and workers.
#[derive(Debug)]
pub struct WorkQueue<T: Key> {
    shared: Arc<Shared<T>>,
}

impl<T: Key> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

#[derive(Debug)]
struct Shared<T: Key> {
    state: Mutex<State<T>>,
    wake: Notify,
    keys_max: usize,
}

#[derive(Debug)]
struct State<T: Key> {
    ready: VecDeque<T>,
    /// Keys that wait, in `ready` or behind their own processing.
    dirty: HashSet<T>,
    processing: HashSet<T>,
    delayed: BinaryHeap<Reverse<(Instant, T)>>,
    /// The earliest delay of each delayed key; heap entries that differ are stale.
    due: HashMap<T, Instant>,
    failures: HashMap<T, u32>,
    dropped: u64,
    closed: bool,
}

/// A key in work. Dropping it marks the work as finished.
#[derive(Debug)]
pub struct WorkItem<T: Key> {
    key: T,
    shared: Arc<Shared<T>>,
}

impl<T: Key> WorkItem<T> {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &T {
        &self.key
    }
}

impl<T: Key> Drop for WorkItem<T> {
    fn drop(&mut self) {
        let again = {
            let mut state = self.shared.state.lock();
            state.processing.remove(&self.key);
            let again = state.dirty.contains(&self.key);
            if again {
                state.ready.push_back(self.key.clone());
            }
            again
        };
        if again {
            self.shared.wake.notify_one();
        }
    }
}

/// How full a queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Keys that wait now.
    pub ready: usize,
    /// Keys that wait for a time.
    pub delayed: usize,
    /// Keys in work.
    pub processing: usize,
    /// Keys dropped at the bound since start.
    pub dropped: u64,
}

impl<T: Key> Default for WorkQueue<T> {
    fn default() -> Self {
        Self::with_bound(KEYS_MAX)
    }
}

impl<T: Key> WorkQueue<T> {
    /// An empty queue that holds at most [`KEYS_MAX`] keys.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty queue that holds at most `keys_max` keys.
    #[must_use]
    pub fn with_bound(keys_max: usize) -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            processing: HashSet::new(),
            delayed: BinaryHeap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            dropped: 0,
            closed: false,
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                wake: Notify::new(),
                keys_max,
            }),
        }
    }

    /// Adds a key; no effect when it already waits.
    pub fn add(&self, key: T) {
        let added = self.shared.state.lock().add(key, self.shared.keys_max);
        if added {
            self.shared.wake.notify_one();
        }
    }

    /// Adds a key after `delay`, or earlier when it is already delayed to an earlier time.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        self.shared
            .state
            .lock()
            .add_at(key, Instant::now() + delay, self.shared.keys_max);
        self.shared.wake.notify_one();
    }

    /// Adds a key after its back-off, which doubles with every call until [`Self::forget`].
    pub fn add_failed(&self, key: T) -> Duration {
        let failures = {
            let mut state = self.shared.state.lock();
            let count = state.failures.entry(key.clone()).or_insert(0);
            let failures = *count;
            *count = count.saturating_add(1);
            failures
        };
        let delay = delay_after(BACKOFF_FIRST, BACKOFF_MAX, failures);
        self.add_after(key, delay);
        delay
    }

    /// Forgets a key's failures: its work went well.
    pub fn forget(&self, key: &T) {
        self.shared.state.lock().failures.remove(key);
    }

    /// How often a key failed since the last [`Self::forget`].
    #[must_use]
    pub fn failures(&self, key: &T) -> u32 {
        self.shared
            .state
            .lock()
            .failures
            .get(key)
            .copied()
            .unwrap_or(0)
    }

    /// Waits for a key. `None` once the queue is closed and empty. Cancel-safe: a key is taken only
    /// in the poll that returns it.
    pub async fn get(&self) -> Option<WorkItem<T>> {
        loop {
            let mut woken = pin!(self.shared.wake.notified());
            woken.as_mut().enable();
            let (taken, more, next_due, closed) = self.shared.state.lock().take(Instant::now());
            if more {
                self.shared.wake.notify_one();
            }
            if let Some(key) = taken {
                return Some(WorkItem {
                    key,
                    shared: Arc::clone(&self.shared),
                });
            }
            if closed {
                self.shared.wake.notify_waiters();
                return None;
            }
            match next_due {
                // Both futures may be dropped at any point: they own no state.
                Some(due) => tokio::select! {
                    () = woken => {}
                    () = sleep_until(due) => {}
                },
                None => woken.await,
            }
        }
    }

    /// Hands out what is ready and then ends every waiting `get`; delayed keys are dropped.
    pub fn close(&self) {
        self.shared.state.lock().closed = true;
        self.shared.wake.notify_waiters();
        self.shared.wake.notify_one();
    }

    /// How full the queue is.
    #[must_use]
    pub fn depth(&self) -> Depth {
        let state = self.shared.state.lock();
        Depth {
            ready: state.ready.len(),
            delayed: state.due.len(),
            processing: state.processing.len(),
            dropped: state.dropped,
        }
    }

    /// Failure counts by number of failures: what keeps failing.
    #[must_use]
    pub fn failing(&self) -> BTreeMap<u32, usize> {
        let mut by_count = BTreeMap::new();
        for count in self.shared.state.lock().failures.values() {
            *by_count.entry(*count).or_insert(0) += 1;
        }
        by_count
    }
}

impl<T: Key> State<T> {
    /// Whether a worker must be woken.
    fn add(&mut self, key: T, keys_max: usize) -> bool {
        if self.closed || self.dirty.contains(&key) {
            return false;
        }
        if self.dirty.len() + self.due.len() >= keys_max {
            self.dropped += 1;
            return false;
        }
        let in_work = self.processing.contains(&key);
        self.dirty.insert(key.clone());
        if !in_work {
            self.ready.push_back(key);
        }
        !in_work
    }

    fn add_at(&mut self, key: T, at: Instant, keys_max: usize) {
        if self.closed {
            return;
        }
        match self.due.get(&key) {
            Some(earlier) if *earlier <= at => return,
            Some(_) => {}
            None if self.dirty.len() + self.due.len() >= keys_max => {
                self.dropped += 1;
                return;
            }
            None => {}
        }
        self.due.insert(key.clone(), at);
        self.delayed.push(Reverse((at, key)));
    }

    /// Moves due keys to `ready` and takes one: the key, whether more are ready, when the next is due.
    fn take(&mut self, now: Instant) -> (Option<T>, bool, Option<Instant>, bool) {
        while let Some(Reverse((at, _))) = self.delayed.peek() {
            if *at > now {
                break;
            }
            let Some(Reverse((at, key))) = self.delayed.pop() else {
                break;
            };
            if self.due.get(&key) == Some(&at) {
                self.due.remove(&key);
                self.add(key, usize::MAX);
            }
        }
        let taken = self.ready.pop_front();
        if let Some(key) = &taken {
            self.dirty.remove(key);
            self.processing.insert(key.clone());
        }
        let next_due = self.delayed.peek().map(|Reverse((at, _))| *at);
        (taken, !self.ready.is_empty(), next_due, self.closed)
    }
}
