//! The words of the store: revisions, operations, changes, and the bounds every engine shares.
//!
//! Pure data and pure checks; engines depend on it, it depends on nothing.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::error::CommitError;

/// Longest key, in bytes. A namespaced custom resource needs at most about 900.
pub const KEY_BYTES_MAX: usize = 2048;

/// Largest commit: the sum of all keys and values, in bytes. An etcd member refuses requests above
/// 1.5 MiB (`--max-request-bytes`); what is left out here is its envelope.
pub const COMMIT_BYTES_MAX: usize = 1_536_000;

/// Most operations in one commit. An etcd member's default (`--max-txn-ops`).
pub const OPS_MAX: usize = 128;

/// A revision of the store. Each effective commit takes the next one; it is the API's
/// `resourceVersion`. A fresh store is at revision 1, so 0 never names a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rev(pub u64);

impl Rev {
    /// The revision of a store that was never written.
    pub const FIRST: Self = Self(1);

    /// The revision after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Rev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What must be true of a key for a commit to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key exists and was last written at this revision.
    Rev(Rev),
    /// Nothing is asked.
    Any,
}

/// One operation of a commit. A key may appear once in a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a value.
    Put {
        /// Non-empty, at most [`KEY_BYTES_MAX`] bytes.
        key: Bytes,
        /// The new value; may be empty.
        value: Bytes,
        /// What must hold of the key before.
        expect: Expect,
        /// The key is deleted (a change like any other) this long after the commit, or somewhat
        /// later: never sooner. A later put without `ttl` makes the key permanent again.
        ttl: Option<Duration>,
    },
    /// Removes a key. Removing an absent key is no change.
    Delete {
        /// Non-empty, at most [`KEY_BYTES_MAX`] bytes.
        key: Bytes,
        /// What must hold of the key before.
        expect: Expect,
    },
    /// Writes nothing, but the commit fails unless `expect` holds.
    Check {
        /// Non-empty, at most [`KEY_BYTES_MAX`] bytes.
        key: Bytes,
        /// What must hold of the key.
        expect: Expect,
    },
}

impl Op {
    /// A put without an expiry.
    #[must_use]
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>, expect: Expect) -> Self {
        Self::Put {
            key: key.into(),
            value: value.into(),
            expect,
            ttl: None,
        }
    }

    /// A delete.
    #[must_use]
    pub fn delete(key: impl Into<Bytes>, expect: Expect) -> Self {
        Self::Delete {
            key: key.into(),
            expect,
        }
    }

    /// The key this operation is about.
    #[must_use]
    pub const fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } | Self::Check { key, .. } => key,
        }
    }

    /// What must hold of the key.
    #[must_use]
    pub const fn expect(&self) -> Expect {
        match self {
            Self::Put { expect, .. } | Self::Delete { expect, .. } | Self::Check { expect, .. } => {
                *expect
            }
        }
    }

    const fn bytes_len(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.len() + value.len(),
            Self::Delete { key, .. } | Self::Check { key, .. } => key.len(),
        }
    }
}

/// The outcome of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The revision of everything the commit wrote. When it changed nothing (only checks, or
    /// deletes of absent keys): the revision at which it was evaluated.
    pub rev: Rev,
}

/// A key's present value, as a conflict reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// The value.
    pub value: Bytes,
    /// The revision that wrote it.
    pub rev: Rev,
}

/// One key of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The revision that wrote it.
    pub rev: Rev,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key was written; its revision is the batch's.
    Put {
        /// The key.
        key: Bytes,
        /// The new value.
        value: Bytes,
    },
    /// The key was removed or expired.
    Delete {
        /// The key.
        key: Bytes,
    },
}

impl Change {
    /// The key this change is about.
    #[must_use]
    pub const fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    pub(crate) const fn bytes_len(&self) -> usize {
        match self {
            Self::Put { key, value } => key.len() + value.len(),
            Self::Delete { key } => key.len(),
        }
    }
}

