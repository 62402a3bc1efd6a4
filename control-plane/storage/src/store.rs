//! The contract that every engine keeps.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::error::{ChangesError, CommitError, CompactError, LoadError, StoreError};
use crate::model::{Batch, Caps, Commit, Entry, Op, Rev};

/// Pages of a snapshot, in key order. Ends after the last page or after the first error.
pub type PageStream = BoxStream<'static, Result<Vec<Entry>, LoadError>>;

/// Changes in revision order. Ends only after an error.
pub type ChangeStream = BoxStream<'static, Result<Arc<Batch>, ChangesError>>;

/// A consistent snapshot that is being read.
pub struct Load {
    /// The revision the whole snapshot is of; `changes(rev)` continues it without a gap.
    pub rev: Rev,
    /// Its entries.
    pub pages: PageStream,
}

impl std::fmt::Debug for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Load")
            .field("rev", &self.rev)
            .finish_non_exhaustive()
    }
}

/// A store of keys and values with revisions. Object safe: use it as `Arc<dyn Store>`.
///
/// Order and durability: a commit is acknowledged after it is durable (as far as the engine is,
/// see [`Caps::durable`]) and after every open stream can read it. Revisions never go back, also
/// not over a restart.
#[async_trait]
pub trait Store: Send + Sync {
    /// Applies all operations at one new revision, or none.
    ///
    /// A commit that changes nothing takes no revision. Dropping the future does not undo a
    /// commit that was already handed to the engine.
    ///
    /// # Errors
    /// [`CommitError::Conflict`] names the first operation whose expectation fails, with the
    /// key's present value. [`CommitError::Unknown`] is the only one after which the commit may
    /// exist.
    async fn commit(&self, ops: Vec<Op>) -> Result<Commit, CommitError>;

    /// Reads all keys that start with `prefix` (empty: all) as of one revision, which includes
    /// every commit acknowledged before the call.
    ///
    /// # Errors
    /// [`LoadError::Failed`]; the pages may also end with [`LoadError::Compacted`].
    async fn load(&self, prefix: &[u8]) -> Result<Load, LoadError>;

    /// Follows all changes with a revision above `after`. Faults come as the stream's last item.
    /// A reader that does not keep up costs no memory and gets [`ChangesError::Compacted`] when
    /// its place is gone.
    fn changes(&self, after: Rev) -> ChangeStream;

    /// The store's revision: at least that of every commit acknowledged, by any process, before
    /// the call. Each stream reaches it soon, if need be with an empty batch.
    ///
    /// # Errors
    /// When the engine cannot tell now.
    async fn barrier(&self) -> Result<Rev, StoreError>;

    /// Forgets how the state at `upto` came about: `changes(after)` works for `after >= upto` and
    /// gives [`ChangesError::Compacted`] below. Asking again for the same or an older revision is
    /// no error.
    ///
    /// # Errors
    /// [`CompactError::Future`] when `upto` is above the present revision.
    async fn compact(&self, upto: Rev) -> Result<(), CompactError>;

    /// What the engine is.
    fn caps(&self) -> Caps;
}
