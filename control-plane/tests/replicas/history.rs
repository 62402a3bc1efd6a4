//! What clients saw, judged afterwards.
//!
//! Every write of an object has a resourceVersion of its own, and all are of one order. So a history of
//! one object can be explained by single steps in that order exactly when the order agrees with real
//! time: whatever ended before something else began has no newer version than it, and a write has an
//! older one. That needs no search.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, ensure};

/// One operation on one object that was answered.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    pub(crate) kind: Kind,
    /// The version that was read, or made.
    pub(crate) version: u64,
    pub(crate) value: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
}

/// Whether the operations of one object can have happened one after the other.
pub(crate) fn linearizable(mut operations: Vec<Operation>) -> anyhow::Result<()> {
    let mut values = BTreeMap::new();
    for operation in &operations {
        let known = *values.entry(operation.version).or_insert(operation.value);
        ensure!(
            known == operation.value,
            "two values of one version: {operation:?}, {known}"
        );
    }
    let writes = |operations: &[Operation]| {
        operations
            .iter()
            .filter(|one| one.kind == Kind::Write)
            .count()
    };
    let mut made: Vec<u64> = operations
        .iter()
        .filter(|one| one.kind == Kind::Write)
        .map(|one| one.version)
        .collect();
    made.sort_unstable();
    made.dedup();
    ensure!(
        made.len() == writes(&operations),
        "two writes have one version"
    );

    // By begin; beside it the newest version of what had ended by then.
    operations.sort_by_key(|operation| operation.began);
    let mut by_end = operations.clone();
    by_end.sort_by_key(|operation| operation.ended);
    let mut ended = by_end.iter().peekable();
    let mut newest: Option<&Operation> = None;
    for operation in &operations {
        while let Some(one) = ended.next_if(|one| one.ended < operation.began) {
            if newest.is_none_or(|before| before.version < one.version) {
                newest = Some(one);
            }
        }
        let Some(before) = newest else { continue };
        let follows = match operation.kind {
            Kind::Read => operation.version >= before.version,
            Kind::Write => operation.version > before.version,
        };
        ensure!(follows, "{operation:?} began after {before:?} had ended");
    }
    Ok(())
}

/// What one watcher was told, over all its connections.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    /// Versions of events, in the order in which they came.
    pub(crate) events: Vec<u64>,
    /// Everything up to here is known: by list, event or bookmark.
    pub(crate) position: u64,
    pub(crate) connections: u32,
    /// Positions that were left by listing again, with where the list was.
    pub(crate) relists: Vec<(u64, u64)>,
}

impl Watched {
    /// Takes an event; it must be newer than everything before.
    pub(crate) fn event(&mut self, version: u64) -> anyhow::Result<()> {
        ensure!(
            version > self.position,
            "an event of {version} after {} was known: repeated or out of order",
            self.position
        );
        self.position = version;
        self.events.push(version);
        Ok(())
    }

    /// Takes a bookmark; it may not go back.
    pub(crate) fn bookmark(&mut self, version: u64) -> anyhow::Result<()> {
        ensure!(
            version >= self.position,
            "a bookmark of {version} after {}",
            self.position
        );
        self.position = version;
        Ok(())
    }

    /// Whether every change after `from` was told, or was in a list. `changes`: all there were.
    pub(crate) fn complete(&self, from: u64, changes: &[u64]) -> anyhow::Result<()> {
        let listed = |version: u64| {
            let mut relists = self.relists.iter();
            relists.any(|(left, list)| (*left..=*list).contains(&version))
        };
        let mut events = self.events.iter().copied().peekable();
        for version in changes.iter().copied().filter(|version| *version > from) {
            match events.next_if(|event| *event <= version) {
                Some(event) if event == version => {}
                Some(event) => anyhow::bail!("an event of {event}, which nobody wrote"),
                None => ensure!(listed(version), "the change of {version} was not told"),
            }
        }
        let more = events.next();
        more.map_or(Ok(()), |event| Err(anyhow::anyhow!("an event of {event}")))
            .context("after the last change")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn operation(kind: Kind, began: u64, ended: u64, version: u64) -> Operation {
        let start = Instant::now();
        Operation {
            began: start + Duration::from_secs(began),
            ended: start + Duration::from_secs(ended),
            kind,
            version,
            value: version,
        }
    }

    #[test]
    fn reads_that_overlap_a_write_may_see_it_or_not_and_later_ones_must() {
        use Kind::{Read, Write};
        let history = |last| {
            let before = operation(Write, 0, 1, 5);
            let write = operation(Write, 2, 6, 9);
            let early = operation(Read, 3, 4, 9);
            vec![before, write, early, operation(Read, 5, 7, last)]
        };
        linearizable(history(9)).unwrap();
        linearizable(history(5)).unwrap_err();
        linearizable(vec![operation(Write, 0, 1, 5), operation(Write, 2, 3, 5)]).unwrap_err();
        linearizable(vec![operation(Write, 0, 1, 5), operation(Write, 2, 3, 4)]).unwrap_err();
    }

    #[test]
    fn an_event_that_is_missed_repeated_or_invented_is_found() {
        let mut watched = Watched::default();
        for version in [3, 5, 9] {
            watched.event(version).unwrap();
        }
        watched.complete(2, &[1, 3, 5, 9]).unwrap();
        watched.complete(2, &[3, 5, 7, 9]).unwrap_err();
        watched.complete(2, &[3, 9]).unwrap_err();
        watched.complete(2, &[3, 5]).unwrap_err();
        watched.event(9).unwrap_err();
        watched.bookmark(8).unwrap_err();
        watched.relists.push((6, 8));
        watched.complete(2, &[3, 5, 7, 9]).unwrap();
    }
}
