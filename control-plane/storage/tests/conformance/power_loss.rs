//! The power fails at every write of a history: what was not synced is lost, in whole or in part.
//!
//! The engine appends to one journal and syncs it before a commit is acknowledged. So after a power loss
//! between two acknowledgements the journal is what it was at the first, and of the bytes behind it
//! there is anything: nothing, a part, the end without the beginning, all. `head` is never synced, so
//! it may be any older one. Each of these directories is made and opened. (That the sync is really asked
//! for is not shown here.)

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use control_plane_storage::{EmbeddedStore, Expect, Op, Rev};

use crate::{commit, load, put};

const COMMITS: usize = 60;
/// The history stays below this, so the rest of the journal is empty.
const JOURNAL_BYTES: usize = 1 << 20;
/// What a disk writes at once.
const SECTOR: usize = 512;

type State = BTreeMap<String, String>;

/// What is acknowledged after a commit, and how long the journal was then.
struct Acknowledged {
    rev: Rev,
    state: State,
    journal: usize,
    head: Vec<u8>,
}

/// What became of the bytes that were not synced.
#[derive(Debug, Clone, Copy)]
enum Loss {
    All,
    /// Only the first sector, or the first half of less, arrived.
    Tail,
    /// Only the end arrived.
    Front,
    /// Every other sector arrived.
    Stripes,
    None,
}

const LOSSES: [Loss; 5] = [
    Loss::All,
    Loss::Tail,
    Loss::Front,
    Loss::Stripes,
    Loss::None,
];

impl Loss {
    fn apply(self, unsynced: &mut [u8]) {
        let len = unsynced.len();
        let first = SECTOR.min(len / 2);
        match self {
            Self::All => unsynced.fill(0),
            Self::Tail => unsynced[first..].fill(0),
            Self::Front => unsynced[..first].fill(0),
            Self::Stripes => unsynced
                .chunks_mut(SECTOR)
                .step_by(2)
                .for_each(|part| part.fill(0)),
            Self::None => {}
        }
    }
}

#[tokio::test]
async fn no_acknowledged_write_is_lost_wherever_the_power_fails() {
    let temp = tempfile::tempdir().unwrap();
    let origin = temp.path().join("origin");
    let (history, journal) = record(&origin).await;
    let mut opened = 0;
    for (n, now) in history.iter().enumerate() {
        let next = history.get(n + 1);
        let end = next.map_or(now.journal, |next| next.journal);
        for loss in LOSSES {
            let mut bytes = journal[..end].to_vec();
            loss.apply(&mut bytes[now.journal..]);
            // The head of now, of long ago, and none.
            let head = match n % 3 {
                0 => now.head.clone(),
                1 => history[n / 2].head.clone(),
                _ => Vec::new(),
            };
            let dir = temp.path().join("lost");
            remake(&origin, &dir, &bytes, &head);
            check(&dir, now, next, &format!("after commit {n}, lost {loss:?}")).await;
            fs::remove_dir_all(&dir).unwrap();
            opened += 1;
        }
    }
    assert_eq!(opened, (COMMITS + 1) * LOSSES.len());
}

/// Commits of all kinds, and what was known after each.
async fn record(dir: &Path) -> (Vec<Acknowledged>, Vec<u8>) {
    let store = EmbeddedStore::open(dir).await.unwrap();
    let mut state = State::new();
    let mut history = vec![acknowledged(dir, Rev::FIRST, &state)];
    for n in 0..COMMITS {
        let key = |n: usize| format!("k{}", n % 7);
        let value = format!("{n}.{}", "v".repeat(n * n % 3000));
        let mut ops = vec![Op::put(key(n), value.clone(), Expect::Any)];
        state.insert(key(n), value.clone());
        if n % 3 == 0 {
            ops.push(Op::put(key(n + 1), value.clone(), Expect::Any));
            state.insert(key(n + 1), value);
        }
        if n % 4 == 0 {
            ops.push(Op::delete(key(n + 3), Expect::Any));
            state.remove(&key(n + 3));
        }
        let rev = commit(&store, ops).await;
        history.push(acknowledged(dir, rev, &state));
    }
    let journal = read_journal(dir);
    store.close().await;
    (history, journal)
}

fn acknowledged(dir: &Path, rev: Rev, state: &State) -> Acknowledged {
    let journal = read_journal(dir);
    let used = journal.iter().rposition(|byte| *byte != 0);
    Acknowledged {
        rev,
        state: state.clone(),
        journal: used.map_or(0, |last| last + 1),
        head: fs::read(dir.join("head")).unwrap(),
    }
}

fn journal_path(dir: &Path) -> PathBuf {
    let is_journal = |path: &PathBuf| path.extension().is_some_and(|end| end == "jnl");
    let files = fs::read_dir(dir.join("db")).unwrap();
    let mut found: Vec<PathBuf> = files
        .map(|file| file.unwrap().path())
        .filter(is_journal)
        .collect();
    assert_eq!(found.len(), 1, "one journal: {found:?}");
    found.remove(0)
}

fn read_journal(dir: &Path) -> Vec<u8> {
    let file = fs::File::open(journal_path(dir)).unwrap();
    let mut bytes = vec![0; JOURNAL_BYTES];
    let read = file.read_at(&mut bytes, 0).unwrap();
    bytes.truncate(read);
    bytes
}

/// The directory as it was, with another journal and head.
fn remake(origin: &Path, dir: &Path, journal: &[u8], head: &[u8]) {
    copy(origin, dir);
    fs::write(dir.join("head"), head).unwrap();
    let path = journal_path(dir);
    let size = fs::metadata(journal_path(origin)).unwrap().len();
    let file = fs::File::create(path).unwrap();
    file.set_len(size).unwrap();
    file.write_all_at(journal, 0).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if target.extension().is_some_and(|end| end == "jnl") {
            fs::File::create(&target).unwrap();
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// The store opens with what was acknowledged, or with that and the whole next commit; and goes on.
async fn check(dir: &Path, now: &Acknowledged, next: Option<&Acknowledged>, what: &str) {
    let store = EmbeddedStore::open(dir)
        .await
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let (rev, entries) = load(&store, "").await;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let found: State = entries
        .iter()
        .map(|entry| (text(&entry.key), text(&entry.value)))
        .collect();
    let expected = [Some(now), next]
        .into_iter()
        .flatten()
        .find(|acknowledged| acknowledged.rev == rev)
        .unwrap_or_else(|| panic!("{what}: revision {rev}, {} was acknowledged", now.rev));
    assert!(found == expected.state, "{what}: {:?}", found.keys());
    assert_eq!(put(&store, "new", "1").await, rev.next(), "{what}");
    store.close().await;
}
