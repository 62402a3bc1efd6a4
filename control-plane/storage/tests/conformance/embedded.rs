//! The suite on the embedded engine, and what its directory promises.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use control_plane_storage::{
    ChangesError, EmbeddedStore, Entry, Expect, Op, OpenError, Rev, Store, read_snapshot,
    save_snapshot,
};
use tempfile::TempDir;

use crate::{commit, load, lossy, next, next_change, put, put_op, text};

async fn fresh() -> (Arc<dyn Store>, TempDir) {
    let temp = tempfile::tempdir().unwrap();
    (
        Arc::new(EmbeddedStore::open(temp.path()).await.unwrap()),
        temp,
    )
}

crate::suite!(fresh());

#[tokio::test]
async fn a_reopened_store_has_its_keys_its_revision_and_its_history() {
    let temp = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(temp.path()).await.unwrap();
    for n in 2..30 {
        put(&store, &format!("k{}", n % 4), &format!("{n}")).await;
    }
    commit(
        &store,
        vec![Op::delete("k1", Expect::Any), put_op("k2", "last")],
    )
    .await;
    let before = load(&store, "").await;
    store.close().await;

    let store = EmbeddedStore::open(temp.path()).await.unwrap();
    assert_eq!(load(&store, "").await, before);
    let mut changes = store.changes(Rev(27));
    for expected in ["28: k0=28", "29: k1=29", "30: -k1 k2=last"] {
        assert_eq!(text(&next_change(&mut changes).await), expected);
    }
    assert_eq!(put(&store, "k3", "new").await, Rev(31));
    assert_eq!(text(&next_change(&mut changes).await), "31: k3=new");
}

