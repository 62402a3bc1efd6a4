//! A history of the engine on a disk that writes everything down.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use control_plane_storage::{EmbeddedStore, Expect, Op, Rev, Store as _};
use faulty_disk::{Event, Faults, FaultyDisk};
use tokio::task::JoinSet;

/// What the writers do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    writers: u64,
    /// Commits of each.
    commits: u64,
    /// The largest value has six times as many bytes.
    filler: usize,
    compact: bool,
}

impl Shape {
    pub(crate) fn small(commits: u64) -> Self {
        Self {
            writers: 3,
            commits,
            filler: 400,
            compact: true,
        }
    }

    pub(crate) fn large(commits: u64) -> Self {
        Self {
            writers: 3,
            commits,
            filler: 8000,
            compact: true,
        }
    }

    /// A writer's commit `n`: creates key `n`, overwrites the one before, deletes the one before that.
    fn ops(self, writer: u64, n: u64) -> Vec<Op> {
        let key = |n: u64| format!("w{writer}/{:03}", n % 50);
        let filler = self.filler * usize::try_from(n % 7).expect("a small number");
        let value = format!("{n}.{}", "v".repeat(filler));
        let mut ops = vec![Op::put(key(n), value.clone(), Expect::Absent)];
        if n > 0 {
            ops.push(Op::put(key(n - 1), value, Expect::Any));
        }
        if n > 1 {
            ops.push(Op::delete(key(n - 2), Expect::Any));
        }
        ops
    }

    /// The writer's keys after its commit `n`.
    pub(crate) fn state(self, writer: u64, n: u64) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let puts = self.ops(writer, n).into_iter().filter_map(|op| match op {
            Op::Put { key, value, .. } => Some((key.to_vec(), value.to_vec())),
            Op::Delete { .. } | Op::Check { .. } => None,
        });
        puts.collect()
    }
}

/// One commit that was acknowledged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acknowledged {
    pub(crate) rev: Rev,
    /// This many events had happened when it was acknowledged, or fewer.
    pub(crate) position: usize,
}

/// What happened, and what was promised on the way.
pub(crate) struct Recorded {
    pub(crate) shape: Shape,
    pub(crate) events: Vec<Event>,
    /// Each writer's commits.
    pub(crate) acknowledged: BTreeMap<u64, Vec<Acknowledged>>,
}

impl Recorded {
    pub(crate) fn commits(&self) -> usize {
        self.acknowledged.values().map(Vec::len).sum()
    }

    /// The newest revision that was told before a point.
    pub(crate) fn newest(&self, at: usize) -> Rev {
        let all = self.acknowledged.values().flatten();
        let before = all.filter(|one| one.position <= at).map(|one| one.rev);
        before.max().unwrap_or(Rev(0))
    }

    /// The files that the engine appends commits to.
    pub(crate) fn journals(&self) -> BTreeSet<u64> {
        let named = |event: &Event| match event {
            Event::Link { name, node, .. } => {
                let name = Path::new(name);
                let is_journal = name.extension().is_some_and(|end| end == "jnl");
                (is_journal || name == Path::new("head")).then_some(*node)
            }
            Event::Write { .. }
            | Event::SetLen { .. }
            | Event::Unlink { .. }
            | Event::Sync { .. }
            | Event::SyncDirectory { .. } => None,
        };
        self.events.iter().filter_map(named).collect()
    }
}

/// Lets writers work on a new disk until they are done.
pub(crate) async fn record(dir: &Path, shape: Shape, faults: Faults) -> Recorded {
    let at = dir.join("disk");
    std::fs::create_dir_all(&at).expect("a directory");
    let disk = FaultyDisk::mount(&at).expect("mount (is there /dev/fuse? `modprobe fuse`)");
    disk.set(faults);
    let disk = Arc::new(disk);
    let store = EmbeddedStore::open(at.join("data/store"));
    let store = Arc::new(store.await.expect("open the store"));
    let mut writers = JoinSet::new();
    for writer in 0..shape.writers {
        let (store, disk) = (Arc::clone(&store), Arc::clone(&disk));
        writers.spawn(async move {
            let mut done = Vec::new();
            for n in 0..shape.commits {
                let commit = store.commit(shape.ops(writer, n)).await;
                let rev = commit.expect("a commit").rev;
                let position = disk.position();
                done.push(Acknowledged { rev, position });
                if shape.compact && writer == 0 && n % 12 == 11 {
                    let upto = Rev(rev.0.saturating_sub(20).max(1));
                    store.compact(upto).await.expect("compact");
                }
            }
            (writer, done)
        });
    }
    let mut acknowledged = BTreeMap::new();
    while let Some(writer) = writers.join_next().await {
        let (writer, done) = writer.expect("a writer");
        acknowledged.insert(writer, done);
    }
    let store = Arc::into_inner(store).expect("the writers are done");
    store.close().await;
    Recorded {
        shape,
        events: disk.history(),
        acknowledged,
    }
}
