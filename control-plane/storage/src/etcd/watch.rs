//! One stream of changes from etcd: survives disconnects without losing or repeating a revision.
//!
//! A watch starts *at* the last delivered revision, not after it, and drops what it has seen. That
//! makes the server's answer to "was it compacted?" the store's: revisions below the compaction
//! are refused, the compacted one itself is not.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{Client, EventType, WatchOptions, WatchResponse, WatchStream};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::ChangesError;
use crate::etcd::call::CallError;
use crate::etcd::members::Repeat;
use crate::etcd::{ANSWER_BYTES_MAX, EtcdStore, Progress, revision, signed, unsigned};
use crate::model::{Batch, Change, Rev};

/// How long a barrier's revision may be missing before the stream asks for it, and asks again.
const NUDGE_AFTER: Duration = Duration::from_millis(5);
const NUDGE_AGAIN: Duration = Duration::from_millis(100);
/// How long a member may not tell of a revision that exists before another one is asked.
const STALLED_AFTER: Duration = Duration::from_secs(1);
/// How long a member may take to begin a watch.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);
/// Between attempts to connect.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_millis(500);

pub(crate) struct Watcher {
    store: EtcdStore,
    wanted: watch::Receiver<Rev>,
    stream: Option<WatchStream>,
    /// The member that the stream is of.
    turn: usize,
    /// Since when a revision is missing.
    behind_since: Option<Instant>,
    /// The newest revision handed out, or read and waiting in `ready`.
    seen: Rev,
    ready: VecDeque<Arc<Batch>>,
    /// Batches of a response that the server split.
    partial: Vec<Batch>,
    retry_after: Duration,
    nudge_at: Option<Instant>,
}

impl Watcher {
    pub(crate) fn new(store: EtcdStore, wanted: watch::Receiver<Rev>, after: Rev) -> Self {
        Self {
            store,
            wanted,
            stream: None,
            turn: 0,
            behind_since: None,
            seen: after,
            ready: VecDeque::new(),
            partial: Vec::new(),
            retry_after: RETRY_FIRST,
            nudge_at: None,
        }
    }

