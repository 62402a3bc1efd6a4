//! The disk fails under load, again and again: it runs full, it has errors, it takes no writes, it is
//! slow. Reads go on, writes say why they fail, and when the disk is well again the store goes on by
//! itself, with everything that was acknowledged.
//!
//! The test starts itself in namespaces of its own, where it may mount: a small file system in memory
//! for a disk that is really full, and one in user space for all other faults.

#![expect(
    clippy::panic,
    clippy::print_stdout,
    reason = "a test with a main of its own"
)]

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use control_plane_storage::{
    Change, ChangeStream, CommitError, EmbeddedStore, Expect, Op, Rev, Store,
};
use faulty_disk::{Errno, Faults, FaultyDisk};
use futures::StreamExt as _;

const ROLE: &str = "SKEP_STORAGE_DISK_DIR";
const SIZE_MB: u32 = 96;
const ROUNDS: u64 = 4;
const VALUE_BYTES: usize = 40_000;
/// After there is room again.
const RESUMES_WITHIN: Duration = Duration::from_secs(1);
/// The store looks at a disk that fails more often than this.
const LOOKS: Duration = Duration::from_millis(600);
/// What a sync of a slow disk takes.
const SLOW: Duration = Duration::from_millis(500);

fn main() {
    if let Some(dir) = std::env::var_os(ROLE) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        return runtime.block_on(async {
            let dir = PathBuf::from(dir);
            a_full_disk_costs_no_acknowledged_write(&dir).await;
            no_fault_of_the_disk_costs_an_acknowledged_write(&dir).await;
            a_slow_disk_makes_writes_slow_and_nothing_else(&dir).await;
        });
    }
    let dir = tempfile::tempdir().expect("a directory");
    let script = format!("mount -t tmpfs -o size={SIZE_MB}m tmpfs \"${ROLE}\" && exec \"$0\"");
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
        .arg(std::env::current_exe().expect("this program's file"))
        .env(ROLE, dir.path())
        .status()
        .expect("run unshare (package util-linux)");
    assert!(status.success(), "{status}");
}

/// What was acknowledged, and by whom it was seen.
struct Known {
    store: EmbeddedStore,
    changes: ChangeStream,
    acknowledged: BTreeMap<String, u64>,
    /// May be there or not: nobody knows.
    unknown: BTreeMap<String, u64>,
    newest: Rev,
    next: u64,
}

async fn a_full_disk_costs_no_acknowledged_write(dir: &Path) {
    let data = dir.join("store");
    let mut known = Known::open(&data).await;
    let mut waits = Vec::new();
    for round in 0..ROUNDS {
        for _ in 0..20 {
            known.write().await.expect("there is room");
        }
        let filler = fill(dir);
        let failures = known.write_until_refused(ErrorKind::StorageFull).await;
        known.reads_go_on().await;
        std::fs::remove_file(filler).expect("make room");
        waits.push(known.resumes(&format!("round {round}")).await);
        known.stream_has_all().await;
        known.compare(&known.store).await;
        // Room for the next round: overwritten values are forgotten.
        known.store.compact(known.newest).await.expect("compact");
        println!("round {round}: {failures} refused");
    }
    let rev = known.opens_again(&data).await;
    println!("{ROUNDS} rounds, revision {rev}, writes again after {waits:?}");
    // Its room is needed for what follows.
    std::fs::remove_dir_all(&data).expect("remove the store");
}

/// A mounted disk with a store on it.
async fn on_faulty_disk(dir: &Path, name: &str) -> (FaultyDisk, PathBuf, Known) {
    let at = dir.join(name);
    std::fs::create_dir(&at).expect("a directory");
    let disk = FaultyDisk::mount(&at).expect("mount (is there /dev/fuse? `modprobe fuse`)");
    disk.forget_history();
    let data = at.join("store");
    let known = Known::open(&data).await;
    (disk, data, known)
}

