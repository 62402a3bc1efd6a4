//! The cases. Each takes a fresh store of any engine.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use control_plane_storage::{
    COMMIT_BYTES_MAX, ChangesError, CommitError, CompactError, Current, Expect, KEY_BYTES_MAX,
    OPS_MAX, Op, Rev, Store,
};
use futures::StreamExt as _;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{commit, load, lossy, next, next_change, put, put_op, text, within};

type Shared = Arc<dyn Store>;

pub(crate) use crate::model::random_commits_do_what_the_model_does;

pub(crate) async fn a_fresh_store_is_empty_and_above_revision_zero(store: Shared) {
    let (rev, entries) = load(&*store, "").await;
    assert_eq!((rev, entries.len()), (Rev::FIRST, 0));
    assert_eq!(store.barrier().await.unwrap(), Rev::FIRST);
}

pub(crate) async fn a_commit_takes_the_next_revision_and_is_loaded(store: Shared) {
    assert_eq!(put(&*store, "a", "1").await, Rev(2));
    assert_eq!(put(&*store, "b", "2").await, Rev(3));
    assert_eq!(put(&*store, "a", "3").await, Rev(4));
    assert_eq!(
        commit(&*store, vec![Op::delete("b", Expect::Rev(Rev(3)))]).await,
        Rev(5)
    );
    let (rev, entries) = load(&*store, "").await;
    let entries: Vec<_> = entries
        .iter()
        .map(|entry| (lossy(&entry.key), lossy(&entry.value), entry.rev))
        .collect();
    assert_eq!(
        (rev, entries),
        (Rev(5), vec![("a".to_owned(), "3".to_owned(), Rev(4))])
    );
}

/// `None`: committed. Otherwise the conflict's operation and the key's value and revision there.
type Outcome = Option<(usize, Option<(String, u64)>)>;

async fn outcome(store: &dyn Store, ops: Vec<Op>) -> Outcome {
    match store.commit(ops).await {
        Ok(_) => None,
        Err(CommitError::Conflict { index, current }) => Some((
            index,
            current.map(|Current { value, rev }| (lossy(&value), rev.0)),
        )),
        Err(error) => panic!("{error}"),
    }
}

pub(crate) async fn an_unmet_expectation_writes_nothing_and_tells_what_is_there(store: Shared) {
    put(&*store, "a", "1").await;
    let there = || Some(("1".to_owned(), 2));
    let put = |key: &'static str, expect| Op::put(key, "new", expect);
    for (ops, expected) in [
        (vec![put("a", Expect::Absent)], (0, there())),
        (vec![put("a", Expect::Rev(Rev(1)))], (0, there())),
        (vec![put("a", Expect::Rev(Rev(3)))], (0, there())),
        (vec![put("b", Expect::Rev(Rev(2)))], (0, None)),
        (vec![put("b", Expect::Rev(Rev(0)))], (0, None)),
        (vec![Op::delete("b", Expect::Rev(Rev(2)))], (0, None)),
        (vec![Op::delete("a", Expect::Absent)], (0, there())),
        (
            vec![
                put("b", Expect::Absent),
                put("c", Expect::Any),
                put("a", Expect::Absent),
            ],
            (2, there()),
        ),
        (
            vec![put("b", Expect::Rev(Rev(9))), put("a", Expect::Absent)],
            (0, None),
        ),
    ] {
        assert_eq!(
            outcome(&*store, ops.clone()).await,
            Some(expected),
            "{ops:?}"
        );
    }
    let (rev, entries) = load(&*store, "").await;
    assert_eq!((rev, entries.len()), (Rev(2), 1), "nothing was written");
    assert_eq!(
        outcome(&*store, vec![put("a", Expect::Rev(Rev(2)))]).await,
        None
    );
    assert_eq!(outcome(&*store, vec![put("b", Expect::Absent)]).await, None);
}

