//! The log on disk: one keyspace of the engine, appended in revision order.
//!
//! A value is written once, in its record; the index over the newest record of each key is in
//! memory (`index.rs`) and rebuilt by one sequential scan at start, which checks every byte. New
//! keys sort behind all others, so the engine's trees never overlap and merge for nothing.

mod scan;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable as _};

use crate::embedded::dir::DataDir;
use crate::embedded::index::Index;
use crate::embedded::journal;
use crate::embedded::log::scan::Scan;
use crate::embedded::record::{Mark, Place, Record};
use crate::error::{OpenError, StoreError};
use crate::model::{Batch, Change, Rev};

/// Memory the engine gathers before it writes a table.
const MEMTABLE_BYTES: u64 = 8 << 20;
/// The engine's cache of blocks. Reads are rare: starting, and streams far behind.
const CACHE_BYTES: u64 = 8 << 20;
/// The engine's smallest allowed bound for its journals.
const JOURNAL_BYTES: u64 = 64 << 20;
/// Threads for the engine's own work.
const ENGINE_THREADS: usize = 2;
/// Records removed in one batch of a compaction: commits wait no longer than for one batch.
const REMOVE_CHUNK: usize = 1024;

#[derive(Clone)]
pub(crate) struct Log {
    db: Database,
    records: Keyspace,
    dir: PathBuf,
}

/// What a start finds.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) index: Index,
    pub(crate) rev: Rev,
    pub(crate) compacted: Rev,
}

/// A consistent view of the log.
pub(crate) struct LogView {
    snapshot: fjall::Snapshot,
    records: Keyspace,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for LogView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogView").finish_non_exhaustive()
    }
}

impl Log {
    pub(crate) fn open(dir: &DataDir) -> Result<Self, OpenError> {
        let path = dir.engine_path();
        dir.make_engine(|path| open_engine(path).map(drop))
            .map_err(|error| open_error(dir, error))?;
        journal::cut_torn_end(&path).map_err(|error| {
            StoreError::with(format!("look at the journal in {}", path.display()), error)
        })?;
        let (db, records) = open_engine(&path).map_err(|error| open_error(dir, error))?;
        Ok(Self {
            db,
            records,
            dir: dir.path().to_owned(),
        })
    }

    /// Appends records and drops stale ones, as one batch, and syncs it to disk.
    pub(crate) fn append(
        &self,
        records: Vec<(Place, Bytes)>,
        stale: &[Place],
    ) -> Result<(), StoreError> {
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
        for (place, record) in records {
            batch.insert(&self.records, place.encode(), record);
        }
        for place in stale {
            batch.remove(&self.records, place.encode());
        }
        batch
            .commit()
            .map_err(|error| self.fault("write to", error))
    }

    /// Writes records again that may be in memory only: after a failed sync the system may take pages
    /// for written that are not.
    pub(crate) fn write_again(&self, after: Rev, upto: Rev) -> Result<(), StoreError> {
        let view = self.view();
        let mut records = Vec::new();
        for place in view.places(after, upto)? {
            records.push((place, view.get(place)?.encode(place)));
        }
        self.append(records, &[])
    }

    /// Sets the compaction mark, durably.
    pub(crate) fn set_mark(&self, mark: Mark) -> Result<(), StoreError> {
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
        batch.insert(
            &self.records,
            Place::MARK.encode(),
            mark.encode().as_slice(),
        );
        batch.commit().map_err(|error| self.fault("compact", error))
    }

    /// Removes at most one chunk of `stale` (ascending) and returns the rest. A removal that is lost is
    /// repeated at the next start; it is synced because never more than one batch may be unsynced.
    pub(crate) fn remove_chunk<'a>(&self, stale: &'a [Place]) -> Result<&'a [Place], StoreError> {
        let (chunk, rest) = stale.split_at(stale.len().min(REMOVE_CHUNK));
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
        for place in chunk {
            batch.remove(&self.records, place.encode());
        }
        batch
            .commit()
            .map_err(|error| self.fault("compact", error))?;
        Ok(rest)
    }

    pub(crate) fn view(&self) -> LogView {
        LogView {
            snapshot: self.db.snapshot(),
            records: self.records.clone(),
        }
    }

    /// Reads and checks the whole log. `head` is the newest revision known to be acknowledged.
    pub(crate) fn recover(&self, head: Rev) -> Result<Recovered, OpenError> {
        let mut scan = Scan::default();
        for guard in self.records.iter() {
            let (key, value) = guard
                .into_inner()
                .map_err(|error| self.corrupt("log", scan.at(), format!("{error}")))?;
            scan.take(&key, &value.into())
                .map_err(|(at, fault)| self.corrupt("log", at, fault))?;
        }
        let recovered = scan
            .finish()
            .map_err(|(at, fault)| self.corrupt("log", at, fault))?;
        if recovered.0.rev < head {
            let fault = format!(
                "revisions up to {head} were acknowledged, but the log ends here: an unreadable \
                 part of the journal and everything after it was cut off"
            );
            return Err(self.corrupt("log", recovered.0.rev.to_string(), fault));
        }
        let (recovered, stale) = recovered;
        let mut rest = stale.as_slice();
        while !rest.is_empty() {
            rest = self.remove_chunk(rest)?;
        }
        Ok(recovered)
    }

    fn corrupt(&self, keyspace: &'static str, record: String, fault: String) -> OpenError {
        OpenError::Corrupt {
            dir: self.dir.clone(),
            keyspace,
            record,
            fault,
        }
    }

    fn fault(&self, what: &str, error: fjall::Error) -> StoreError {
        StoreError::with(format!("{what} the store in {}", self.dir.display()), error)
    }
}

