//! Secrets at rest: what the store holds of them is sealed.
//!
//! Owns: a [`Store`] around the real one that seals the values of some keys on their way in and
//! opens them on their way out, so it is the same for every engine, and nothing above it knows.
//! Must not know: kinds' rules. A value without a seal (of an older release) is read as it is;
//! [`SealedStore::reseal`] rewrites what is not sealed with the present key.

mod keys;
mod seal;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use control_plane_storage::{
    Batch, Caps, Change, ChangeStream, Commit, CommitError, CompactError, Current, Entry, Expect,
    Load, LoadError, Op, Rev, Store, StoreError,
};
use futures::StreamExt as _;

pub use self::keys::SealKeyError;
pub(crate) use self::keys::{SealKeys, load_or_make, rotate};
use self::seal::{is_current, is_sealed, open, seal};

/// What is sealed: store keys that begin so.
const SEALED: &[&[u8]] = &[b"o/core/secrets/"];
/// Values that one commit of a re-seal rewrites.
const RESEAL_BATCH: usize = 64;

/// A store whose secrets are sealed.
pub(crate) struct SealedStore {
    inner: Arc<dyn Store>,
    keys: Arc<SealKeys>,
}

/// What a re-seal did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Resealed {
    /// Values that were rewritten.
    pub(crate) rewritten: usize,
    /// Values that carried the present key's seal already.
    pub(crate) current: usize,
}

fn is_secret(key: &[u8]) -> bool {
    SEALED.iter().any(|prefix| key.starts_with(prefix))
}

impl SealedStore {
    pub(crate) fn new(inner: Arc<dyn Store>, keys: Arc<SealKeys>) -> Self {
        Self { inner, keys }
    }

    fn sealed(&self, op: Op) -> Result<Op, CommitError> {
        match op {
            Op::Put {
                key,
                value,
                expect,
                ttl,
            } if is_secret(&key) => {
                let value = seal(&self.keys, &key, &value).map_err(|fault| {
                    CommitError::Unavailable(StoreError::with("seal a secret", fault))
                })?;
                Ok(Op::Put {
                    key,
                    value,
                    expect,
                    ttl,
                })
            }
            other @ (Op::Put { .. } | Op::Delete { .. } | Op::Check { .. }) => Ok(other),
        }
    }

    /// Rewrites every secret that is not sealed with the present key. What is written meanwhile is
    /// sealed with it anyhow, so a lost race needs no second try.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) async fn reseal(&self) -> Result<Resealed, StoreError> {
        let mut done = Resealed::default();
        for prefix in SEALED {
            let failed = |fault| StoreError::with("read the secrets to seal them anew", fault);
            let mut load = self.inner.load(prefix).await.map_err(failed)?;
            while let Some(page) = load.pages.next().await {
                let page = page.map_err(failed)?;
                let (current, old): (Vec<Entry>, Vec<Entry>) = page
                    .into_iter()
                    .partition(|entry| is_current(&self.keys, &entry.value));
                done.current += current.len();
                for batch in old.chunks(RESEAL_BATCH) {
                    done.rewritten += self.rewrite(batch).await?;
                }
            }
        }
        Ok(done)
    }

    async fn rewrite(&self, entries: &[Entry]) -> Result<usize, StoreError> {
        let mut ops = Vec::with_capacity(entries.len());
        for entry in entries {
            let value = opened(&self.keys, &entry.key, &entry.value)?;
            let value = seal(&self.keys, &entry.key, &value)
                .map_err(|fault| StoreError::with("seal a secret anew", fault))?;
            ops.push(Op::put(entry.key.clone(), value, Expect::Rev(entry.rev)));
        }
        match self.inner.commit(ops.clone()).await {
            Ok(_) => return Ok(ops.len()),
            Err(CommitError::Conflict { .. } | CommitError::TooLarge { .. }) => {}
            Err(fault) => return Err(StoreError::with("write the secrets sealed anew", fault)),
        }
        let mut written = 0;
        for op in ops {
            match self.inner.commit(vec![op]).await {
                Ok(_) => written += 1,
                // Somebody wrote it meanwhile, sealed.
                Err(CommitError::Conflict { .. }) => {}
                Err(fault) => {
                    return Err(StoreError::with("write a secret sealed anew", fault));
                }
            }
        }
        Ok(written)
    }
}

