//! The one thread that writes: drain the queue, evaluate, append, sync, publish, acknowledge.
//!
//! Everything that waits while a sync runs goes into the next batch: the disk sets the pace. No
//! caller and no stream sees a commit before its sync. After a failed write the thread takes
//! nothing more, because the memory may then be ahead of the disk; a restart reads the truth.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::embedded::dir::DataDir;
use crate::embedded::index::{Index, Slot};
use crate::embedded::log::{Log, LogView};
use crate::embedded::record::{Mark, Place, Record};
use crate::error::{CommitError, CompactError, StoreError};
use crate::history::History;
use crate::model::{Batch, Change, Commit, Current, OPS_MAX, Op, Rev};

/// Commits in one batch, at most.
const GROUP_COMMITS_MAX: usize = 1024;
/// Bytes in one batch, about.
const GROUP_BYTES_MAX: usize = 8 << 20;

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
    pub(crate) log: Log,
    pub(crate) history: History,
    /// Mirrors the mark on disk.
    pub(crate) compacted: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) dir: DataDir,
    pub(crate) shared: Arc<Shared>,
    pub(crate) index: Index,
    pub(crate) rev: Rev,
    pub(crate) failed: Option<StoreError>,
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
            let command = match next.take() {
                Some(command) => command,
                None => match timer.block_on(wait(&mut queue, self.next_deadline())) {
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

    fn next_deadline(&self) -> Option<u64> {
        if self.failed.is_some() {
            None
        } else {
            self.index.next_deadline_ms()
        }
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
            answer(reply, Err(CommitError::Unavailable(failed.clone())));
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
            None => self.shared.log.view().get(place),
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
        let written = self.shared.log.append(records, &stale).and_then(|()| {
            self.dir.set_head(self.rev).map_err(|error| {
                StoreError::with(
                    format!("write {}", self.dir.path().join("head").display()),
                    error,
                )
            })
        });
        if let Err(error) = written {
            tracing::error!(%error, revision = %self.rev, "storage failed; restart the process");
            for (reply, _) in replies {
                answer(reply, Err(CommitError::Unknown(error.clone())));
            }
            self.failed = Some(error);
            self.shared.history.close();
            return;
        }
        self.shared.history.publish(batches);
        replies
            .into_iter()
            .for_each(|(reply, result)| answer(reply, result));
    }

    fn expire(&mut self) {
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
            Some(failed) => Err(failed.clone()),
            None => Ok(LoadStart {
                rev: self.rev,
                index: self.index.clone(),
                view: self.shared.log.view(),
            }),
        }
    }

    /// The mark first, then the removals in ascending order: a start that finds only some of them
    /// done sees a key's newest record in any case.
    fn compact(&self, upto: Rev) -> Result<(), CompactError> {
        if let Some(failed) = &self.failed {
            return Err(CompactError::Failed(failed.clone()));
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
        let mark = Mark {
            compacted: upto,
            live: self.index.len(),
        };
        self.shared
            .log
            .set_mark(mark)
            .map_err(CompactError::Failed)?;
        self.shared.compacted.store(upto.0, Ordering::Relaxed);
        self.shared.history.cut(upto);
        let mut rest = stale.as_slice();
        while !rest.is_empty() {
            rest = self
                .shared
                .log
                .remove_chunk(rest)
                .map_err(CompactError::Failed)?;
        }
        Ok(())
    }

    fn stale_between(&self, after: Rev, upto: Rev) -> Result<Vec<Place>, StoreError> {
        let view = self.shared.log.view();
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

async fn wait(queue: &mut mpsc::Receiver<Command>, deadline_ms: Option<u64>) -> Wait {
    let received = match deadline_ms {
        None => queue.recv().await,
        Some(deadline_ms) => {
            let left = Duration::from_millis(deadline_ms.saturating_sub(unix_ms()));
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