impl LogView {
    /// One record that exists.
    pub(crate) fn get(&self, place: Place) -> Result<Record, StoreError> {
        let bytes = self
            .snapshot
            .get(&self.records, place.encode())
            .map_err(|error| StoreError::with(format!("read record {place}"), error))?
            .ok_or_else(|| StoreError::new(format!("record {place} is missing from the log")))?;
        Record::decode(place, &bytes.into())
            .map_err(|error| StoreError::with(format!("record {place} is corrupt"), error))
    }

    /// How far the log was compacted.
    pub(crate) fn compacted(&self) -> Result<Rev, StoreError> {
        let bytes = self
            .snapshot
            .get(&self.records, Place::MARK.encode())
            .map_err(|error| StoreError::with("read the compaction mark", error))?;
        let Some(bytes) = bytes else {
            return Ok(Rev::FIRST);
        };
        let mark = Mark::decode(&bytes)
            .map_err(|error| StoreError::with("the compaction mark is corrupt", error))?;
        Ok(mark.compacted)
    }

    /// Places between two revisions: `after` excluded, `upto` included.
    pub(crate) fn places(&self, after: Rev, upto: Rev) -> Result<Vec<Place>, StoreError> {
        let range = Place::first_of(after.next()).encode()..Place::first_of(upto.next()).encode();
        self.snapshot
            .range(&self.records, range)
            .map(|guard| {
                let key = guard
                    .key()
                    .map_err(|error| StoreError::with("read the log", error))?;
                Place::decode(&key).ok_or_else(|| StoreError::new("a record has no place"))
            })
            .collect()
    }

    /// Whole batches after a revision and up to another, until they have `bytes_max` together.
    pub(crate) fn batches(
        &self,
        after: Rev,
        upto: Rev,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Batch>>, StoreError> {
        let range = Place::first_of(after.next()).encode()..Place::first_of(upto.next()).encode();
        let mut batches: Vec<Batch> = Vec::new();
        let mut bytes = 0;
        for guard in self.snapshot.range(&self.records, range) {
            let (key, value) = guard
                .into_inner()
                .map_err(|error| StoreError::with("read the log", error))?;
            let place =
                Place::decode(&key).ok_or_else(|| StoreError::new("a record has no place"))?;
            let record = Record::decode(place, &value.into())
                .map_err(|error| StoreError::with(format!("record {place} is corrupt"), error))?;
            let change = change(&record);
            match batches.last_mut() {
                Some(batch) if batch.rev == place.rev => batch.changes.push(change),
                _ if bytes >= bytes_max => break,
                _ => batches.push(Batch {
                    rev: place.rev,
                    changes: vec![change],
                }),
            }
            bytes += record.key.len() + record.value.as_ref().map_or(0, Bytes::len);
        }
        Ok(batches.into_iter().map(Arc::new).collect())
    }
}

/// A change with bytes of its own: a slice would keep the engine's whole block alive.
fn change(record: &Record) -> Change {
    let key = Bytes::copy_from_slice(&record.key);
    match &record.value {
        Some(value) => Change::Put {
            key,
            value: Bytes::copy_from_slice(value),
        },
        None => Change::Delete { key },
    }
}

fn open_engine(path: &Path) -> fjall::Result<(Database, Keyspace)> {
    let db = Database::builder(path)
        .cache_size(CACHE_BYTES)
        .max_journaling_size(JOURNAL_BYTES)
        .manual_journal_persist(true)
        .worker_threads(ENGINE_THREADS)
        .open()?;
    let records = db.keyspace("log", || {
        KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES)
    })?;
    // A new keyspace must be on disk before the first record that is acknowledged.
    db.persist(PersistMode::SyncAll)?;
    Ok((db, records))
}

fn open_error(dir: &DataDir, error: fjall::Error) -> OpenError {
    let corrupt = |fault: String| OpenError::Corrupt {
        dir: dir.path().to_owned(),
        keyspace: "db",
        record: "journal or table (the engine's log names the file)".to_owned(),
        fault,
    };
    match error {
        fjall::Error::JournalRecovery(_)
        | fjall::Error::InvalidVersion(_)
        | fjall::Error::Decompress(_)
        | fjall::Error::InvalidTrailer
        | fjall::Error::InvalidTag(_)
        | fjall::Error::Unrecoverable => corrupt(error.to_string()),
        fjall::Error::Storage(ref inner) if !matches!(inner, fjall::LsmError::Io(_)) => {
            corrupt(error.to_string())
        }
        _ => StoreError::with(format!("open the store in {}", dir.path().display()), error).into(),
    }
}

#[cfg(test)]
mod tests;