pub(crate) async fn several_operations_have_one_revision(store: Shared) {
    put(&*store, "gone", "x").await;
    let mut changes = store.changes(Rev(2));
    let ops = vec![
        Op::put("a", "1", Expect::Absent),
        Op::delete("gone", Expect::Rev(Rev(2))),
        Op::put("b", "2", Expect::Absent),
    ];
    assert_eq!(commit(&*store, ops).await, Rev(3));
    assert_eq!(text(&next_change(&mut changes).await), "3: a=1 b=2 -gone");
    let (_, entries) = load(&*store, "").await;
    assert!(entries.iter().all(|entry| entry.rev == Rev(3)) && entries.len() == 2);

    let most: Vec<_> = (0..OPS_MAX)
        .map(|n| put_op(&format!("many/{n:03}"), "x"))
        .collect();
    assert_eq!(commit(&*store, most).await, Rev(4));
    assert_eq!(next_change(&mut changes).await.changes.len(), OPS_MAX);
}

pub(crate) async fn a_commit_that_changes_nothing_takes_no_revision(store: Shared) {
    put(&*store, "a", "1").await;
    for ops in [
        vec![Op::delete("b", Expect::Any)],
        vec![Op::delete("b", Expect::Absent)],
        vec![Op::Check {
            key: "a".into(),
            expect: Expect::Rev(Rev(2)),
        }],
    ] {
        assert_eq!(commit(&*store, ops.clone()).await, Rev(2), "{ops:?}");
    }
    assert_eq!(
        put(&*store, "a", "1").await,
        Rev(3),
        "an equal value is a change all the same"
    );
}

pub(crate) async fn a_check_guards_a_commit_without_writing(store: Shared) {
    put(&*store, "namespace", "active").await;
    let guarded = |key: &'static str, rev| {
        let guard = Op::Check {
            key: "namespace".into(),
            expect: Expect::Rev(Rev(rev)),
        };
        vec![guard, Op::put(key, "x", Expect::Absent)]
    };
    assert_eq!(outcome(&*store, guarded("a", 2)).await, None);
    put(&*store, "namespace", "terminating").await;
    let expected = Some((0, Some(("terminating".to_owned(), 4))));
    assert_eq!(outcome(&*store, guarded("b", 2)).await, expected);
    let keys: Vec<_> = load(&*store, "")
        .await
        .1
        .into_iter()
        .map(|entry| entry.key)
        .collect();
    assert_eq!(keys, ["a", "namespace"]);
}

pub(crate) async fn what_is_too_much_is_refused_and_what_is_just_enough_is_not(store: Shared) {
    let big = |len: usize| Op::put("big", vec![b'v'; len], Expect::Any);
    assert_eq!(
        commit(&*store, vec![big(COMMIT_BYTES_MAX - 3)]).await,
        Rev(2)
    );
    let error = store
        .commit(vec![big(COMMIT_BYTES_MAX - 2)])
        .await
        .unwrap_err();
    assert!(matches!(error, CommitError::TooLarge { .. }));
    let key = "k".repeat(KEY_BYTES_MAX);
    assert_eq!(put(&*store, &key, "long").await, Rev(3));
    let error = store
        .commit(vec![put_op(&format!("{key}k"), "")])
        .await
        .unwrap_err();
    assert!(matches!(error, CommitError::BadKey { .. }));
    let error = store
        .commit(vec![put_op("a", ""), put_op("a", "")])
        .await
        .unwrap_err();
    assert!(matches!(error, CommitError::DuplicateKey { index: 1 }));

    let (_, entries) = load(&*store, "").await;
    assert_eq!(entries[0].value.len(), COMMIT_BYTES_MAX - 3);
    let batch = next_change(&mut store.changes(Rev::FIRST)).await;
    assert_eq!(
        (batch.rev, batch.changes[0].key()),
        (Rev(2), &Bytes::from("big"))
    );
    assert_eq!(
        outcome(&*store, vec![Op::put("big", "", Expect::Absent)])
            .await
            .unwrap()
            .0,
        0
    );
}

