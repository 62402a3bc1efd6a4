//! The store in memory: for tests and for a control plane that may forget.
//!
//! One mutex guards a persistent map, so a snapshot is one pointer. A task owned by the store
//! deletes expired keys; it ends when the store is dropped.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use imbl::OrdMap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::error::{ChangesError, CommitError, CompactError, LoadError, StoreError};
use crate::history::{HISTORY_BYTES_MAX, History, Next, Published};
use crate::model::{
    Batch, Caps, Change, Commit, Current, Entry, Expect, Op, Rev, check_ops, holds,
};
use crate::store::{ChangeStream, Load, Store};

/// Entries of one page of a snapshot.
const PAGE_ENTRIES: usize = 1000;

/// A store without a disk.
#[derive(Debug)]
pub struct MemoryStore {
    shared: Arc<Shared>,
    _sweeper: DropGuard,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    history: History,
    /// Told when a deadline may have become the earliest.
    deadline_changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    entries: OrdMap<Bytes, Stored>,
    /// Deadlines of the entries that have one.
    deadlines: BTreeSet<(Instant, Bytes)>,
    rev: Rev,
}

#[derive(Clone, Debug)]
struct Stored {
    value: Bytes,
    rev: Rev,
    deadline: Option<Instant>,
}

impl MemoryStore {
    /// An empty store at [`Rev::FIRST`]. Must be called within a tokio runtime, which runs the
    /// task that expires keys.
    #[must_use]
    pub fn new() -> Self {
        Self::with_history_bytes(HISTORY_BYTES_MAX)
    }