#[tokio::test]
async fn the_revision_stays_when_the_last_commits_were_compacted_away() {
    let temp = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(temp.path()).await.unwrap();
    put(&store, "kept", "x").await;
    put(&store, "a", "1").await;
    let last = commit(&store, vec![Op::delete("a", Expect::Any)]).await;
    store.compact(last).await.unwrap();
    store.close().await;

    let store = EmbeddedStore::open(temp.path()).await.unwrap();
    let (rev, entries) = load(&store, "").await;
    assert_eq!((rev, entries.len()), (Rev(4), 1));
    let error = next(&mut store.changes(Rev(3))).await.unwrap_err();
    assert!(
        matches!(
            error,
            ChangesError::Compacted {
                compacted: Rev(4),
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(put(&store, "a", "2").await, Rev(5));
}

#[tokio::test]
async fn a_stream_far_behind_reads_from_the_log_and_then_from_memory() {
    const COMMITS: u64 = 80;
    let temp = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(temp.path()).await.unwrap();
    let value = "v".repeat(1_000_000);
    // More than the memory keeps.
    for n in 0..COMMITS {
        put(&store, &format!("k{}", n % 3), &value).await;
    }
    let mut changes = store.changes(Rev::FIRST);
    for n in 0..COMMITS {
        let batch = next_change(&mut changes).await;
        assert_eq!(
            (batch.rev, lossy(batch.changes[0].key())),
            (Rev(n + 2), format!("k{}", n % 3))
        );
    }
    put(&store, "a", "1").await;
    assert_eq!(
        text(&next_change(&mut changes).await),
        format!("{}: a=1", COMMITS + 2)
    );
}

#[tokio::test]
async fn a_key_that_expired_while_the_store_was_closed_goes_after_opening() {
    let temp = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(temp.path()).await.unwrap();
    let ttl = Some(std::time::Duration::from_millis(1));
    let expect = Expect::Any;
    commit(
        &store,
        vec![Op::Put {
            key: "a".into(),
            value: "1".into(),
            expect,
            ttl,
        }],
    )
    .await;
    store.close().await;
    let store = EmbeddedStore::open(temp.path()).await.unwrap();
    assert_eq!(
        text(&next_change(&mut store.changes(Rev(2))).await),
        "3: -a"
    );
}

#[tokio::test]
async fn a_closed_store_refuses_and_its_directory_is_free() {
    let temp = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(temp.path()).await.unwrap();
    let error = EmbeddedStore::open(temp.path()).await.unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    let mut changes = store.changes(Rev::FIRST);
    put(&store, "a", "1").await;
    store.close().await;
    assert_eq!(
        text(&next_change(&mut changes).await),
        "2: a=1",
        "what was there is still read"
    );
    assert!(matches!(
        next(&mut changes).await,
        Err(ChangesError::Closed)
    ));
    drop(changes);
    EmbeddedStore::open(temp.path()).await.unwrap();
}

/// The engine's newest journal.
fn journal(dir: &Path) -> PathBuf {
    let mut journals: Vec<_> = fs::read_dir(dir.join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .collect();
    journals.sort();
    journals.pop().expect("an open store has a journal")
}

async fn damaged(damage: impl FnOnce(&mut Vec<u8>, usize)) -> Result<EmbeddedStore, OpenError> {
    let temp = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(temp.path()).await.unwrap();
    for n in 0..20 {
        put(&store, &format!("key{n:02}"), "the value").await;
    }
    store.close().await;
    let path = journal(temp.path());
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes
        .windows(5)
        .position(|window| window == b"key10")
        .expect("values are not packed");
    damage(&mut bytes, at);
    fs::write(&path, bytes).unwrap();
    EmbeddedStore::open(temp.path()).await
}

#[tokio::test]
async fn a_flipped_byte_in_the_middle_of_the_journal_stops_the_start() {
    let error = damaged(|bytes, at| bytes[at + 7] ^= 1).await.unwrap_err();
    assert!(matches!(&error, OpenError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn a_journal_that_was_cut_off_before_acknowledged_commits_stops_the_start() {
    let error = damaged(|bytes, at| bytes.truncate(at)).await.unwrap_err();
    let OpenError::Corrupt { record, fault, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(record, "11", "the last whole commit");
    assert!(fault.contains("up to 21 were acknowledged"), "{fault}");
}

#[tokio::test]
async fn a_journal_that_turns_to_zeros_in_the_middle_stops_the_start() {
    let error = damaged(|bytes, at| bytes[at..].fill(0)).await.unwrap_err();
    assert!(matches!(&error, OpenError::Corrupt { .. }), "{error}");
}

/// Names the damaged directory to the process that opens it.
const DAMAGED: &str = "SKEP_STORAGE_DAMAGED_DIR";
/// How that process ends when the store does not open.
const REFUSED: i32 = 3;

/// Each bit that was written matters or is not needed: what is served is what was written. The engine
/// may end its process over what it reads, so each damaged store is opened by one of its own.
#[tokio::test]
async fn a_flipped_bit_in_any_file_is_found_or_changes_nothing() {
    const NAME: &str = "embedded::a_flipped_bit_in_any_file_is_found_or_changes_nothing";
    if let Some(dir) = std::env::var_os(DAMAGED) {
        #[expect(
            clippy::exit,
            reason = "how the test harness ends says only whether the test passed"
        )]
        let Ok(store) = EmbeddedStore::open(dir).await else {
            std::process::exit(REFUSED);
        };
        let served = load(&store, "").await;
        println!("{}", summary(&served));
        return store.close().await;
    }
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let store = EmbeddedStore::open(&dir).await.unwrap();
    for n in 0..20 {
        put(&store, &format!("key{n:02}"), "the value").await;
    }
    store.compact(Rev(10)).await.unwrap();
    let expected = summary(&load(&store, "").await);
    store.close().await;
    let (mut refused, mut ended, mut harmless) = (0, 0, 0);
    for (path, at) in bits(&dir, 400) {
        let damaged = temp.path().join("damaged");
        copy(&dir, &damaged);
        let target = damaged.join(path.strip_prefix(&dir).unwrap());
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&target, &bytes).unwrap();
        let opened = std::process::Command::new(std::env::current_exe().unwrap())
            .args([NAME, "--exact", "--nocapture"])
            .env(DAMAGED, &damaged)
            .stderr(std::process::Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8(opened.stdout).unwrap();
        match opened.status.code() {
            Some(0) => {
                assert!(
                    said.contains(&expected),
                    "byte {at} of {}: {said}",
                    path.display()
                );
                harmless += 1;
            }
            Some(REFUSED) => refused += 1,
            // A panic of the engine.
            _ => ended += 1,
        }
        fs::remove_dir_all(&damaged).unwrap();
    }
    println!("{refused} refused, {ended} ended by the engine, {harmless} changed nothing");
    assert!(
        refused > harmless && refused > ended,
        "{refused}, {ended}, {harmless}"
    );
}

/// Everything that is served, in one word.
fn summary((rev, entries): &(Rev, Vec<Entry>)) -> String {
    let text = format!("{entries:?}");
    format!(
        "served-{rev}-{}-{:08x}",
        entries.len(),
        crc32fast::hash(text.as_bytes())
    )
}

/// About `count` bytes that were written, spread over all files.
fn bits(dir: &Path, count: usize) -> Vec<(PathBuf, usize)> {
    let mut all = Vec::new();
    for path in files(dir) {
        let bytes = fs::read(&path).unwrap();
        let used = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        all.extend((0..used).map(|at| (path.clone(), at)));
    }
    let step = all.len().div_ceil(count);
    all.into_iter().step_by(step).collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.push(path);
        }
    }
    all
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

#[tokio::test]
async fn an_undamaged_journal_opens() {
    damaged(|_, _| {}).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_under_load_is_one_revision_and_a_restored_store_goes_on_above_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path().join("a")).await.unwrap();
    for n in 0..2000 {
        put(&store, &format!("k{n:04}"), "before").await;
    }
    let writes = async {
        let mut n = 0;
        loop {
            // Both keys or none.
            let value = n.to_string();
            commit(
                &store,
                vec![put_op("left", &value), put_op("right", &value)],
            )
            .await;
            n += 1;
            tokio::task::yield_now().await;
        }
    };
    let mut bytes = Vec::new();
    let saved = tokio::select! {
        saved = save_snapshot(&store, &mut bytes, |_| true) => saved.unwrap(),
        () = writes => panic!("writes end"),
    };
    let acknowledged = store.barrier().await.unwrap();
    store.close().await;

    let mut entries = Vec::new();
    let read = read_snapshot(&mut &bytes[..], |entry| entries.push(entry)).await;
    assert_eq!(read.unwrap(), saved);
    let restored = dir.path().join("b");
    let from = entries.clone();
    let begin = EmbeddedStore::restore(&restored, saved.rev, from)
        .await
        .unwrap();
    assert!(begin > acknowledged, "{begin}, {acknowledged}");
    EmbeddedStore::restore(&restored, saved.rev, Vec::new())
        .await
        .expect_err("a store is not overwritten");
    for _ in 0..2 {
        let store = EmbeddedStore::open(&restored).await.unwrap();
        let (rev, found) = load(&store, "k").await;
        assert!(rev >= begin);
        let expected: Vec<_> = entries
            .iter()
            .filter(|e| e.key[0] == b'k')
            .cloned()
            .collect();
        assert_eq!(found, expected);
        let of = |key: &'static str| entries.iter().find(move |entry| entry.key == key);
        assert_eq!(of("left").map(|e| &e.value), of("right").map(|e| &e.value));
        let error = next(&mut store.changes(saved.rev)).await.unwrap_err();
        assert!(matches!(error, ChangesError::Compacted { .. }), "{error}");
        assert_eq!(put(&store, "new", "1").await, rev.next());
        store.close().await;
    }
}
