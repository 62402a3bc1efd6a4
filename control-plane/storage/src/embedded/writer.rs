//! The one thread that writes: drain the queue, evaluate, append, sync, publish, acknowledge.
//!
//! Everything that waits while a sync runs goes into the next batch: the disk sets the pace. No
//! caller and no stream sees a commit before its sync. After a failed write the thread takes no
//! commit, because the memory is ahead of the disk then: as soon as the disk takes writes again the
//! log is opened anew and read, and what it holds is the truth. Readers go on meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};

use crate::embedded::dir::DataDir;
use crate::embedded::index::{Index, Slot};
use crate::embedded::log::{Log, LogView, Recovered};
use crate::embedded::record::{Mark, Place, Record};
use crate::error::{CommitError, CompactError, StoreError};
use crate::history::History;
use crate::model::{Batch, Change, Commit, Current, OPS_MAX, Op, Rev};

/// Commits in one batch, at most.
const GROUP_COMMITS_MAX: usize = 1024;
/// Bytes in one batch, about.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// Between two looks at a disk that does not take writes.
const RETRY_EVERY: Duration = Duration::from_millis(250);

/// What must fit on the disk again before the engine is opened again.
const PROBE_BYTES: usize = 1 << 20;

type CommitReply = oneshot::Sender<Result<Commit, CommitError>>;

/// What the thread is asked.
#[derive(Debug)]
pub(crate) enum Command {
    Commit {
        ops: Vec<Op>,
        reply: CommitReply,
    },
    Load {
        reply: oneshot::Sender<Result<LoadStart, StoreError>>,
    },
    Compact {
        upto: Rev,
        reply: oneshot::Sender<Result<(), CompactError>>,
    },
}

/// One consistent state of the store.
#[derive(Debug)]
pub(crate) struct LoadStart {
    pub(crate) rev: Rev,
    pub(crate) index: Index,
    pub(crate) view: LogView,
}

/// What the thread shares with readers.
#[derive(Debug)]
pub(crate) struct Shared {
    /// `None` while it is opened anew.
    pub(crate) log: RwLock<Option<Log>>,
    pub(crate) history: History,
    /// Mirrors the mark on disk.
    pub(crate) compacted: AtomicU64,
}

impl Shared {
    fn log(&self) -> Result<Log, StoreError> {
        let log = self.log.read().clone();
        log.ok_or_else(|| StoreError::new("the store is being opened again after a failed write"))
    }

    /// A consistent view of the log.
    pub(crate) fn view(&self) -> Result<LogView, StoreError> {
        self.log().map(|log| log.view())
    }
}

/// Why nothing is taken, and when to look again.
#[derive(Debug)]
pub(crate) struct Failed {
    error: StoreError,
    retry_at: Instant,
}

#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) dir: DataDir,
    pub(crate) shared: Arc<Shared>,
    pub(crate) index: Index,
    pub(crate) rev: Rev,
    pub(crate) failed: Option<Failed>,
}

/// What one batch will write, and whom it answers.
#[derive(Debug, Default)]
struct Group {
    records: Vec<(Place, Bytes)>,
    stale: Vec<Place>,
    batches: Vec<Arc<Batch>>,
    bytes: usize,
    replies: Vec<(CommitReply, Result<Commit, CommitError>)>,
}

impl Writer {
    /// Runs until the queue is closed and empty. `timer` only waits; it runs on this thread.
    pub(crate) fn run(
        mut self,
        mut queue: mpsc::Receiver<Command>,
        timer: &tokio::runtime::Runtime,
    ) {
        let mut next = None;
        loop {
            self.recover_when_due();
            let command = match next.take() {
                Some(command) => command,
                None => match timer.block_on(wait(&mut queue, self.next_look())) {
                    Wait::Command(command) => command,
                    Wait::Deadline => {
                        self.expire();
                        continue;
                    }
                    Wait::Closed => break,
                },
            };
            match command {
                Command::Commit { ops, reply } => {
                    next = self.group(ops, reply, &mut queue);
                }
                Command::Load { reply } => answer(reply, self.load()),
                Command::Compact { upto, reply } => answer(reply, self.compact(upto)),
            }
        }
        self.shared.history.close();
    }

    /// Until something is to be done without being asked: an expiry, or a look at the disk.
    fn next_look(&self) -> Option<Duration> {
        match &self.failed {
            Some(failed) => Some(failed.retry_at.saturating_duration_since(Instant::now())),
            None => {
                let deadline_ms = self.index.next_deadline_ms()?;
                Some(Duration::from_millis(deadline_ms.saturating_sub(unix_ms())))
            }
        }
    }

    fn fail(&mut self, error: StoreError) {
        tracing::error!(%error, revision = %self.rev, "the store cannot write; reads go on");
        let retry_at = Instant::now() + RETRY_EVERY;
        self.failed = Some(Failed { error, retry_at });
    }

