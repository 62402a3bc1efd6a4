//! The audit log: who asked for what, when, and what became of it.
//!
//! Owns: the policy (`audit.k8s.io/v1` Policy), the events, the file. Must not know: kinds. Writing
//! never delays a request: events go into a bounded queue, and what does not fit is counted as
//! dropped. One event a line, as JSON.

mod event;
mod file;
mod policy;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

pub(crate) use self::event::{Asked, Trail};
pub(crate) use self::file::write;
pub use self::policy::{AuditPolicy, AuditPolicyError};

/// Events that wait for the disk.
const QUEUE_EVENTS: usize = 16_384;

/// What is logged, and where.
#[derive(Debug, Clone)]
pub struct AuditConfig {
    /// What is logged.
    pub policy: Arc<AuditPolicy>,
    /// The file; it is made with mode 0600.
    pub path: PathBuf,
    /// The file is put aside when it has grown to so many bytes.
    pub bytes_max: u64,
    /// How many files that were put aside are kept.
    pub backups: usize,
}

/// Where events go. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct AuditLog {
    policy: Arc<AuditPolicy>,
    queue: mpsc::Sender<Bytes>,
    counts: Arc<Counts>,
}

/// What became of events.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    logged: AtomicU64,
    dropped: AtomicU64,
}

impl Counts {
    pub(crate) fn logged(&self) -> u64 {
        self.logged.load(Ordering::Relaxed)
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(crate) fn add_dropped(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }
}

impl AuditLog {
    /// A log, and the end of its queue that [`write()`] empties.
    pub(crate) fn new(policy: Arc<AuditPolicy>) -> (Self, mpsc::Receiver<Bytes>) {
        let (queue, events) = mpsc::channel(QUEUE_EVENTS);
        let log = Self {
            policy,
            queue,
            counts: Arc::default(),
        };
        (log, events)
    }

    pub(crate) const fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    fn emit(&self, line: Bytes) {
        let count = match self.queue.try_send(line) {
            Ok(()) => &self.counts.logged,
            Err(_full) => &self.counts.dropped,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