async fn no_fault_of_the_disk_costs_an_acknowledged_write(dir: &Path) {
    let (disk, data, mut known) = on_faulty_disk(dir, "faulty").await;
    let well = Faults::default();
    let faults = [
        (
            "writes fail",
            Faults {
                change: Some(Errno::EIO),
                ..well.clone()
            },
            ErrorKind::Other,
        ),
        (
            "syncs fail",
            Faults {
                sync: Some(Errno::EIO),
                ..well.clone()
            },
            ErrorKind::Other,
        ),
        (
            "both fail",
            Faults {
                change: Some(Errno::EIO),
                sync: Some(Errno::EIO),
                ..well.clone()
            },
            ErrorKind::Other,
        ),
        (
            "read-only",
            Faults {
                change: Some(Errno::EROFS),
                ..well.clone()
            },
            ErrorKind::ReadOnlyFilesystem,
        ),
        (
            "full",
            Faults {
                room: Some(0),
                ..well.clone()
            },
            ErrorKind::StorageFull,
        ),
    ];
    for (what, fault, kind) in faults {
        for _ in 0..20 {
            known.write().await.expect("the disk is well");
        }
        disk.set(fault);
        let failures = known.write_until_refused(kind).await;
        known.reads_go_on().await;
        // By then the store has looked at the disk itself, and still says the same.
        tokio::time::sleep(LOOKS).await;
        known.write_until_refused(kind).await;
        disk.set(well.clone());
        let wait = known.resumes(what).await;
        known.stream_has_all().await;
        known.compare(&known.store).await;
        println!("{what}: {failures} refused, writes again after {wait:?}");
    }
    let rev = known.opens_again(&data).await;
    println!("revision {rev} after all faults");
}