    fn recover_when_due(&mut self) {
        let due = |failed: &Failed| failed.retry_at <= Instant::now();
        if !self.failed.as_ref().is_some_and(due) {
            return;
        }
        match self.open_again() {
            Ok(()) => {
                tracing::info!(revision = %self.rev, "the store writes again");
                self.failed = None;
            }
            Err(error) => {
                tracing::debug!(%error, "the store cannot write yet");
                let retry_at = Instant::now() + RETRY_EVERY;
                self.failed = Some(Failed { error, retry_at });
            }
        }
    }

    /// Reads the truth from the disk. What is there beyond what was published was in the failed
    /// batch; it is made durable before anybody sees it.
    fn open_again(&mut self) -> Result<(), StoreError> {
        self.dir.probe(PROBE_BYTES)?;
        // The engine lets go of its directory when the last handle is gone; until then opening fails.
        drop(self.shared.log.write().take());
        let again = |error| StoreError::with("open the store again", error);
        let log = Log::open(&self.dir).map_err(again)?;
        let published = self.shared.history.published();
        let Recovered {
            index,
            rev,
            compacted,
        } = log.recover(published).map_err(again)?;
        let batches = if rev > published {
            log.write_again(published, rev)?;
            log.view().batches(published, rev, usize::MAX)?
        } else {
            Vec::new()
        };
        let head = self.dir.set_head(rev);
        head.map_err(|error| StoreError::with("write the head again", error))?;
        self.index = index;
        self.rev = rev;
        self.shared.compacted.store(compacted.0, Ordering::Relaxed);
        *self.shared.log.write() = Some(log);
        if !batches.is_empty() {
            self.shared.history.publish(batches);
        }
        Ok(())
    }

    /// Commits the given operations and all that wait behind them. Returns the command that ended
    /// the group because it is not a commit.
    fn group(
        &mut self,
        ops: Vec<Op>,
        reply: CommitReply,
        queue: &mut mpsc::Receiver<Command>,
    ) -> Option<Command> {
        if let Some(failed) = &self.failed {
            answer(reply, Err(CommitError::Unavailable(failed.error.clone())));
            return None;
        }
        let now_ms = unix_ms();
        let mut group = Group::default();
        let mut next = None;
        let result = self.evaluate(ops, now_ms, &mut group);
        group.replies.push((reply, result));
        while group.replies.len() < GROUP_COMMITS_MAX && group.bytes < GROUP_BYTES_MAX {
            match queue.try_recv() {
                Ok(Command::Commit { ops, reply }) => {
                    let result = self.evaluate(ops, now_ms, &mut group);
                    group.replies.push((reply, result));
                }
                Ok(command) => {
                    next = Some(command);
                    break;
                }
                Err(_) => break,
            }
        }
        self.write(group);
        next
    }

    /// Decides one commit against the state after all before it.
    fn evaluate(
        &mut self,
        ops: Vec<Op>,
        now_ms: u64,
        group: &mut Group,
    ) -> Result<Commit, CommitError> {
        if let Some((index, slot)) = self.index.conflict(&ops) {
            let current = slot
                .map(|slot| self.current(slot.place, group))
                .transpose()?;
            return Err(CommitError::Conflict { index, current });
        }
        let rev = self.rev.next();
        let mut records = Vec::with_capacity(ops.len());
        for op in ops {
            self.apply(op, rev, now_ms, &mut records, group);
        }
        if records.is_empty() {
            return Ok(Commit { rev: self.rev });
        }
        self.rev = rev;
        let count = u16::try_from(records.len()).unwrap_or(u16::MAX);
        let live = self.index.len();
        let mut changes = Vec::with_capacity(records.len());
        for (place, record) in records {
            let record = Record {
                count,
                live,
                ..record
            };
            let encoded = record.encode(place);
            group.bytes += encoded.len();
            group.records.push((place, encoded));
            changes.push(match record.value {
                Some(value) => Change::Put {
                    key: record.key,
                    value,
                },
                None => Change::Delete { key: record.key },
            });
        }
        group.batches.push(Arc::new(Batch { rev, changes }));
        Ok(Commit { rev })
    }

    fn apply(
        &mut self,
        op: Op,
        rev: Rev,
        now_ms: u64,
        records: &mut Vec<(Place, Record)>,
        group: &mut Group,
    ) {
        let index = u16::try_from(records.len()).unwrap_or(u16::MAX);
        let place = Place { rev, index };
        let (key, value, deadline_ms, before) = match op {
            Op::Put {
                key,
                value,
                expect: _,
                ttl,
            } => {
                let deadline_ms = ttl.map(|ttl| now_ms.saturating_add(millis(ttl)));
                let before = self.index.insert(key.clone(), Slot { place, deadline_ms });
                (key, Some(value), deadline_ms, before)
            }
            Op::Delete { key, expect: _ } => {
                let Some(before) = self.index.remove(&key) else {
                    return;
                };
                (key, None, None, Some(before))
            }
            Op::Check { .. } => return,
        };
        let compacted = Rev(self.shared.compacted.load(Ordering::Relaxed));
        if let Some(before) = before.filter(|before| before.place.rev <= compacted) {
            group.stale.push(before.place);
        }
        records.push((
            place,
            Record {
                count: 0,
                live: 0,
                deadline_ms,
                key,
                value,
            },
        ));
    }

