//! A store that fails on demand: for tests of everything above the trait.
//!
//! Faults are queued by the test through [`Faults`] and used up in order, one a call. Nothing is
//! random here; a test that wants chance draws it and queues the result.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::error::{ChangesError, CommitError, CompactError, LoadError, StoreError};
use crate::model::{Caps, Commit, Op, Rev};
use crate::store::{ChangeStream, Load, Store};

/// What the next commit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitFault {
    /// Goes through.
    None,
    /// Is not written and says so.
    Unavailable,
    /// Is written, but the caller is told that nobody knows.
    UnknownWritten,
    /// Is not written, and the caller is told that nobody knows.
    UnknownLost,
}

/// A wrapper around a store that fails as told.
#[derive(Debug)]
pub struct FaultyStore<S> {
    inner: S,
    faults: Faults,
}

/// The test's hand on a [`FaultyStore`].
#[derive(Clone, Debug)]
pub struct Faults {
    queued: Arc<Mutex<Queued>>,
    /// Raised to break all streams that are open.
    breaks: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Queued {
    commits: VecDeque<CommitFault>,
    loads: usize,
    barriers: usize,
    compactions: usize,
    compacted_streams: usize,
}

impl<S> FaultyStore<S> {
    /// Wraps a store; without faults it behaves as the store does.
    pub fn new(inner: S) -> (Self, Faults) {
        let faults = Faults {
            queued: Arc::default(),
            breaks: watch::Sender::new(0),
        };
        (
            Self {
                inner,
                faults: faults.clone(),
            },
            faults,
        )
    }
}

impl Faults {
    /// Faults for the next commits, in order; later ones go through.
    pub fn commits(&self, faults: impl IntoIterator<Item = CommitFault>) {
        self.queued.lock().commits.extend(faults);
    }

    /// The next `count` loads fail.
    pub fn loads(&self, count: usize) {
        self.queued.lock().loads += count;
    }

    /// The next `count` barriers fail.
    pub fn barriers(&self, count: usize) {
        self.queued.lock().barriers += count;
    }

    /// The next `count` compactions fail.
    pub fn compactions(&self, count: usize) {
        self.queued.lock().compactions += count;
    }

    /// The next `count` streams say at once that their place is gone.
    pub fn compacted_streams(&self, count: usize) {
        self.queued.lock().compacted_streams += count;
    }

    /// All open streams end with [`ChangesError::Failed`].
    pub fn break_streams(&self) {
        self.breaks.send_modify(|breaks| *breaks += 1);
    }

    fn take(&self, count: impl FnOnce(&mut Queued) -> &mut usize) -> bool {
        let mut queued = self.queued.lock();
        let count = count(&mut queued);
        let any = *count > 0;
        *count = count.saturating_sub(1);
        any
    }
}

fn injected() -> StoreError {
    StoreError::new("a fault that a test asked for")
}

#[async_trait]
impl<S: Store> Store for FaultyStore<S> {
    async fn commit(&self, ops: Vec<Op>) -> Result<Commit, CommitError> {
        let fault = self.faults.queued.lock().commits.pop_front();
        match fault.unwrap_or(CommitFault::None) {
            CommitFault::None => self.inner.commit(ops).await,
            CommitFault::Unavailable => Err(CommitError::Unavailable(injected())),
            CommitFault::UnknownLost => Err(CommitError::Unknown(injected())),
            CommitFault::UnknownWritten => {
                self.inner.commit(ops).await?;
                Err(CommitError::Unknown(injected()))
            }
        }
    }

    async fn load(&self, prefix: &[u8]) -> Result<Load, LoadError> {
        if self.faults.take(|queued| &mut queued.loads) {
            return Err(LoadError::Failed(injected()));
        }
        self.inner.load(prefix).await
    }

    fn changes(&self, after: Rev) -> ChangeStream {
        if self.faults.take(|queued| &mut queued.compacted_streams) {
            let compacted = after.next();
            let error = ChangesError::Compacted { after, compacted };
            return stream::iter([Err(error)]).boxed();
        }
        let broken = self.faults.breaks.subscribe();
        stream::unfold(
            Some((self.inner.changes(after), broken)),
            |state| async move {
                let (mut inner, mut broken) = state?;
                // Both branches are cancel-safe; a break comes first, so that it is not put off.
                let item = tokio::select! {
                    biased;
                    _ = broken.changed() => Some(Err(ChangesError::Failed(injected()))),
                    item = inner.next() => item,
                };
                let state = matches!(item, Some(Ok(_))).then_some((inner, broken));
                item.map(|item| (item, state))
            },
        )
        .boxed()
    }

    async fn barrier(&self) -> Result<Rev, StoreError> {
        if self.faults.take(|queued| &mut queued.barriers) {
            return Err(injected());
        }
        self.inner.barrier().await
    }

    async fn compact(&self, upto: Rev) -> Result<(), CompactError> {
        if self.faults.take(|queued| &mut queued.compactions) {
            return Err(CompactError::Failed(injected()));
        }
        self.inner.compact(upto).await
    }

    fn caps(&self) -> Caps {
        self.inner.caps()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryStore;
    use crate::model::Expect;

    fn create(key: &'static str) -> Vec<Op> {
        vec![Op::put(key, "x", Expect::Absent)]
    }

    #[tokio::test]
    async fn commits_fail_as_queued_and_say_whether_they_were_written() {
        let (store, faults) = FaultyStore::new(MemoryStore::new());
        faults.commits([
            CommitFault::Unavailable,
            CommitFault::None,
            CommitFault::UnknownLost,
            CommitFault::UnknownWritten,
        ]);
        assert!(matches!(
            store.commit(create("a")).await,
            Err(CommitError::Unavailable(_))
        ));
        assert_eq!(store.commit(create("a")).await.unwrap().rev, Rev(2));
        assert!(matches!(
            store.commit(create("b")).await,
            Err(CommitError::Unknown(_))
        ));
        assert!(matches!(
            store.commit(create("b")).await,
            Err(CommitError::Unknown(_))
        ));
        assert!(matches!(
            store.commit(create("b")).await,
            Err(CommitError::Conflict { .. })
        ));
    }

    #[tokio::test]
    async fn streams_break_and_reads_fail_as_often_as_asked() {
        let (store, faults) = FaultyStore::new(MemoryStore::new());
        let mut changes = store.changes(Rev::FIRST);
        store.commit(create("a")).await.unwrap();
        assert_eq!(changes.next().await.unwrap().unwrap().rev, Rev(2));
        faults.break_streams();
        assert!(matches!(
            changes.next().await,
            Some(Err(ChangesError::Failed(_)))
        ));
        assert!(changes.next().await.is_none());
        faults.compacted_streams(1);
        let first = store.changes(Rev(2)).next().await;
        assert!(matches!(first, Some(Err(ChangesError::Compacted { .. }))));
        assert_eq!(
            store.changes(Rev(1)).next().await.unwrap().unwrap().rev,
            Rev(2)
        );

        faults.loads(1);
        faults.barriers(1);
        faults.compactions(1);
        assert!(store.load(b"").await.is_err() && store.load(b"").await.is_ok());
        assert!(store.barrier().await.is_err() && store.barrier().await.is_ok());
        assert!(store.compact(Rev(2)).await.is_err() && store.compact(Rev(2)).await.is_ok());
    }
}
