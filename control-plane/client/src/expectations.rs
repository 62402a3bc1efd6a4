//! Whether a controller may trust its cache after its own writes.
//!
//! Revisions are one order over all types, so "my write is in my cache" is a comparison: the cache has
//! reached the revision of the write. That stays exact when a relist swallows single events, which a
//! count of events does not. A deletion that lingers has no revision of its own; it is seen when the
//! cache shows the object gone or terminating. A write whose outcome is unknown (a lost answer) makes
//! the key uncertain until a live list has told the truth.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::work_queue::Key;

/// After this an expectation no longer holds a controller back: it acts on what it sees.
pub const EXPIRY: Duration = Duration::from_secs(300);

/// Keys with open expectations at most; beyond, the oldest is dropped (and its key uncertain no more).
pub const KEYS_MAX: usize = 1_000_000;

/// What the cache is worth for one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// The cache holds every own write.
    Trusted,
    /// Own writes are not in the cache yet: wait for them.
    Waiting,
    /// It is not known what was written: list live, then [`Expectations::expect_revision`].
    Uncertain,
}

/// Own writes not yet seen in the cache, by controller key.
#[derive(Debug)]
pub struct Expectations<K: Key> {
    open: Mutex<HashMap<K, Open>>,
}

#[derive(Debug)]
struct Open {
    revision: u64,
    deleted: HashSet<Arc<str>>,
    uncertain: bool,
    since: Instant,
}

impl<K: Key> Default for Expectations<K> {
    fn default() -> Self {
        Self {
            open: Mutex::new(HashMap::new()),
        }
    }
}

impl<K: Key> Expectations<K> {
    /// A write of `key` was committed at `revision`.
    pub fn expect_revision(&self, key: &K, revision: u64) {
        self.change(key, |open| {
            open.revision = open.revision.max(revision);
            open.uncertain = false;
        });
    }

    /// A deletion of the object `uid` was accepted for `key`.
    pub fn expect_deletion(&self, key: &K, uid: &str) {
        self.change(key, |open| {
            open.deleted.insert(Arc::from(uid));
        });
    }

    /// A write for `key` may or may not have happened.
    pub fn mark_uncertain(&self, key: &K) {
        self.change(key, |open| open.uncertain = true);
    }

    /// The key's object is gone.
    pub fn forget(&self, key: &K) {
        self.open.lock().remove(key);
    }

    /// Compares with the cache: its revision, and whether it shows `uid` as gone or terminating.
    pub fn check(&self, key: &K, cache_revision: u64, is_gone: impl Fn(&str) -> bool) -> Trust {
        let mut all = self.open.lock();
        let Some(open) = all.get_mut(key) else {
            return Trust::Trusted;
        };
        if open.uncertain {
            return Trust::Uncertain;
        }
        open.deleted.retain(|uid| !is_gone(uid));
        let seen = open.revision <= cache_revision && open.deleted.is_empty();
        if seen || open.since.elapsed() >= EXPIRY {
            all.remove(key);
            return Trust::Trusted;
        }
        Trust::Waiting
    }

    fn change(&self, key: &K, change: impl FnOnce(&mut Open)) {
        let mut all = self.open.lock();
        if all.len() >= KEYS_MAX && !all.contains_key(key) {
            let oldest = all
                .iter()
                .min_by_key(|(_, open)| open.since)
                .map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                all.remove(&oldest);
            }
        }
        let open = all.entry(key.clone()).or_insert_with(|| Open {
            revision: 0,
            deleted: HashSet::new(),
            uncertain: false,
            since: Instant::now(),
        });
        open.since = Instant::now();
        change(open);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(open: &Expectations<u8>, revision: u64, gone: &[&str]) -> Trust {
        open.check(&1, revision, |uid| gone.contains(&uid))
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_is_waited_for_until_the_cache_reaches_its_revision() {
        let open = Expectations::default();
        open.expect_revision(&1, 7);
        open.expect_revision(&1, 5);
        assert_eq!(check(&open, 6, &[]), Trust::Waiting);
        assert_eq!(check(&open, 9, &[]), Trust::Trusted);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deletion_is_waited_for_until_the_cache_shows_it() {
        let open = Expectations::default();
        open.expect_deletion(&1, "a");
        open.expect_deletion(&1, "b");
        assert_eq!(check(&open, 0, &["a"]), Trust::Waiting);
        assert_eq!(check(&open, 0, &["b"]), Trust::Trusted);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_outcome_needs_a_live_list() {
        let open = Expectations::default();
        open.expect_revision(&1, 3);
        open.mark_uncertain(&1);
        assert_eq!(check(&open, 100, &[]), Trust::Uncertain);
        open.expect_revision(&1, 101);
        assert_eq!(check(&open, 100, &[]), Trust::Waiting);
        assert_eq!(check(&open, 101, &[]), Trust::Trusted);
    }

    #[tokio::test(start_paused = true)]
    async fn an_expectation_expires() {
        let open = Expectations::default();
        open.expect_revision(&1, u64::MAX);
        assert_eq!(check(&open, 1, &[]), Trust::Waiting);
        tokio::time::advance(EXPIRY).await;
        assert_eq!(check(&open, 1, &[]), Trust::Trusted);
    }
}
