//! One node's stream: what it lacks goes down, batch by batch, as fast as it reads.
//!
//! The only queue is a short channel to the connection: while it is full (the node does not read),
//! nothing is taken from the index, and later the newest versions are. So a slow node costs no memory
//! here, whatever the rate of changes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proto::agent::v1 as pb;
use proto::agent::v1::server_message::Message;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::index::{Delta, Index};
use crate::lag::Progress;

/// Bodies in one batch, about.
pub(crate) const BATCH_BYTES_MAX: usize = 256 << 10;
/// Messages that wait for the connection.
pub(crate) const DOWN_QUEUE: usize = 4;

/// To the node.
pub(crate) type Down = mpsc::Sender<Result<pb::ServerMessage, Status>>;

/// What a stream needs.
pub(crate) struct NodeStream {
    pub(crate) node: String,
    pub(crate) index: Arc<Index>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) down: Down,
    pub(crate) stop: CancellationToken,
}

/// Wraps a message.
pub(crate) fn message(message: Message) -> pb::ServerMessage {
    pb::ServerMessage {
        message: Some(message),
    }
}

impl NodeStream {
    /// Sends state and changes until the node goes away or the stream is stopped.
    pub(crate) async fn run(self, hello: pb::Hello, welcome: pb::Welcome) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            // The receiver is gone: the node left.
            _end = self.send_all(hello, welcome) => {}
        }
    }

    async fn send_all(&self, hello: pb::Hello, welcome: pb::Welcome) -> Option<()> {
        let mut wakers = self.index.wakers(&self.node);
        let same_epoch = hello.epoch == welcome.epoch;
        let resumes = same_epoch && self.index.can_resume(&self.node, hello.sequence);
        self.send(Message::Welcome(welcome)).await?;
        let mut sent = if resumes { hello.sequence } else { 0 };
        let mut snapshot = !resumes;
        let mut revision = 0;
        loop {
            wakers.cluster.mark_unchanged();
            wakers.node.mark_unchanged();
            let delta = self.index.since(&self.node, sent, BATCH_BYTES_MAX);
            let more = delta.more;
            sent = delta.upto;
            let in_sync_due = !more && (snapshot || revision == 0);
            if !(delta.upserts.is_empty() && delta.removes.is_empty()) {
                let triggered = if snapshot { None } else { trigger(&delta) };
                let batch = batch(delta, snapshot, triggered, &mut revision);
                self.progress.sent(&self.node, sent, triggered);
                self.send(Message::Batch(batch)).await?;
            }
            if in_sync_due {
                revision = revision.max(1);
                snapshot = false;
                self.send(Message::InSync(pb::InSync {
                    sequence: sent,
                    revision,
                }))
                .await?;
            }
            if more {
                continue;
            }
            // Cancel-safe: `changed` only looks.
            tokio::select! {
                changed = wakers.cluster.changed() => changed.ok()?,
                changed = wakers.node.changed() => changed.ok()?,
            }
        }
    }

    async fn send(&self, item: Message) -> Option<()> {
        self.down.send(Ok(message(item))).await.ok()
    }
}

/// When the oldest change of a delta was committed. A config map or secret says nothing: it may be
/// old and only now be wanted.
fn trigger(delta: &Delta) -> Option<SystemTime> {
    let changes = delta.upserts.iter().filter(|(key, _)| match key.kind {
        pb::Type::ConfigMap | pb::Type::Secret | pb::Type::Unspecified => false,
        pb::Type::Pod | pb::Type::Service | pb::Type::Endpoints | pb::Type::NodeRoute => true,
    });
    changes.map(|(_, item)| item.seen).min()
}

fn batch(
    delta: Delta,
    snapshot: bool,
    triggered: Option<SystemTime>,
    revision: &mut u64,
) -> pb::Batch {
    let upserts: Vec<pb::Upsert> = delta
        .upserts
        .into_iter()
        .map(|(key, item)| pb::Upsert {
            r#type: key.kind.into(),
            key: key.key.to_string(),
            version: item.version,
            body: item.body(),
        })
        .collect();
    let newest = upserts
        .iter()
        .map(|upsert| upsert.version)
        .max()
        .unwrap_or(0);
    *revision = (*revision).max(newest);
    let remove = |(key, version): (crate::item::ItemKey, u64)| pb::Remove {
        r#type: key.kind.into(),
        key: key.key.to_string(),
        version,
    };
    pb::Batch {
        sequence: delta.upto,
        revision: *revision,
        snapshot,
        upserts,
        removes: delta.removes.into_iter().map(remove).collect(),
        trigger_unix_us: triggered.map_or(0, unix_us),
    }
}

fn unix_us(time: SystemTime) -> u64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
