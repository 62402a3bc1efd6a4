//! The newest batches in memory, and the readers that wait for the next one.
//!
//! Readers hold a cursor, never a queue: a slow reader costs nothing. The ring is bounded in
//! bytes; what falls out is the engine's business (disk for the embedded engine, gone for memory).
//! Invariant: every batch with a revision above `floor` and up to the published one is present.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

use crate::model::{Batch, Rev};

/// How much a ring keeps, in bytes of keys and values.
pub(crate) const HISTORY_BYTES_MAX: usize = 64 << 20;

/// What a batch costs beside its keys and values.
const BATCH_OVERHEAD_BYTES: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) rev: Rev,
    pub(crate) closed: bool,
}

#[derive(Debug)]
pub(crate) struct History {
    ring: RwLock<Ring>,
    published: watch::Sender<Published>,
    bytes_max: usize,
}

#[derive(Debug)]
struct Ring {
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
    floor: Rev,
}

/// What a cursor finds.
#[derive(Debug)]
pub(crate) enum Next {
    /// The first batch above the cursor.
    Batch(Arc<Batch>),
    /// The cursor is at the end.
    End,
    /// The ring begins above the cursor, at this revision.
    Behind(Rev),
}

impl History {
    pub(crate) fn new(at: Rev, bytes_max: usize) -> Self {
        let ring = Ring {
            batches: VecDeque::new(),
            bytes: 0,
            floor: at,
        };
        let (published, _) = watch::channel(Published {
            rev: at,
            closed: false,
        });
        Self {
            ring: RwLock::new(ring),
            published,
            bytes_max,
        }
    }

    /// Appends batches of rising revisions and wakes the readers. Only the writer calls it.
    pub(crate) fn publish(&self, batches: impl IntoIterator<Item = Arc<Batch>>) {
        let mut ring = self.ring.write();
        let mut last = None;
        for batch in batches {
            last = Some(batch.rev);
            ring.bytes += batch.bytes_len() + BATCH_OVERHEAD_BYTES;
            ring.batches.push_back(batch);
        }
        while ring.bytes > self.bytes_max && ring.batches.len() > 1 {
            ring.drop_oldest();
        }
        drop(ring);
        if let Some(rev) = last {
            self.published.send_modify(|published| published.rev = rev);
        }
    }

    /// Drops all batches up to `upto`, which is at most the published revision.
    pub(crate) fn cut(&self, upto: Rev) {
        let mut ring = self.ring.write();
        while ring.batches.front().is_some_and(|batch| batch.rev <= upto) {
            ring.drop_oldest();
        }
        ring.floor = ring.floor.max(upto);
    }

    pub(crate) fn next(&self, after: Rev) -> Next {
        let ring = self.ring.read();
        if after < ring.floor {
            return Next::Behind(ring.floor);
        }
        let index = ring.batches.partition_point(|batch| batch.rev <= after);
        ring.batches
            .get(index)
            .map_or(Next::End, |batch| Next::Batch(Arc::clone(batch)))
    }

    pub(crate) fn published(&self) -> Rev {
        self.published.borrow().rev
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Published> {
        self.published.subscribe()
    }

    /// Ends all readers once they have read what is there.
    pub(crate) fn close(&self) {
        self.published
            .send_modify(|published| published.closed = true);
    }
}

impl Ring {
    fn drop_oldest(&mut self) {
        if let Some(batch) = self.batches.pop_front() {
            self.bytes -= batch.bytes_len() + BATCH_OVERHEAD_BYTES;
            self.floor = batch.rev;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::Change;

    fn batch(rev: u64, len: usize) -> Arc<Batch> {
        let change = Change::Put {
            key: Bytes::from_static(b"k"),
            value: vec![0; len].into(),
        };
        Arc::new(Batch {
            rev: Rev(rev),
            changes: vec![change],
        })
    }

    fn found(history: &History, after: u64) -> String {
        match history.next(Rev(after)) {
            Next::Batch(batch) => format!("batch {}", batch.rev),
            Next::End => "end".to_owned(),
            Next::Behind(floor) => format!("behind {floor}"),
        }
    }

    #[test]
    fn a_ring_drops_its_oldest_batches_at_the_byte_bound() {
        let history = History::new(Rev(1), 3 * (1001 + BATCH_OVERHEAD_BYTES));
        history.publish((2..=4).map(|rev| batch(rev, 1000)));
        assert_eq!(found(&history, 1), "batch 2");
        history.publish([batch(5, 1000)]);
        assert_eq!(found(&history, 1), "behind 2");
        assert_eq!(found(&history, 2), "batch 3");
        assert_eq!(found(&history, 5), "end");
        history.publish([batch(6, 1 << 20)]);
        assert_eq!(found(&history, 5), "batch 6", "one batch always fits");
    }

    #[test]
    fn a_cut_raises_the_floor_also_above_the_last_batch() {
        let history = History::new(Rev(1), HISTORY_BYTES_MAX);
        history.publish([batch(2, 1), batch(4, 1)]);
        history.cut(Rev(3));
        assert_eq!(found(&history, 2), "behind 3");
        assert_eq!(found(&history, 3), "batch 4");
        history.cut(Rev(4));
        assert_eq!(
            (found(&history, 4).as_str(), history.published()),
            ("end", Rev(4))
        );
    }
}