pub(crate) async fn keys_and_values_are_any_bytes(store: Shared) {
    let keys: Vec<Vec<u8>> = vec![
        vec![0],
        vec![0, 0],
        vec![0, 255],
        b"/".to_vec(),
        b"a\0b".to_vec(),
        vec![255, 255],
    ];
    for key in &keys {
        commit(
            &*store,
            vec![Op::put(key.clone(), key.clone(), Expect::Absent)],
        )
        .await;
    }
    commit(
        &*store,
        vec![Op::put(keys[0].clone(), Bytes::new(), Expect::Any)],
    )
    .await;
    let (_, entries) = load(&*store, "").await;
    let found: Vec<_> = entries.iter().map(|entry| entry.key.to_vec()).collect();
    assert_eq!(found, keys, "in the order of their bytes");
    assert!(entries[0].value.is_empty());
    assert!(entries[1..].iter().all(|entry| entry.value == entry.key));
    let found = store
        .load(&[0])
        .await
        .unwrap()
        .pages
        .next()
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.len(), 3);
    let found = store
        .load(&[255])
        .await
        .unwrap()
        .pages
        .next()
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.len(), 1);
}

pub(crate) async fn a_prefix_selects_and_pages_are_in_order(store: Shared) {
    const KEYS: usize = 1203;
    let keys: Vec<_> = (0..KEYS).map(|n| format!("p/{n:05}")).collect();
    for chunk in keys.chunks(OPS_MAX) {
        commit(&*store, chunk.iter().map(|key| put_op(key, key)).collect()).await;
    }
    for other in ["o/z", "p", "p0", "q/0"] {
        put(&*store, other, "other").await;
    }
    let (_, entries) = load(&*store, "p/").await;
    let found: Vec<_> = entries.iter().map(|entry| lossy(&entry.key)).collect();
    assert_eq!(found, keys);
    assert_eq!(load(&*store, "").await.1.len(), KEYS + 4);
    assert_eq!(load(&*store, "nothing").await.1.len(), 0);
}

pub(crate) async fn a_snapshot_is_of_one_revision_whatever_is_written_meanwhile(store: Shared) {
    for chunk in 0..10 {
        let ops = (0..OPS_MAX)
            .map(|n| put_op(&format!("k{chunk}/{n:03}"), "old"))
            .collect();
        commit(&*store, ops).await;
    }
    let snapshot = store.load(b"").await.unwrap();
    for chunk in 0..10 {
        let ops = (0..OPS_MAX).map(|n| match n % 2 {
            0 => put_op(&format!("k{chunk}/{n:03}"), "new"),
            _ => Op::delete(format!("k{chunk}/{n:03}"), Expect::Any),
        });
        commit(&*store, ops.collect()).await;
    }
    let mut pages = snapshot.pages;
    let mut count = 0;
    while let Some(page) = pages.next().await {
        for entry in page.unwrap() {
            assert_eq!(
                (lossy(&entry.value).as_str(), entry.rev <= snapshot.rev),
                ("old", true)
            );
            count += 1;
        }
    }
    assert_eq!(count, 10 * OPS_MAX);
}

pub(crate) async fn history_is_repeated_from_any_revision(store: Shared) {
    let mut expected = Vec::new();
    for n in 2..42 {
        let (ops, text) = match n % 3 {
            0 => (
                vec![Op::delete("k2", Expect::Any), put_op("k0", "z")],
                format!("{n}: k0=z -k2"),
            ),
            1 => (vec![put_op("k1", &format!("{n}"))], format!("{n}: k1={n}")),
            _ => (vec![put_op("k2", &format!("{n}"))], format!("{n}: k2={n}")),
        };
        assert_eq!(commit(&*store, ops).await, Rev(n));
        expected.push(text);
    }
    for after in [1, 2, 20, 40] {
        let mut changes = store.changes(Rev(after));
        for expected in &expected[usize::try_from(after).unwrap() - 1..] {
            assert_eq!(text(&next_change(&mut changes).await), *expected);
        }
    }
    let error = next(&mut store.changes(Rev(0))).await.unwrap_err();
    assert!(
        matches!(error, ChangesError::Compacted { .. }),
        "0 names no state: {error}"
    );
}

