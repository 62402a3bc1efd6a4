//! The disk runs full under load, again and again: reads go on, writes say why they fail, and when
//! there is room again the store goes on by itself, with everything that was acknowledged.
//!
//! The test starts itself in namespaces of its own, where it may mount a small file system in memory.

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
use futures::StreamExt as _;

const ROLE: &str = "SKEP_STORAGE_DISK_DIR";
const SIZE_MB: u32 = 96;
const ROUNDS: u64 = 4;
const VALUE_BYTES: usize = 40_000;
/// After there is room again.
const RESUMES_WITHIN: Duration = Duration::from_secs(2);

fn main() {
    if let Some(dir) = std::env::var_os(ROLE) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        return runtime.block_on(check(dir.into()));
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

async fn check(dir: PathBuf) {
    let data = dir.join("store");
    let store = EmbeddedStore::open(&data).await.expect("open");
    let changes = store.changes(Rev::FIRST);
    let mut known = Known {
        store,
        changes,
        acknowledged: BTreeMap::new(),
        unknown: BTreeMap::new(),
        newest: Rev::FIRST,
        next: 0,
    };
    let mut waits = Vec::new();
    for round in 0..ROUNDS {
        for _ in 0..20 {
            known.write().await.expect("there is room");
        }
        let filler = fill(&dir);
        let failures = known.write_until_full().await;
        known.reads_go_on().await;
        std::fs::remove_file(filler).expect("make room");
        let freed = Instant::now();
        while known.write().await.is_err() {
            assert!(
                freed.elapsed() < RESUMES_WITHIN,
                "round {round}: no writes again"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        waits.push(freed.elapsed());
        known.stream_has_all().await;
        known.compare(&known.store).await;
        // Room for the next round: overwritten values are forgotten.
        known.store.compact(known.newest).await.expect("compact");
        println!("round {round}: {failures} refused");
    }
    let Known { store, changes, .. } = known;
    drop(changes);
    store.close().await;
    let store = EmbeddedStore::open(&data).await.expect("open again");
    let rev = store.barrier().await.expect("a revision");
    println!("{ROUNDS} rounds, revision {rev}, writes again after {waits:?}");
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

    /// Until the refusal is certain and says that the disk is full.
    async fn write_until_full(&mut self) -> u32 {
        let started = Instant::now();
        let mut failures = 0;
        loop {
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "the disk is not full"
            );
            match self.write().await {
                Ok(()) => {}
                Err(error @ CommitError::Unavailable(_)) if is_full(&error) => return failures + 1,
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
        let mut load = store.load(b"").await.expect("load");
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

fn is_full(error: &CommitError) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.kind() == ErrorKind::StorageFull;
        }
        cause = error.source();
    }
    false
}