    /// A key's value for a conflict; it may be in this very group.
    fn current(&self, place: Place, group: &Group) -> Result<Current, CommitError> {
        let in_group = group.records.iter().find(|(at, _)| *at == place);
        let record = match in_group {
            Some((_, bytes)) => Record::decode(place, bytes)
                .map_err(|error| StoreError::with(format!("record {place}"), error)),
            None => self.shared.view().and_then(|view| view.get(place)),
        };
        let record = record.map_err(CommitError::Unavailable)?;
        let value = Bytes::copy_from_slice(record.value.as_deref().unwrap_or_default());
        Ok(Current {
            value,
            rev: place.rev,
        })
    }

    fn write(&mut self, group: Group) {
        let Group {
            records,
            stale,
            batches,
            bytes: _,
            replies,
        } = group;
        if records.is_empty() {
            replies
                .into_iter()
                .for_each(|(reply, result)| answer(reply, result));
            return;
        }
        let log = self.shared.log();
        let written = log
            .and_then(|log| log.append(records, &stale))
            .and_then(|()| {
                self.dir.set_head(self.rev).map_err(|error| {
                    StoreError::with(
                        format!("write {}", self.dir.path().join("head").display()),
                        error,
                    )
                })
            });
        if let Err(error) = written {
            for (reply, _) in replies {
                answer(reply, Err(CommitError::Unknown(error.clone())));
            }
            self.fail(error);
            return;
        }
        self.shared.history.publish(batches);
        replies
            .into_iter()
            .for_each(|(reply, result)| answer(reply, result));
    }

    fn expire(&mut self) {
        if self.failed.is_some() {
            return;
        }
        let now_ms = unix_ms();
        let ops = self.index.expired(now_ms, OPS_MAX);
        if ops.is_empty() {
            return;
        }
        let mut group = Group::default();
        if let Err(error) = self.evaluate(ops, now_ms, &mut group) {
            tracing::error!(%error, "expiry failed");
        }
        self.write(group);
    }

    fn load(&self) -> Result<LoadStart, StoreError> {
        match &self.failed {
            Some(failed) => Err(failed.error.clone()),
            None => Ok(LoadStart {
                rev: self.rev,
                index: self.index.clone(),
                view: self.shared.view()?,
            }),
        }
    }

    /// The mark first, then the removals in ascending order: a start that finds only some of them
    /// done sees a key's newest record in any case.
    fn compact(&mut self, upto: Rev) -> Result<(), CompactError> {
        if let Some(failed) = &self.failed {
            return Err(CompactError::Failed(failed.error.clone()));
        }
        if upto > self.rev {
            return Err(CompactError::Future {
                upto,
                current: self.rev,
            });
        }
        let compacted = Rev(self.shared.compacted.load(Ordering::Relaxed));
        if upto <= compacted {
            return Ok(());
        }
        let stale = self
            .stale_between(compacted, upto)
            .map_err(CompactError::Failed)?;
        let forgotten = self.forget(upto, &stale);
        forgotten.map_err(|error| {
            self.fail(error.clone());
            CompactError::Failed(error)
        })
    }

    fn forget(&self, upto: Rev, stale: &[Place]) -> Result<(), StoreError> {
        let log = self.shared.log()?;
        log.set_mark(Mark {
            compacted: upto,
            live: self.index.len(),
        })?;
        self.shared.compacted.store(upto.0, Ordering::Relaxed);
        self.shared.history.cut(upto);
        let mut rest = stale;
        while !rest.is_empty() {
            rest = log.remove_chunk(rest)?;
        }
        Ok(())
    }

    fn stale_between(&self, after: Rev, upto: Rev) -> Result<Vec<Place>, StoreError> {
        let view = self.shared.view()?;
        let mut stale = Vec::new();
        for place in view.places(after, upto)? {
            if !self.index.is_live(&view.get(place)?.key, place) {
                stale.push(place);
            }
        }
        Ok(stale)
    }
}

enum Wait {
    Command(Command),
    Deadline,
    Closed,
}

async fn wait(queue: &mut mpsc::Receiver<Command>, left: Option<Duration>) -> Wait {
    let received = match left {
        None => queue.recv().await,
        Some(left) => {
            // Receiving is cancel-safe: a command is taken or it is not.
            match tokio::time::timeout(left, queue.recv()).await {
                Ok(received) => received,
                Err(_) => return Wait::Deadline,
            }
        }
    };
    received.map_or(Wait::Closed, Wait::Command)
}

/// A caller that stopped waiting is no fault.
fn answer<T>(reply: oneshot::Sender<T>, result: T) {
    drop(reply.send(result));
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, millis)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
