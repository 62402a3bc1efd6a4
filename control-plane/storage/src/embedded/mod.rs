//! The embedded engine: a durable store in a directory, for one process.
//!
//! Callers put commands into a bounded queue; one thread (`writer.rs`) owns the log and the
//! index. Readers of changes take them from memory, and from the log when they are far behind.

mod dir;
mod index;
mod journal;
mod log;
mod record;
mod restore;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::{ChangesError, CommitError, CompactError, LoadError, OpenError, StoreError};
use crate::history::{History, Next, Published};
use crate::model::{Batch, Caps, Commit, Entry, Op, Rev, check_ops};
use crate::store::{ChangeStream, Load, Store};

use self::dir::DataDir;
use self::log::{Log, Recovered};
use self::writer::{Command, LoadStart, Shared, Writer};

/// Commands that may wait for the writer; more callers wait to enqueue.
const QUEUE_MAX: usize = 1024;
/// Entries of one page of a snapshot.
const PAGE_ENTRIES: usize = 500;
/// Bytes of one page, about.
const PAGE_BYTES: usize = 4 << 20;
/// What must fit on the disk before the store is opened.
const PROBE_BYTES: usize = 4096;
/// Bytes that a stream far behind reads from the log at once.
const CATCH_UP_BYTES: usize = 1 << 20;

/// Bytes of recent batches kept in memory; streams further behind read the log.
const RECENT_BYTES_MAX: usize = 8 << 20;

/// A durable store in a directory.
#[derive(Debug)]
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    /// `None` only while it is dropped.
    queue: Option<mpsc::Sender<Command>>,
    writer: Option<JoinHandle<()>>,
}

impl EmbeddedStore {
    /// Opens the store in `dir`, which is made if it is missing, and checks every record in it.
    ///
    /// # Errors
    /// [`OpenError`]. A store that is locked, of another format or corrupt is not opened.
    pub async fn open(dir: impl Into<PathBuf>) -> Result<Self, OpenError> {
        let dir = dir.into();
        tokio::task::spawn_blocking(move || Self::open_blocking(&dir))
            .await
            .map_err(|error| StoreError::with("open the store", error))?
    }

    /// Makes a store in `dir`, which must hold none, from a snapshot of revision `rev`. Entries keep
    /// their revisions; the store begins at the returned one, far above, so that whoever followed
    /// the old store lists again.
    ///
    /// # Errors
    /// [`OpenError`]; what was written until then is no store.
    pub async fn restore(
        dir: impl Into<PathBuf>,
        rev: Rev,
        entries: Vec<Entry>,
    ) -> Result<Rev, OpenError> {
        let dir = dir.into();
        tokio::task::spawn_blocking(move || restore::restore(&dir, rev, entries))
            .await
            .map_err(|error| StoreError::with("restore the store", error))?
    }