    pub(crate) async fn next(&mut self) -> Result<Arc<Batch>, ChangesError> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(batch);
            }
            let Some(stream) = &mut self.stream else {
                self.open().await?;
                continue;
            };
            let behind = *self.wanted.borrow_and_update() > self.seen;
            let nudge_at = behind.then(|| {
                *self
                    .nudge_at
                    .get_or_insert_with(|| Instant::now() + NUDGE_AFTER)
            });
            // All branches are cancel-safe: a message is taken or it is not.
            tokio::select! {
                message = stream.message() => match message {
                    Ok(Some(message)) => self.take(message).await?,
                    Ok(None) => self.lost("it was closed"),
                    Err(error) => self.lost(&error.to_string()),
                },
                () = sleep_until(nudge_at) => self.nudge().await,
                _ = self.wanted.changed(), if nudge_at.is_none() => {}
            }
        }
    }

    async fn open(&mut self) -> Result<(), ChangesError> {
        if self.seen < Rev::FIRST {
            return Err(ChangesError::Compacted {
                after: self.seen,
                compacted: Rev::FIRST,
            });
        }
        let (start, end) = self.store.keys.watched();
        let options = WatchOptions::new()
            .with_range(end)
            .with_start_revision(signed(self.seen))
            .with_progress_notify()
            .with_fragment();
        let (turn, client) = self.store.members.current();
        self.turn = turn;
        let client = client.watch_client();
        let mut client = client.max_decoding_message_size(ANSWER_BYTES_MAX);
        let opened = tokio::time::timeout(OPEN_TIMEOUT, client.watch(start, Some(options)));
        match opened.await {
            Ok(Ok(stream)) => self.stream = Some(stream),
            Ok(Err(error)) => {
                let error = CallError::Etcd(error);
                self.lost(&error.fault("watch etcd").to_string());
                self.pause().await;
            }
            Err(_) => {
                self.lost("no answer");
                self.pause().await;
            }
        }
        Ok(())
    }

    async fn pause(&mut self) {
        tokio::time::sleep(self.retry_after).await;
        self.retry_after = (self.retry_after * 2).min(RETRY_MAX);
    }

    fn lost(&mut self, why: &str) {
        self.store.members.leave(self.turn);
        tracing::warn!(revision = %self.seen, why, "watch on etcd lost, trying again");
        self.stream = None;
        self.partial.clear();
        self.nudge_at = None;
        self.behind_since = None;
    }

    async fn take(&mut self, message: WatchResponse) -> Result<(), ChangesError> {
        let at = revision(message.header()).map_err(ChangesError::Failed)?;
        if message.canceled() {
            if message.compact_revision() > 0 {
                let compacted = unsigned(message.compact_revision());
                return Err(ChangesError::Compacted {
                    after: self.seen,
                    compacted,
                });
            }
            self.lost(message.cancel_reason());
            self.pause().await;
            return Ok(());
        }
        if message.created() {
            self.retry_after = RETRY_FIRST;
            return self.check_future(at).await;
        }
        if message.events().is_empty() {
            if at > self.seen && self.partial.is_empty() {
                self.push(Batch {
                    rev: at,
                    changes: Vec::new(),
                });
            }
            return Ok(());
        }
        self.gather(&message);
        if !message.0.fragment {
            for batch in std::mem::take(&mut self.partial) {
                self.push(batch);
            }
        }
        Ok(())
    }

    fn push(&mut self, batch: Batch) {
        self.seen = batch.rev;
        self.nudge_at = None;
        self.behind_since = None;
        self.ready.push_back(Arc::new(batch));
    }

    fn gather(&mut self, message: &WatchResponse) {
        for event in message.events() {
            let Some(kv) = event.kv() else { continue };
            let rev = unsigned(kv.mod_revision());
            if rev <= self.seen {
                continue;
            }
            if self.partial.last().is_none_or(|batch| batch.rev != rev) {
                self.partial.push(Batch {
                    rev,
                    changes: Vec::new(),
                });
            }
            let Some(key) = self.store.keys.ours(&Bytes::copy_from_slice(kv.key())) else {
                continue;
            };
            let change = match event.event_type() {
                EventType::Put => Change::Put {
                    key,
                    value: Bytes::copy_from_slice(kv.value()),
                },
                EventType::Delete => Change::Delete { key },
            };
            if let Some(batch) = self.partial.last_mut() {
                batch.changes.push(change);
            }
        }
    }

    /// A member may lag, so its word is checked with the cluster before the stream gives up.
    async fn check_future(&self, at: Rev) -> Result<(), ChangesError> {
        if at >= self.seen {
            return Ok(());
        }
        match self.store.read_revision().await {
            Ok(current) if current < self.seen => Err(ChangesError::Future {
                after: self.seen,
                current,
            }),
            Ok(_) => Ok(()),
            Err(error) => Err(ChangesError::Failed(error)),
        }
    }

    async fn nudge(&mut self) {
        let since = *self.behind_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= STALLED_AFTER {
            self.lost("the member does not tell of a revision that exists");
            return;
        }
        self.nudge_at = Some(Instant::now() + NUDGE_AGAIN);
        let nudged = match self.store.progress {
            Progress::Request => match &mut self.stream {
                Some(stream) => stream.request_progress().await.map_err(CallError::Etcd),
                None => Ok(()),
            },
            Progress::Write => {
                let put = |client: Client| {
                    let (mut kv, key) = (client.kv_client(), self.store.keys.progress.clone());
                    async move { kv.put(key, Vec::new(), None).await }
                };
                self.store.members.call(Repeat::Always, put).await.map(drop)
            }
        };
        if let Err(error) = nudged {
            tracing::debug!(error = %error.fault("ask etcd for progress"), "no progress");
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
