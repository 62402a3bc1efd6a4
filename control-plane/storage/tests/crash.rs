//! A writer is killed in the middle of its writes, again and again; nothing acknowledged is lost.
//!
//! The test starts itself as the writer (no test harness: the same program has two roles). The
//! writer has several tasks that create, overwrite and delete keys of their own and tells each
//! acknowledged commit on its standard output, so the parent knows what must be there. After the
//! kill the parent opens the store and compares: each task's state is what was acknowledged, or
//! that and its one commit in flight; revisions never go back and are never given twice. Values are
//! large enough that the engine writes tables and drops journals on the way.

#![expect(
    clippy::panic,
    clippy::print_stdout,
    reason = "a test with a main of its own"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use control_plane_storage::{EmbeddedStore, Expect, Op, Rev, Store};
use futures::StreamExt as _;

const KILLS: u64 = 50;
const TASKS: u64 = 6;
/// Acknowledged commits before a kill: from this many up to four times as many.
const COMMITS_MIN: u64 = 20;
const ROLE: &str = "SKEP_STORAGE_CRASH_DIR";

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match std::env::var_os(ROLE) {
        Some(dir) => runtime.block_on(write(dir.into())),
        None => runtime.block_on(check()),
    }
}

/// One task's commit `n`: creates key `n`, overwrites the one before, deletes the one before that.
fn ops(task: u64, n: u64) -> Vec<Op> {
    let key = |n: u64| format!("t{task}/{:03}", n % 200);
    let value = |n: u64| {
        format!(
            "{task}.{n}.{}",
            "v".repeat(usize::try_from(n % 7).expect("a small number") * 4000)
        )
    };
    let mut ops = vec![Op::put(key(n), value(n), Expect::Absent)];
    if n > 0 {
        ops.push(Op::put(key(n - 1), value(n), Expect::Any));
    }
    if n > 1 {
        ops.push(Op::delete(key(n - 2), Expect::Any));
    }
    ops
}

