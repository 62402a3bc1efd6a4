//! What can go wrong, one enum an operation, so that a caller can tell "retry" from "never".

use std::path::PathBuf;
use std::sync::Arc;

use crate::model::{Current, Rev};

/// A fault of the engine itself: disk, network, a peer. Cheap to clone, since one failed group
/// commit fails every commit in it.
#[derive(Clone, Debug)]
pub struct StoreError {
    message: String,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StoreError {
    /// The cause itself, not the pointer to it: callers look for an `io::Error` in the chain.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let source = self.source.as_deref()?;
        Some(source)
    }
}

impl StoreError {
    /// A fault without a deeper cause. `message`: what failed, on what, what to do.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            source: None,
        }
    }

    /// A fault with its cause.
    pub fn with(
        message: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self {
            message: message.into(),
            source: Some(Arc::new(source)),
        }
    }
}

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the directory.
    #[error(
        "the data directory {} is in use by another process (lock {} is held); stop that process \
         or give this one a directory of its own", dir.display(), lock.display()
    )]
    Locked {
        /// The data directory.
        dir: PathBuf,
        /// The lock file.
        lock: PathBuf,
    },
    /// The directory was written by another format.
    #[error(
        "the data directory {} has format {found:?}, this program reads {expected:?}; use the \
         program version that wrote it, or another directory", dir.display()
    )]
    Format {
        /// The data directory.
        dir: PathBuf,
        /// What the marker says.
        found: String,
        /// What this program reads.
        expected: &'static str,
    },
    /// A record does not say what was written.
    #[error(
        "the store in {} is corrupt: keyspace {keyspace}, record {record}: {fault}; restore the \
         directory from a backup, nothing was changed", dir.display()
    )]
    Corrupt {
        /// The data directory.
        dir: PathBuf,
        /// `cur`, `log` or `meta`.
        keyspace: &'static str,
        /// The record's key, readable.
        record: String,
        /// What is wrong with it.
        fault: String,
    },
    /// The operating system or the engine refused.
    #[error("{0}")]
    Engine(#[from] StoreError),
}

/// Why a commit did not happen, or may not have happened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// An expectation does not hold. Nothing was written.
    #[error("operation {index}: the key is not in the expected state")]
    Conflict {
        /// The first operation whose expectation failed.
        index: usize,
        /// The key as it is; `None` when it does not exist.
        current: Option<Current>,
    },
    /// No operation was given.
    #[error("a commit needs at least one operation")]
    Empty,
    /// Too many operations.
    #[error("{count} operations in one commit, at most {max} are allowed")]
    TooManyOps {
        /// Given.
        count: usize,
        /// Allowed.
        max: usize,
    },
    /// An empty or overlong key.
    #[error("operation {index}: the key has {len} bytes, it must have 1 to {max}")]
    BadKey {
        /// The operation.
        index: usize,
        /// Its key's length.
        len: usize,
        /// Allowed.
        max: usize,
    },
    /// A key appears twice.
    #[error("operation {index}: the key is already in this commit")]
    DuplicateKey {
        /// The second operation on the key.
        index: usize,
    },
    /// Keys and values are too large together.
    #[error("the commit has {size} bytes, at most {max} are allowed")]
    TooLarge {
        /// Given.
        size: usize,
        /// Allowed.
        max: usize,
    },
    /// Nothing was written; trying again later may help.
    #[error("the store cannot take the commit now; it was not written")]
    Unavailable(#[source] StoreError),
    /// It may have been written: read before trying again.
    #[error("the commit's outcome is not known; read the keys before trying again")]
    Unknown(#[source] StoreError),
    /// The store was closed. Nothing was written.
    #[error("the store is closed")]
    Closed,
}

/// Why a snapshot could not be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadError {
    /// The snapshot's revision was compacted away while it was read: load again.
    #[error("revision {rev} was compacted while it was being read; load again")]
    Compacted {
        /// The snapshot's revision.
        rev: Rev,
    },
    /// The engine failed.
    #[error("the store cannot be read")]
    Failed(#[source] StoreError),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// Why a stream of changes ended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ChangesError {
    /// Changes after the asked revision are gone: load and start from there.
    #[error("changes after revision {after} are gone, the store is compacted to {compacted}")]
    Compacted {
        /// The revision that was asked for.
        after: Rev,
        /// The oldest revision that can be asked for.
        compacted: Rev,
    },
    /// The asked revision does not exist yet: the reader follows another store.
    #[error(
        "revision {after} was asked for, the store is only at {current}: was it replaced or \
         restored from a backup? load again"
    )]
    Future {
        /// The revision that was asked for.
        after: Rev,
        /// The store's revision.
        current: Rev,
    },
    /// The engine failed: load and start again.
    #[error("the changes cannot be read")]
    Failed(#[source] StoreError),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// Why a compaction did not happen.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CompactError {
    /// The revision does not exist yet.
    #[error("cannot compact to revision {upto}, the store is only at {current}")]
    Future {
        /// The revision that was asked for.
        upto: Rev,
        /// The store's revision.
        current: Rev,
    },
    /// The engine failed; trying again later may help.
    #[error("the store cannot be compacted now")]
    Failed(#[source] StoreError),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::io;

    use super::*;

    #[test]
    fn a_cause_is_found_by_its_type() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = StoreError::with("write", full);
        let cause = error
            .source()
            .and_then(|cause| cause.downcast_ref::<io::Error>());
        assert_eq!(cause.map(io::Error::kind), Some(io::ErrorKind::StorageFull));
    }
}