/// Everything that one revision changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The revision. Strictly rising along a stream.
    pub rev: Rev,
    /// All of the commit's changes. The order within a commit is not part of the contract (a key
    /// is there at most once). Empty: progress only, "all changes up to `rev` were delivered".
    pub changes: Vec<Change>,
}

impl Batch {
    pub(crate) fn bytes_len(&self) -> usize {
        self.changes.iter().map(Change::bytes_len).sum()
    }
}

/// What an engine is. Nothing above the store needs it to be correct; it is for status output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// The engine's name: `embedded`, `etcd` or `memory`.
    pub engine: &'static str,
    /// An acknowledged commit survives the process.
    pub durable: bool,
    /// Other processes may write the same store.
    pub multi_writer: bool,
    /// Streams may carry empty batches, because revisions are spent on keys outside the store.
    pub progress: bool,
}

/// Checks what every engine refuses alike, before it does any work.
///
/// # Errors
/// [`CommitError::Empty`], [`CommitError::TooManyOps`], [`CommitError::BadKey`],
/// [`CommitError::DuplicateKey`] and [`CommitError::TooLarge`].
pub fn check_ops(ops: &[Op]) -> Result<(), CommitError> {
    if ops.is_empty() {
        return Err(CommitError::Empty);
    }
    if ops.len() > OPS_MAX {
        return Err(CommitError::TooManyOps {
            count: ops.len(),
            max: OPS_MAX,
        });
    }
    let mut seen = HashSet::with_capacity(ops.len());
    for (index, op) in ops.iter().enumerate() {
        let key = op.key();
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(CommitError::BadKey {
                index,
                len: key.len(),
                max: KEY_BYTES_MAX,
            });
        }
        if !seen.insert(key) {
            return Err(CommitError::DuplicateKey { index });
        }
    }
    let size = ops.iter().map(Op::bytes_len).sum();
    if size > COMMIT_BYTES_MAX {
        return Err(CommitError::TooLarge {
            size,
            max: COMMIT_BYTES_MAX,
        });
    }
    Ok(())
}

/// Whether `expect` holds of a key whose last write was at `current`.
pub(crate) fn holds(expect: Expect, current: Option<Rev>) -> bool {
    match expect {
        Expect::Any => true,
        Expect::Absent => current.is_none(),
        Expect::Rev(rev) => current == Some(rev),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, len: usize) -> Op {
        Op::put(key.to_owned(), vec![0; len], Expect::Any)
    }

    #[test]
    fn a_commit_at_each_bound_passes_and_one_above_it_fails() {
        assert!(matches!(check_ops(&[]), Err(CommitError::Empty)));
        let ops: Vec<_> = (0..=OPS_MAX).map(|n| put(&format!("k{n}"), 1)).collect();
        check_ops(&ops[..OPS_MAX]).unwrap();
        assert!(matches!(
            check_ops(&ops),
            Err(CommitError::TooManyOps { count: 129, .. })
        ));

        check_ops(&[put(&"k".repeat(KEY_BYTES_MAX), 0)]).unwrap();
        let long = put(&"k".repeat(KEY_BYTES_MAX + 1), 0);
        assert!(matches!(
            check_ops(&[long]),
            Err(CommitError::BadKey { index: 0, .. })
        ));
        assert!(matches!(
            check_ops(&[put("", 0)]),
            Err(CommitError::BadKey { len: 0, .. })
        ));

        check_ops(&[put("k", COMMIT_BYTES_MAX - 1)]).unwrap();
        let large = put("k", COMMIT_BYTES_MAX);
        assert!(matches!(
            check_ops(&[large]),
            Err(CommitError::TooLarge { .. })
        ));

        let twice = [put("a", 1), put("b", 1), put("a", 1)];
        assert!(matches!(
            check_ops(&twice),
            Err(CommitError::DuplicateKey { index: 2 })
        ));
    }
}