pub(crate) async fn a_commit_is_in_every_open_stream(store: Shared) {
    let mut streams: Vec<_> = (0..5).map(|_| store.changes(Rev::FIRST)).collect();
    for n in 2..7 {
        put(&*store, "a", "1").await;
        for stream in &mut streams {
            assert_eq!(next_change(stream).await.rev, Rev(n));
        }
    }
}

pub(crate) async fn snapshot_and_stream_join_without_a_gap(store: Shared) {
    const WRITERS: u64 = 4;
    const EACH: u64 = 60;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            for n in 0..EACH {
                put(&*store, &format!("k/{writer}/{n:03}"), "x").await;
                tokio::task::yield_now().await;
            }
        });
    }
    let last = Rev(1 + WRITERS * EACH);
    let mut joined = 0;
    while joined < 5 {
        let (rev, entries) = load(&*store, "").await;
        assert_eq!(
            entries.len() as u64,
            rev.0 - 1,
            "each revision made one key"
        );
        let mut keys: Vec<_> = entries.into_iter().map(|entry| entry.key).collect();
        let mut changes = store.changes(rev);
        let mut at = rev;
        while at < last {
            let batch = next_change(&mut changes).await;
            assert_eq!(batch.rev, at.next(), "none is missing, none comes twice");
            at = batch.rev;
            keys.push(batch.changes[0].key().clone());
        }
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len() as u64, WRITERS * EACH);
        joined += 1;
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
}

pub(crate) async fn compaction_takes_the_past_and_nothing_else(store: Shared) {
    for n in 0..10 {
        put(&*store, &format!("k{}", n % 3), &format!("{n}")).await;
    }
    commit(&*store, vec![Op::delete("k1", Expect::Any)]).await;
    let (rev, before) = load(&*store, "").await;
    assert_eq!(rev, Rev(12));
    store.compact(Rev(8)).await.unwrap();
    store.compact(Rev(8)).await.unwrap();
    store.compact(Rev(3)).await.unwrap();
    for after in [1, 6, 7] {
        let error = next(&mut store.changes(Rev(after))).await.unwrap_err();
        let ChangesError::Compacted {
            after: asked,
            compacted,
        } = error
        else {
            panic!("{error}")
        };
        assert_eq!((asked, compacted), (Rev(after), Rev(8)));
    }
    let mut changes = store.changes(Rev(8));
    for expected in ["9: k1=7", "10: k2=8", "11: k0=9", "12: -k1"] {
        assert_eq!(text(&next_change(&mut changes).await), expected);
    }
    assert_eq!(load(&*store, "").await, (rev, before.clone()));

    store.compact(Rev(12)).await.unwrap();
    assert_eq!(load(&*store, "").await, (rev, before));
    let error = store.compact(Rev(13)).await.unwrap_err();
    assert!(
        matches!(
            error,
            CompactError::Future {
                upto: Rev(13),
                current: Rev(12)
            }
        ),
        "{error}"
    );
    assert_eq!(put(&*store, "k0", "new").await, Rev(13), "revisions go on");
    assert_eq!(text(&next_change(&mut changes).await), "13: k0=new");
    assert_eq!(
        text(&next_change(&mut store.changes(Rev(12))).await),
        "13: k0=new"
    );
    let overwritten = Op::put("k2", "newer", Expect::Rev(Rev(10)));
    assert_eq!(commit(&*store, vec![overwritten]).await, Rev(14));
    assert_eq!(load(&*store, "").await.1.len(), 2);
}

pub(crate) async fn a_revision_from_the_future_is_refused(store: Shared) {
    put(&*store, "a", "1").await;
    let error = next(&mut store.changes(Rev(40))).await.unwrap_err();
    assert!(
        matches!(
            error,
            ChangesError::Future {
                after: Rev(40),
                current: Rev(2)
            }
        ),
        "{error}"
    );
}