async fn a_slow_disk_makes_writes_slow_and_nothing_else(dir: &Path) {
    let (disk, data, mut known) = on_faulty_disk(dir, "slow").await;
    for _ in 0..20 {
        known.write().await.expect("a write");
    }
    disk.set(Faults {
        sync_takes: SLOW,
        ..Faults::default()
    });
    let began = Instant::now();
    let puts = (0..100).map(|n| {
        let ops = vec![Op::put(format!("slow{n}"), "1", Expect::Absent)];
        known.store.commit(ops)
    });
    let writes = futures::future::join_all(puts);
    let reads = async {
        let mut worst = Duration::ZERO;
        for _ in 0..50 {
            let asked = Instant::now();
            known.store.barrier().await.expect("a revision");
            worst = worst.max(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        worst
    };
    let (writes, worst) = tokio::join!(writes, reads);
    let took = began.elapsed();
    let newest = writes
        .into_iter()
        .map(|write| write.expect("a write").rev)
        .max();
    assert!(took >= SLOW, "{took:?}");
    assert!(
        took < 5 * SLOW,
        "commits that wait are not written together: {took:?}"
    );
    assert!(worst < SLOW, "reads waited for the disk: {worst:?}");
    disk.set(Faults::default());
    known.newest = newest.expect("writes");
    println!("100 commits in {took:?} with syncs of {SLOW:?}, reads in {worst:?} at most");
    known.opens_again(&data).await;
}

/// Takes all room that is left.
fn fill(dir: &Path) -> PathBuf {
    let path = dir.join("filler");
    let mut file = std::fs::File::create(&path).expect("create the filler");
    for size in [1 << 20, 4096] {
        let block = vec![1; size];
        loop {
            match file.write_all(&block) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    path
}

impl Known {
    async fn open(data: &Path) -> Self {
        let store = EmbeddedStore::open(data).await.expect("open");
        let changes = store.changes(Rev::FIRST);
        Self {
            store,
            changes,
            acknowledged: BTreeMap::new(),
            unknown: BTreeMap::new(),
            newest: Rev::FIRST,
            next: 0,
        }
    }

    /// Closes the store and opens it again: everything is there.
    async fn opens_again(self, data: &Path) -> Rev {
        let Self {
            store,
            changes,
            acknowledged,
            unknown,
            newest,
            next,
        } = self;
        drop(changes);
        store.close().await;
        let store = EmbeddedStore::open(data).await.expect("open again");
        let rev = store.barrier().await.expect("a revision");
        assert!(rev >= newest, "{rev} after {newest}");
        let again = Self {
            changes: store.changes(rev),
            store,
            acknowledged,
            unknown,
            newest,
            next,
        };
        again.compare(&again.store).await;
        again.store.close().await;
        rev
    }

    /// Waits until a write succeeds; how long that took.
    async fn resumes(&mut self, what: &str) -> Duration {
        let well = Instant::now();
        while self.write().await.is_err() {
            assert!(well.elapsed() < RESUMES_WITHIN, "{what}: no writes again");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        well.elapsed()
    }

    /// Overwrites one of a few keys.
    async fn write(&mut self) -> Result<(), CommitError> {
        let n = self.next;
        self.next += 1;
        let key = format!("k{}", n % 10);
        let value = format!("{n}.{}", "v".repeat(VALUE_BYTES));
        let committed = self
            .store
            .commit(vec![Op::put(key.clone(), value, Expect::Any)]);
        match committed.await {
            Ok(commit) => {
                assert!(
                    commit.rev > self.newest,
                    "{} after {}",
                    commit.rev,
                    self.newest
                );
                self.newest = commit.rev;
                self.unknown.remove(&key);
                self.acknowledged.insert(key, n);
                Ok(())
            }
            Err(error) => {
                if matches!(error, CommitError::Unknown(_)) {
                    self.unknown.insert(key, n);
                }
                Err(error)
            }
        }
    }

    /// Until the refusal is certain and says what is wrong with the disk.
    async fn write_until_refused(&mut self, cause: ErrorKind) -> u32 {
        let started = Instant::now();
        let mut failures = 0;
        loop {
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "the disk takes writes"
            );
            match self.write().await {
                Ok(()) => {}
                Err(error @ CommitError::Unavailable(_)) if says(&error, cause) => {
                    return failures + 1;
                }
                Err(CommitError::Unavailable(_) | CommitError::Unknown(_)) => {
                    failures += 1;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }

    async fn reads_go_on(&mut self) {
        assert!(self.store.barrier().await.expect("a revision") >= self.newest);
        self.stream_has_all().await;
        let more = tokio::time::timeout(Duration::from_millis(50), self.changes.next()).await;
        assert!(
            more.is_err(),
            "the stream ended, or told of what nobody wrote: {more:?}"
        );
    }

    /// Reads the stream up to what was acknowledged.
    async fn stream_has_all(&mut self) {
        let mut seen = Rev::FIRST;
        while seen < self.newest {
            let next = tokio::time::timeout(Duration::from_secs(5), self.changes.next());
            let batch = next
                .await
                .expect("in time")
                .expect("a stream")
                .expect("a batch");
            assert!(batch.rev > seen);
            seen = batch.rev;
            if seen == self.newest {
                let Change::Put { key, value } = &batch.changes[0] else {
                    panic!("{batch:?}");
                };
                let key = String::from_utf8_lossy(key).into_owned();
                assert_eq!(number(value), self.acknowledged[&key], "{key}");
            }
        }
        // From here on only what is new.
        self.changes = self.store.changes(self.newest);
    }

    async fn compare(&self, store: &EmbeddedStore) {
        let mut load = store.load(b"k").await.expect("load");
        let mut found = BTreeMap::new();
        while let Some(page) = load.pages.next().await {
            for entry in page.expect("a page") {
                let key = String::from_utf8_lossy(&entry.key).into_owned();
                found.insert(key, number(&entry.value));
            }
        }
        for (key, n) in &self.acknowledged {
            let may = self.unknown.get(key);
            let is = found.get(key);
            assert!(
                is == Some(n) || (may.is_some() && is == may),
                "{key}: {is:?}, not {n}"
            );
        }
    }
}

fn number(value: &[u8]) -> u64 {
    assert!(value.len() > VALUE_BYTES, "a partial value");
    let text = String::from_utf8_lossy(value);
    let number = text.split('.').next().expect("a number");
    number.parse().expect("a number")
}

fn says(error: &CommitError, kind: ErrorKind) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            // EIO has no kind of its own.
            return io.kind() == kind || (kind == ErrorKind::Other && io.raw_os_error() == Some(5));
        }
        cause = error.source();
    }
    false
}