    fn open_blocking(dir: &Path) -> Result<Self, OpenError> {
        let dir = DataDir::open(dir)?;
        // A disk that takes no writes is better said now than with the first commit.
        dir.probe(PROBE_BYTES)?;
        let head = dir.head()?;
        let log = Log::open(&dir)?;
        let Recovered {
            index,
            rev,
            compacted,
        } = log.recover(head)?;
        tracing::info!(
            dir = %dir.path().display(), revision = %rev, %compacted, keys = index.len(),
            "store opened"
        );
        let shared = Arc::new(Shared {
            log: RwLock::new(Some(log)),
            history: History::new(rev, RECENT_BYTES_MAX),
            compacted: AtomicU64::new(compacted.0),
        });
        let writer = Writer {
            dir,
            shared: Arc::clone(&shared),
            index,
            rev,
            failed: None,
        };
        let (queue, commands) = mpsc::channel(QUEUE_MAX);
        let timer = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| StoreError::with("start the store's timer", error))?;
        let writer = std::thread::Builder::new()
            .name("storage-writer".to_owned())
            .spawn(move || writer.run(commands, &timer))
            .map_err(|error| StoreError::with("start the store's writer thread", error))?;
        Ok(Self {
            shared,
            queue: Some(queue),
            writer: Some(writer),
        })
    }

    /// Waits until everything queued is written and the directory is free again.
    pub async fn close(mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            // The thread ends when the queue is drained; a panic in it was reported already.
            drop(tokio::task::spawn_blocking(move || writer.join()).await);
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.queue.as_ref()?.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            drop(writer.join());
        }
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn commit(&self, ops: Vec<Op>) -> Result<Commit, CommitError> {
        check_ops(&ops)?;
        self.ask(|reply| Command::Commit { ops, reply })
            .await
            .unwrap_or(Err(CommitError::Closed))
    }

    async fn load(&self, prefix: &[u8]) -> Result<Load, LoadError> {
        let start = self
            .ask(|reply| Command::Load { reply })
            .await
            .ok_or(LoadError::Closed)?;
        let start = Arc::new(start.map_err(LoadError::Failed)?);
        let rev = start.rev;
        let from = Some((start, Bytes::copy_from_slice(prefix), None));
        let pages = stream::unfold(from, |from| async move {
            let (start, prefix, last) = from?;
            let reader = Arc::clone(&start);
            let place = (prefix.clone(), last);
            let page = blocking(move || page(&reader, &place.0, place.1.as_ref())).await;
            match page {
                Ok(page) => {
                    let last = page.last()?.key.clone();
                    Some((Ok(page), Some((start, prefix, Some(last)))))
                }
                Err(error) => Some((Err(LoadError::Failed(error)), None)),
            }
        });
        Ok(Load {
            rev,
            pages: pages.boxed(),
        })
    }

    fn changes(&self, after: Rev) -> ChangeStream {
        let reader = Reader {
            shared: Arc::clone(&self.shared),
            published: self.shared.history.subscribe(),
            after,
            ready: Vec::new().into_iter(),
        };
        stream::unfold(Some(reader), |reader| async move {
            let mut reader = reader?;
            match reader.next().await {
                Ok(batch) => Some((Ok(batch), Some(reader))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    async fn barrier(&self) -> Result<Rev, StoreError> {
        Ok(self.shared.history.published())
    }

    async fn compact(&self, upto: Rev) -> Result<(), CompactError> {
        let answer = self.ask(|reply| Command::Compact { upto, reply }).await;
        answer.unwrap_or(Err(CompactError::Closed))
    }

    fn caps(&self) -> Caps {
        Caps {
            engine: "embedded",
            durable: true,
            multi_writer: false,
            progress: false,
        }
    }
}

/// One stream's place.
struct Reader {
    shared: Arc<Shared>,
    published: watch::Receiver<Published>,
    after: Rev,
    /// Batches read from the log that were not handed out yet.
    ready: std::vec::IntoIter<Arc<Batch>>,
}

impl Reader {
    async fn next(&mut self) -> Result<Arc<Batch>, ChangesError> {
        let batch = match self.ready.next() {
            Some(batch) => batch,
            None => self.find().await?,
        };
        self.after = batch.rev;
        Ok(batch)
    }

    async fn find(&mut self) -> Result<Arc<Batch>, ChangesError> {
        let after = self.after;
        loop {
            let Published {
                rev: current,
                closed,
            } = *self.published.borrow_and_update();
            if after > current {
                return Err(ChangesError::Future { after, current });
            }
            let compacted = Rev(self.shared.compacted.load(Ordering::Relaxed));
            if after < compacted {
                return Err(ChangesError::Compacted { after, compacted });
            }
            match self.shared.history.next(after) {
                Next::Batch(batch) => return Ok(batch),
                Next::Behind(_) => {
                    self.catch_up(current).await?;
                    if let Some(batch) = self.ready.next() {
                        return Ok(batch);
                    }
                }
                Next::End if closed => return Err(ChangesError::Closed),
                Next::End => {
                    if self.published.changed().await.is_err() {
                        return Err(ChangesError::Closed);
                    }
                }
            }
        }
    }

    /// Reads a piece of the log, up to what is published.
    async fn catch_up(&mut self, upto: Rev) -> Result<(), ChangesError> {
        let (after, shared) = (self.after, Arc::clone(&self.shared));
        let read = move || {
            let view = shared.view()?;
            let compacted = view.compacted()?;
            if after < compacted {
                return Ok(Err(ChangesError::Compacted { after, compacted }));
            }
            view.batches(after, upto, CATCH_UP_BYTES).map(Ok)
        };
        self.ready = blocking(read)
            .await
            .map_err(ChangesError::Failed)??
            .into_iter();
        Ok(())
    }
}

fn page(start: &LoadStart, prefix: &Bytes, last: Option<&Bytes>) -> Result<Vec<Entry>, StoreError> {
    let mut page = Vec::new();
    let mut bytes = 0;
    for (key, slot) in start.index.page(prefix, last, PAGE_ENTRIES) {
        let record = start.view.get(slot.place)?;
        let value = Bytes::copy_from_slice(record.value.as_deref().unwrap_or_default());
        bytes += key.len() + value.len();
        page.push(Entry {
            key,
            value,
            rev: slot.place.rev,
        });
        if bytes >= PAGE_BYTES {
            break;
        }
    }
    Ok(page)
}

/// Reads files on a thread that may wait for them.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(read)
        .await
        .unwrap_or_else(|error| Err(StoreError::with("read the store", error)))
}