fn put_for(key: &'static str, ttl_ms: u64) -> Op {
    let ttl = Some(Duration::from_millis(ttl_ms));
    Op::Put {
        key: key.into(),
        value: "x".into(),
        expect: Expect::Any,
        ttl,
    }
}

pub(crate) async fn a_key_with_a_time_to_live_goes_and_is_reported(store: Shared) {
    let began = Instant::now();
    commit(
        &*store,
        vec![put_for("soon", 1000), put_for("later", 600_000)],
    )
    .await;
    commit(&*store, vec![put_for("kept", 1000)]).await;
    commit(&*store, vec![put_for("longer", 1000)]).await;
    let kept = commit(
        &*store,
        vec![put_op("kept", "y"), put_for("longer", 600_000)],
    )
    .await;
    let mut changes = store.changes(kept);
    assert_eq!(text(&next_change(&mut changes).await), "6: -soon");
    assert!(
        began.elapsed() >= Duration::from_millis(999),
        "{:?}",
        began.elapsed()
    );
    let keys: Vec<_> = load(&*store, "")
        .await
        .1
        .into_iter()
        .map(|entry| entry.key)
        .collect();
    assert_eq!(keys, ["kept", "later", "longer"]);
    assert_eq!(put(&*store, "soon", "again").await, Rev(7));
}

pub(crate) async fn only_one_of_many_creators_wins(store: Shared) {
    let mut creators = JoinSet::new();
    for n in 0..32 {
        let store = Arc::clone(&store);
        let op = Op::put("only", format!("{n}"), Expect::Absent);
        creators.spawn(async move { store.commit(vec![op]).await });
    }
    let mut won = 0;
    let mut seen = Vec::new();
    while let Some(result) = within("a creator", creators.join_next()).await {
        match result.unwrap() {
            Ok(_) => won += 1,
            Err(CommitError::Conflict {
                index: 0,
                current: Some(current),
            }) => seen.push(current),
            Err(error) => panic!("{error}"),
        }
    }
    let (_, entries) = load(&*store, "").await;
    assert_eq!((won, seen.len()), (1, 31));
    assert!(
        seen.iter()
            .all(|seen| seen.value == entries[0].value && seen.rev == entries[0].rev)
    );
}

pub(crate) async fn concurrent_updates_are_lost_for_nobody(store: Shared) {
    const WORKERS: u64 = 8;
    const EACH: u64 = 12;
    put(&*store, "counter", "0").await;
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        let store = Arc::clone(&store);
        workers.spawn(async move {
            let mut at = Current {
                value: "0".into(),
                rev: Rev(2),
            };
            let mut done = 0;
            while done < EACH {
                let value = lossy(&at.value).parse::<u64>().unwrap() + 1;
                let op = Op::put("counter", value.to_string(), Expect::Rev(at.rev));
                at = match store.commit(vec![op]).await {
                    Ok(commit) => {
                        done += 1;
                        Current {
                            value: value.to_string().into(),
                            rev: commit.rev,
                        }
                    }
                    Err(CommitError::Conflict { current, .. }) => current.unwrap(),
                    Err(error) => panic!("{error}"),
                };
            }
        });
    }
    while let Some(worker) = within("a worker", workers.join_next()).await {
        worker.unwrap();
    }
    let (rev, entries) = load(&*store, "").await;
    assert_eq!(lossy(&entries[0].value), (WORKERS * EACH).to_string());
    assert_eq!(rev, Rev(2 + WORKERS * EACH), "a conflict takes no revision");
}

pub(crate) async fn a_barrier_covers_what_was_acknowledged_and_streams_reach_it(store: Shared) {
    let mut changes = store.changes(Rev::FIRST);
    for n in 2..12 {
        let rev = put(&*store, "a", "1").await;
        let barriers = (0..4).map(|_| store.barrier());
        for barrier in futures::future::join_all(barriers).await {
            assert!(barrier.unwrap() >= rev);
        }
        while next(&mut changes).await.unwrap().rev < Rev(n) {}
    }
}