/// The value that was sealed; one without a seal as it is.
fn opened(keys: &SealKeys, key: &[u8], value: &Bytes) -> Result<Bytes, StoreError> {
    if !is_secret(key) || !is_sealed(value) {
        return Ok(value.clone());
    }
    open(keys, key, value).map_err(|fault| {
        let what = format!(
            "open the sealed value of {}; is the key file the one it was sealed with?",
            String::from_utf8_lossy(key)
        );
        StoreError::with(what, fault)
    })
}

#[async_trait]
impl Store for SealedStore {
    async fn commit(&self, ops: Vec<Op>) -> Result<Commit, CommitError> {
        let sealed: Result<Vec<Op>, CommitError> =
            ops.into_iter().map(|op| self.sealed(op)).collect();
        let sealed = sealed?;
        let keys: Vec<Bytes> = sealed.iter().map(|op| op.key().clone()).collect();
        let committed = self.inner.commit(sealed).await;
        committed.map_err(|fault| opened_conflict(&self.keys, &keys, fault))
    }

    async fn load(&self, prefix: &[u8]) -> Result<Load, LoadError> {
        let load = self.inner.load(prefix).await?;
        let keys = Arc::clone(&self.keys);
        let pages = load.pages.map(move |page| {
            let mut page = page?;
            for entry in &mut page {
                // A secret that cannot be read must stop the start: a cluster without it would
                // make a new one over it.
                entry.value = opened(&keys, &entry.key, &entry.value).map_err(LoadError::Failed)?;
            }
            Ok(page)
        });
        Ok(Load {
            rev: load.rev,
            pages: pages.boxed(),
        })
    }

    fn changes(&self, after: Rev) -> ChangeStream {
        let keys = Arc::clone(&self.keys);
        let changes = self.inner.changes(after);
        let opened = changes.map(move |batch| batch.map(|batch| open_batch(&keys, batch)));
        opened.boxed()
    }

    async fn barrier(&self) -> Result<Rev, StoreError> {
        self.inner.barrier().await
    }

    async fn compact(&self, upto: Rev) -> Result<(), CompactError> {
        self.inner.compact(upto).await
    }

    fn caps(&self) -> Caps {
        self.inner.caps()
    }
}

/// The conflict with the present value opened; other faults as they are.
fn opened_conflict(keys: &SealKeys, names: &[Bytes], fault: CommitError) -> CommitError {
    let CommitError::Conflict {
        index,
        current: Some(current),
    } = &fault
    else {
        return fault;
    };
    let value = names
        .get(*index)
        .and_then(|name| opened(keys, name, &current.value).ok());
    match value {
        Some(value) => CommitError::Conflict {
            index: *index,
            current: Some(Current {
                value,
                rev: current.rev,
            }),
        },
        None => fault,
    }
}

/// The batch with its secrets opened. One that cannot be opened stays sealed: the cache tells that
/// it cannot read it.
fn open_batch(keys: &SealKeys, batch: Arc<Batch>) -> Arc<Batch> {
    let sealed = |change: &Change| match change {
        Change::Put { key, value } => is_secret(key) && is_sealed(value),
        Change::Delete { .. } => false,
    };
    if !batch.changes.iter().any(sealed) {
        return batch;
    }
    let mut batch = Arc::unwrap_or_clone(batch);
    for change in &mut batch.changes {
        if let Change::Put { key, value } = change
            && let Ok(plain) = opened(keys, key, value)
        {
            *value = plain;
        }
    }
    Arc::new(batch)
}

#[cfg(test)]
mod tests;
