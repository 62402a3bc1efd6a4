//! One suite, three engines: what the store promises, checked on each of them alike.
//!
//! A case takes a fresh store; `suite!` makes a test of each case for an engine. What only one
//! engine has (a directory, a server) is tested in that engine's file.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests"
)]

mod cases;
mod embedded;
mod etcd;
mod etcd_cluster;
mod etcd_version;
mod faulty;
mod memory;
mod model;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use control_plane_storage::{
    Batch, Change, ChangeStream, ChangesError, Entry, Expect, Op, Rev, Store,
};
use futures::StreamExt as _;

/// How long a test waits for what must happen.
const DEADLINE: Duration = Duration::from_secs(20);

/// Makes a test of each case for one engine. `$fresh`: a future of (store, what keeps it alive).
macro_rules! suite {
    ($fresh:expr) => {
        crate::suite!(@each $fresh,
            a_fresh_store_is_empty_and_above_revision_zero
            a_commit_takes_the_next_revision_and_is_loaded
            an_unmet_expectation_writes_nothing_and_tells_what_is_there
            several_operations_have_one_revision
            a_commit_that_changes_nothing_takes_no_revision
            a_check_guards_a_commit_without_writing
            what_is_too_much_is_refused_and_what_is_just_enough_is_not
            keys_and_values_are_any_bytes
            a_prefix_selects_and_pages_are_in_order
            a_snapshot_is_of_one_revision_whatever_is_written_meanwhile
            history_is_repeated_from_any_revision
            a_commit_is_in_every_open_stream
            snapshot_and_stream_join_without_a_gap
            compaction_takes_the_past_and_nothing_else
            a_revision_from_the_future_is_refused
            a_key_with_a_time_to_live_goes_and_is_reported
            only_one_of_many_creators_wins
            concurrent_updates_are_lost_for_nobody
            a_barrier_covers_what_was_acknowledged_and_streams_reach_it
            random_commits_do_what_the_model_does
        );
    };
    (@each $fresh:expr, $($case:ident)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                let (store, _alive) = $fresh.await;
                crate::cases::$case(store).await;
            }
        )*
    };
}
pub(crate) use suite;

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"))
}

async fn load(store: &dyn Store, prefix: &str) -> (Rev, Vec<Entry>) {
    let load = store.load(prefix.as_bytes()).await.unwrap();
    let mut entries = Vec::new();
    let mut pages = load.pages;
    while let Some(page) = within("a page", pages.next()).await {
        entries.extend(page.unwrap());
    }
    (load.rev, entries)
}

async fn put(store: &dyn Store, key: &str, value: &str) -> Rev {
    commit(store, vec![put_op(key, value)]).await
}

fn put_op(key: &str, value: &str) -> Op {
    Op::put(key.to_owned(), value.to_owned(), Expect::Any)
}

async fn commit(store: &dyn Store, ops: Vec<Op>) -> Rev {
    within("a commit", store.commit(ops)).await.unwrap().rev
}

async fn next(changes: &mut ChangeStream) -> Result<Arc<Batch>, ChangesError> {
    within("a batch", changes.next())
        .await
        .expect("a stream ends only with an error")
}

/// The next batch that changes something.
async fn next_change(changes: &mut ChangeStream) -> Arc<Batch> {
    loop {
        let batch = next(changes).await.unwrap();
        if !batch.changes.is_empty() {
            return batch;
        }
    }
}

/// A batch as text: `5: a=1 -b`, changes sorted by key.
fn text(batch: &Arc<Batch>) -> String {
    let mut changes: Vec<_> = batch
        .changes
        .iter()
        .map(|change| match change {
            Change::Put { key, value } => {
                (key.clone(), format!(" {}={}", lossy(key), lossy(value)))
            }
            Change::Delete { key } => (key.clone(), format!(" -{}", lossy(key))),
        })
        .collect();
    changes.sort();
    let changes: String = changes.into_iter().map(|(_, text)| text).collect();
    format!("{}:{changes}", batch.rev)
}

fn lossy(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
