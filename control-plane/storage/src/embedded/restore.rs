//! A new store from the entries of a snapshot.
//!
//! Every entry keeps the revision that wrote it, so objects keep their resourceVersions. The store
//! itself begins at a higher revision, compacted up to there: whoever watched the old one is told to
//! list again, also one that has seen revisions which the snapshot does not know.

use std::collections::HashMap;
use std::path::Path;

use bytes::Bytes;

use crate::embedded::dir::DataDir;
use crate::embedded::log::Log;
use crate::embedded::record::{Mark, Place, Record};
use crate::error::{OpenError, StoreError};
use crate::model::{Entry, Rev};

/// How far above the snapshot's revision the new store begins: more than a store writes between two
/// backups.
pub(crate) const REVISIONS_ABOVE: u64 = 1_000_000_000;
/// Bytes that are written at once.
const CHUNK_BYTES: usize = 4 << 20;

/// Fills `dir`, which must not hold a store, with the entries of a snapshot of revision `rev`.
pub(crate) fn restore(dir: &Path, rev: Rev, entries: Vec<Entry>) -> Result<Rev, OpenError> {
    if dir.join("db").exists() {
        let fault = format!(
            "{} holds a store already; restore into another directory, or move it away",
            dir.display()
        );
        return Err(StoreError::new(fault).into());
    }
    let dir = DataDir::open(dir)?;
    let log = Log::open(&dir)?;
    let live = u64::try_from(entries.len()).unwrap_or(u64::MAX);
    let begin = Rev(rev.0.saturating_add(REVISIONS_ABOVE));
    let mut used: HashMap<Rev, u16> = HashMap::new();
    let (mut chunk, mut bytes) = (Vec::new(), 0);
    for entry in entries {
        let index = used.entry(entry.rev).or_insert(0);
        let place = Place {
            rev: entry.rev,
            index: *index,
        };
        *index += 1;
        let record = record(&entry, live).encode(place);
        bytes += record.len();
        chunk.push((place, record));
        if bytes >= CHUNK_BYTES {
            log.append(std::mem::take(&mut chunk), &[])?;
            bytes = 0;
        }
    }
    if !chunk.is_empty() {
        log.append(chunk, &[])?;
    }
    // Last: without the mark the store does not open, so half a restore is not taken for one.
    let mark = Mark {
        compacted: begin,
        live,
    };
    log.set_mark(mark)?;
    let head = dir.set_head(begin);
    head.map_err(|error| StoreError::with("write the head of the new store", error))?;
    Ok(begin)
}

fn record(entry: &Entry, live: u64) -> Record {
    Record {
        count: 1,
        live,
        deadline_ms: None,
        key: Bytes::clone(&entry.key),
        value: Some(Bytes::clone(&entry.value)),
    }
}