    /// As [`MemoryStore::new`], keeping at most `bytes_max` bytes of history: the store compacts
    /// itself above that.
    #[must_use]
    pub fn with_history_bytes(bytes_max: usize) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                rev: Rev::FIRST,
                ..State::default()
            }),
            history: History::new(Rev::FIRST, bytes_max),
            deadline_changed: Notify::new(),
        });
        let stop = CancellationToken::new();
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(sweep(Arc::clone(&shared))),
        );
        Self {
            shared,
            _sweeper: stop.drop_guard(),
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        self.shared.history.close();
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn commit(&self, ops: Vec<Op>) -> Result<Commit, CommitError> {
        check_ops(&ops)?;
        self.shared.commit(ops)
    }

    async fn load(&self, prefix: &[u8]) -> Result<Load, LoadError> {
        let (entries, rev) = {
            let state = self.shared.state.lock();
            (state.entries.clone(), state.rev)
        };
        let start = (entries, Bytes::copy_from_slice(prefix), None);
        let pages = stream::unfold(start, |(entries, prefix, last)| async move {
            let page = page(&entries, &prefix, last.as_ref());
            let last = page.last()?.key.clone();
            Some((Ok(page), (entries, prefix, Some(last))))
        });
        Ok(Load {
            rev,
            pages: pages.boxed(),
        })
    }

    fn changes(&self, after: Rev) -> ChangeStream {
        let reader = Some((
            Arc::clone(&self.shared),
            self.shared.history.subscribe(),
            after,
        ));
        stream::unfold(reader, |reader| async move {
            let (shared, mut published, after) = reader?;
            match next_batch(&shared.history, &mut published, after).await {
                Ok(batch) => {
                    let rev = batch.rev;
                    Some((Ok(batch), Some((shared, published, rev))))
                }
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    async fn barrier(&self) -> Result<Rev, StoreError> {
        Ok(self.shared.history.published())
    }

    async fn compact(&self, upto: Rev) -> Result<(), CompactError> {
        let current = self.shared.history.published();
        if upto > current {
            return Err(CompactError::Future { upto, current });
        }
        self.shared.history.cut(upto);
        Ok(())
    }

    fn caps(&self) -> Caps {
        Caps {
            engine: "memory",
            durable: false,
            multi_writer: false,
            progress: false,
        }
    }
}

impl Shared {
    fn commit(&self, ops: Vec<Op>) -> Result<Commit, CommitError> {
        let mut state = self.state.lock();
        for (index, op) in ops.iter().enumerate() {
            let stored = state.entries.get(op.key());
            if !holds(op.expect(), stored.map(|stored| stored.rev)) {
                let current = stored.map(|stored| Current {
                    value: stored.value.clone(),
                    rev: stored.rev,
                });
                return Err(CommitError::Conflict { index, current });
            }
        }
        let rev = state.rev.next();
        let now = Instant::now();
        let changes: Vec<_> = ops
            .into_iter()
            .filter_map(|op| state.apply(op, rev, now))
            .collect();
        if changes.is_empty() {
            return Ok(Commit { rev: state.rev });
        }
        state.rev = rev;
        // Published under the lock: streams see revisions in order, and before the caller does.
        self.history.publish([Arc::new(Batch { rev, changes })]);
        drop(state);
        self.deadline_changed.notify_one();
        Ok(Commit { rev })
    }
}

impl State {
    fn apply(&mut self, op: Op, rev: Rev, now: Instant) -> Option<Change> {
        match op {
            Op::Put {
                key,
                value,
                expect: _,
                ttl,
            } => {
                let deadline = ttl.and_then(|ttl| now.checked_add(ttl));
                let stored = Stored {
                    value: value.clone(),
                    rev,
                    deadline,
                };
                let before = self.entries.insert(key.clone(), stored);
                self.forget_deadline(before, &key);
                if let Some(deadline) = deadline {
                    self.deadlines.insert((deadline, key.clone()));
                }
                Some(Change::Put { key, value })
            }
            Op::Delete { key, expect: _ } => {
                let before = self.entries.remove(&key)?;
                self.forget_deadline(Some(before), &key);
                Some(Change::Delete { key })
            }
            Op::Check { .. } => None,
        }
    }

    fn forget_deadline(&mut self, before: Option<Stored>, key: &Bytes) {
        if let Some(deadline) = before.and_then(|stored| stored.deadline) {
            self.deadlines.remove(&(deadline, key.clone()));
        }
    }

    /// One due key and the revision it was written at, or when the next one is due.
    fn due(&self, now: Instant) -> Result<(Bytes, Rev), Option<Instant>> {
        let (deadline, key) = self.deadlines.first().ok_or(None)?;
        let stored = self.entries.get(key).ok_or(Some(*deadline))?;
        if *deadline <= now {
            Ok((key.clone(), stored.rev))
        } else {
            Err(Some(*deadline))
        }
    }
}

/// Deletes keys when they are due. Never returns; the store's drop cancels it.
async fn sweep(shared: Arc<Shared>) {
    loop {
        let due = shared.state.lock().due(Instant::now());
        match due {
            Ok((key, rev)) => {
                // A conflict means that the key was written meanwhile: look again.
                drop(shared.commit(vec![Op::delete(key, Expect::Rev(rev))]));
            }
            Err(Some(deadline)) => {
                let changed = shared.deadline_changed.notified();
                // Cancel-safe: neither branch carries state.
                tokio::select! {
                    () = tokio::time::sleep_until(deadline) => {}
                    () = changed => {}
                }
            }
            Err(None) => shared.deadline_changed.notified().await,
        }
    }
}

fn page(entries: &OrdMap<Bytes, Stored>, prefix: &Bytes, last: Option<&Bytes>) -> Vec<Entry> {
    use std::ops::Bound;
    let from = last.map_or(Bound::Included(prefix), Bound::Excluded);
    entries
        .range((from.cloned(), Bound::Unbounded))
        .take_while(|(key, _)| key.starts_with(prefix))
        .take(PAGE_ENTRIES)
        .map(|(key, stored)| Entry {
            key: key.clone(),
            value: stored.value.clone(),
            rev: stored.rev,
        })
        .collect()
}

async fn next_batch(
    history: &History,
    published: &mut tokio::sync::watch::Receiver<Published>,
    after: Rev,
) -> Result<Arc<Batch>, ChangesError> {
    loop {
        let Published {
            rev: current,
            closed,
        } = *published.borrow_and_update();
        if after > current {
            return Err(ChangesError::Future { after, current });
        }
        match history.next(after) {
            Next::Batch(batch) => return Ok(batch),
            Next::Behind(compacted) => return Err(ChangesError::Compacted { after, compacted }),
            Next::End if closed => return Err(ChangesError::Closed),
            Next::End => {}
        }
        if published.changed().await.is_err() {
            return Err(ChangesError::Closed);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn history_beyond_its_bytes_is_compacted_by_itself() {
        let store = MemoryStore::with_history_bytes(10_000);
        for n in 0..20 {
            let op = Op::put(format!("k{n}"), vec![0; 1000], Expect::Absent);
            store.commit(vec![op]).await.unwrap();
        }
        let first = store.changes(Rev::FIRST).next().await.unwrap();
        assert!(matches!(
            first,
            Err(ChangesError::Compacted { after: Rev(1), .. })
        ));
    }

    #[tokio::test]
    async fn a_dropped_store_ends_its_streams_after_the_last_batch() {
        let store = MemoryStore::new();
        let mut changes = store.changes(Rev::FIRST);
        store
            .commit(vec![Op::put("a", "1", Expect::Absent)])
            .await
            .unwrap();
        drop(store);
        assert_eq!(changes.next().await.unwrap().unwrap().rev, Rev(2));
        assert!(matches!(
            changes.next().await,
            Some(Err(ChangesError::Closed))
        ));
        assert!(changes.next().await.is_none());
    }
}