/// The task's keys after its commit `n`.
fn state(task: u64, n: u64) -> Entries {
    let mut entries = BTreeMap::new();
    for op in ops(task, n) {
        if let Op::Put { key, value, .. } = op {
            entries.insert(key.to_vec(), value.to_vec());
        }
    }
    entries
}

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// The writer: runs until it is killed. Tells `task n revision` after each acknowledgement.
async fn write(dir: std::path::PathBuf) {
    let store = Arc::new(EmbeddedStore::open(dir).await.expect("open the store"));
    let entries = read(&*store).await.1;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let store = Arc::clone(&store);
        let mut n = done(&entries, task).map_or(0, |n| n + 1);
        tasks.spawn(async move {
            loop {
                let rev = store.commit(ops(task, n)).await.expect("a commit").rev;
                // One write call a line: lines of tasks do not mix, and none is half told.
                let line = format!("{task} {n} {rev}\n");
                std::io::stdout()
                    .lock()
                    .write_all(line.as_bytes())
                    .expect("tell the parent");
                if n.is_multiple_of(16) && task == 0 {
                    store
                        .compact(Rev(rev.0.saturating_sub(40)))
                        .await
                        .expect("compact");
                }
                n += 1;
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

/// The number of the task's newest commit, as its keys show it.
fn done(entries: &Entries, task: u64) -> Option<u64> {
    let prefix = format!("t{task}/").into_bytes();
    let values = entries
        .iter()
        .filter(|(key, _)| key.starts_with(&prefix))
        .map(|(_, value)| value);
    values.map(|value| number(value)).max()
}

fn number(value: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(value);
    text.split('.')
        .nth(1)
        .expect("task.number.filler")
        .parse()
        .expect("a number")
}

async fn read(store: &dyn Store) -> (Rev, Entries) {
    let load = store.load(b"").await.expect("load");
    let mut pages = load.pages;
    let mut entries = Entries::new();
    while let Some(page) = pages.next().await {
        let page = page.expect("a page");
        entries.extend(
            page.into_iter()
                .map(|entry| (entry.key.to_vec(), entry.value.to_vec())),
        );
    }
    (load.rev, entries)
}

/// What was acknowledged: each task's newest commit, and the newest revision.
#[derive(Debug, Default)]
struct Acknowledged {
    newest: BTreeMap<u64, u64>,
    rev: u64,
    /// The store's revision when the writer started: all it is given must be above.
    floor: u64,
    revs: BTreeSet<u64>,
}

impl Acknowledged {
    fn note(&mut self, line: &str) {
        let numbers: Vec<u64> = line
            .split(' ')
            .map(|number| number.parse().expect("a number"))
            .collect();
        let [task, n, rev] = numbers[..] else {
            panic!("a line of three numbers: {line}")
        };
        let before = self.newest.insert(task, n);
        assert!(
            before.is_none_or(|before| n > before),
            "task {task} goes on: {before:?} {n}"
        );
        self.rev = self.rev.max(rev);
        assert!(
            rev > self.floor,
            "revision {rev} of task {task} is not above {}",
            self.floor
        );
        assert!(self.revs.insert(rev), "revision {rev} was given twice");
    }
}

struct Writer(Child);

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

async fn check() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut acknowledged = Acknowledged::default();
    let mut found_rev = Rev(0);
    let mut in_flight = 0;
    for round in 0..KILLS {
        run_and_kill(dir.path(), round, &mut acknowledged);
        let store = EmbeddedStore::open(dir.path())
            .await
            .expect("open after the kill");
        let (rev, entries) = read(&store).await;
        assert!(
            rev >= found_rev,
            "round {round}: from {found_rev} back to {rev}"
        );
        assert!(
            rev.0 >= acknowledged.rev,
            "round {round}: {rev} < {}",
            acknowledged.rev
        );
        let mut expected = Entries::new();
        for (&task, &n) in &acknowledged.newest {
            let found = done(&entries, task).expect("the task has keys");
            assert!(
                found == n || found == n + 1,
                "round {round}: {task}: {found}, not {n}"
            );
            in_flight += found - n;
            expected.extend(state(task, found));
        }
        let unheard = |key: &[u8]| {
            !acknowledged
                .newest
                .keys()
                .any(|task| key.starts_with(format!("t{task}/").as_bytes()))
        };
        let found: Entries = entries
            .into_iter()
            .filter(|(key, _)| !unheard(key))
            .collect();
        assert!(
            found == expected,
            "round {round}: keys differ from the acknowledged ones"
        );
        found_rev = rev;
        acknowledged.floor = rev.0;
        store.close().await;
    }
    assert!(acknowledged.revs.len() as u64 >= KILLS * COMMITS_MIN);
    println!(
        "{KILLS} kills, {} acknowledged commits, none lost; {in_flight} in flight were kept; \
         revision {found_rev}",
        acknowledged.revs.len()
    );
}

/// Starts the writer, lets it acknowledge some commits and kills it in the middle of the next.
fn run_and_kill(dir: &std::path::Path, round: u64, acknowledged: &mut Acknowledged) {
    let program = std::env::current_exe().expect("this program");
    let child = Command::new(program)
        .env(ROLE, dir)
        .stdout(Stdio::piped())
        .spawn();
    let mut writer = Writer(child.expect("start the writer"));
    let mut lines = BufReader::new(writer.0.stdout.take().expect("its output")).lines();
    // Spread over the range, the same in each run.
    let commits = COMMITS_MIN + (round * 7919) % (3 * COMMITS_MIN);
    for _ in 0..commits {
        let line = lines
            .next()
            .expect("the writer ended by itself")
            .expect("read a line");
        acknowledged.note(&line);
    }
    writer.0.kill().expect("kill the writer");
    writer.0.wait().expect("the writer's end");
    // What it still told before the kill was acknowledged too.
    for line in lines {
        acknowledged.note(&line.expect("read a line"));
    }
}
