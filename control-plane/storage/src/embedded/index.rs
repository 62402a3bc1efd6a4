//! Which record holds the newest value of each key, and which keys expire when.
//!
//! Pure and in memory. The map is persistent, so a snapshot of it is one pointer.

use std::collections::BTreeSet;

use bytes::Bytes;
use imbl::OrdMap;

use crate::embedded::record::Place;
use crate::model::{Expect, Op, holds};

/// A key's newest record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) place: Place,
    /// In milliseconds since 1970.
    pub(crate) deadline_ms: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    slots: OrdMap<Bytes, Slot>,
    deadlines: BTreeSet<(u64, Bytes)>,
}

impl Index {
    /// Number of keys.
    pub(crate) fn len(&self) -> u64 {
        self.slots.len() as u64
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<Slot> {
        self.slots.get(key).copied()
    }

    /// Sets a key's record and returns the one before.
    pub(crate) fn insert(&mut self, key: Bytes, slot: Slot) -> Option<Slot> {
        let before = self.slots.insert(key.clone(), slot);
        self.forget_deadline(before, &key);
        if let Some(deadline) = slot.deadline_ms {
            self.deadlines.insert((deadline, key));
        }
        before
    }

    pub(crate) fn remove(&mut self, key: &Bytes) -> Option<Slot> {
        let before = self.slots.remove(key)?;
        self.forget_deadline(Some(before), key);
        Some(before)
    }

    fn forget_deadline(&mut self, before: Option<Slot>, key: &Bytes) {
        if let Some(deadline) = before.and_then(|slot| slot.deadline_ms) {
            self.deadlines.remove(&(deadline, key.clone()));
        }
    }

    /// The first operation whose expectation fails, with the key's record.
    pub(crate) fn conflict(&self, ops: &[Op]) -> Option<(usize, Option<Slot>)> {
        ops.iter().enumerate().find_map(|(index, op)| {
            let slot = self.get(op.key());
            let met = holds(op.expect(), slot.map(|slot| slot.place.rev));
            (!met).then_some((index, slot))
        })
    }

    /// When the next key expires.
    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Deletes for keys that expired by `now_ms`, at most `max`.
    pub(crate) fn expired(&self, now_ms: u64, max: usize) -> Vec<Op> {
        self.deadlines
            .iter()
            .take_while(|(deadline, _)| *deadline <= now_ms)
            .take(max)
            .map(|(_, key)| Op::Delete {
                key: key.clone(),
                expect: Expect::Any,
            })
            .collect()
    }

    /// Whether this record is a key's newest.
    pub(crate) fn is_live(&self, key: &[u8], place: Place) -> bool {
        self.get(key).is_some_and(|slot| slot.place == place)
    }

    /// Keys that start with `prefix`, after `last`, in order, at most `max`.
    pub(crate) fn page(
        &self,
        prefix: &Bytes,
        last: Option<&Bytes>,
        max: usize,
    ) -> Vec<(Bytes, Slot)> {
        use std::ops::Bound;
        let from = last.map_or(Bound::Included(prefix), Bound::Excluded);
        self.slots
            .range((from.cloned(), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(max)
            .map(|(key, slot)| (key.clone(), *slot))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Rev;

    fn slot(rev: u64, deadline_ms: Option<u64>) -> Slot {
        Slot {
            place: Place::first_of(Rev(rev)),
            deadline_ms,
        }
    }

    fn expired(index: &Index, now_ms: u64, max: usize) -> Vec<Bytes> {
        index
            .expired(now_ms, max)
            .iter()
            .map(|op| op.key().clone())
            .collect()
    }

    #[test]
    fn a_key_expires_at_its_newest_deadline_only() {
        let mut index = Index::default();
        index.insert("a".into(), slot(2, Some(100)));
        index.insert("b".into(), slot(3, Some(50)));
        index.insert("c".into(), slot(4, Some(70)));
        assert_eq!(index.next_deadline_ms(), Some(50));
        index.insert("b".into(), slot(5, None));
        index.remove(&"c".into());
        assert_eq!(index.next_deadline_ms(), Some(100));
        assert_eq!(expired(&index, 99, 9), Vec::<Bytes>::new());
        assert_eq!(expired(&index, 100, 9), ["a"]);
        index.insert("d".into(), slot(6, Some(10)));
        assert_eq!(expired(&index, 100, 1), ["d"]);
    }

    #[test]
    fn a_page_holds_the_keys_of_the_prefix_after_the_last_one() {
        let mut index = Index::default();
        for (n, key) in ["a", "b/1", "b/2", "b/3", "c"].into_iter().enumerate() {
            index.insert(key.into(), slot(n as u64 + 2, None));
        }
        let keys = |prefix: &'static str, last: Option<&'static str>, max| -> Vec<Bytes> {
            let last = last.map(Bytes::from);
            index
                .page(&prefix.into(), last.as_ref(), max)
                .into_iter()
                .map(|(key, _)| key)
                .collect()
        };
        assert_eq!(keys("b/", None, 2), ["b/1", "b/2"]);
        assert_eq!(keys("b/", Some("b/2"), 2), ["b/3"]);
        assert_eq!(keys("", None, 9).len(), 5);
    }
}
