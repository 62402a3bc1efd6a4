//! The suite on etcd, and what only a server brings: other writers, restarts, other prefixes.

use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::sync::Arc;

use control_plane_storage::{EtcdConfig, EtcdStore, Expect, Op, OpenError, Rev, Store};
use tempfile::TempDir;

use crate::etcd_version::Version;
use crate::{DEADLINE, commit, load, next, next_change, put, text, within};

/// A server of one member on loopback; killed when it is dropped.
struct Etcd {
    version: Version,
    dir: TempDir,
    client: u16,
    peer: u16,
    child: Child,
}

impl Etcd {
    async fn start(version: Version) -> Self {
        let (client, peer) = (free_port(), free_port());
        let dir = tempfile::tempdir().unwrap();
        let child = run(version, &dir, client, peer);
        let etcd = Self {
            version,
            dir,
            client,
            peer,
            child,
        };
        etcd.store("/skep").await;
        etcd
    }

    fn config(&self, prefix: &str) -> EtcdConfig {
        let endpoint = format!("http://127.0.0.1:{}", self.client);
        EtcdConfig {
            prefix: prefix.to_owned(),
            ..EtcdConfig::new([endpoint])
        }
    }

    /// A connection, as soon as the server answers.
    async fn store(&self, prefix: &str) -> EtcdStore {
        let connected = async {
            loop {
                if let Ok(store) = EtcdStore::connect(self.config(prefix)).await {
                    return store;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        within("etcd answers", connected).await
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn restart(&mut self) {
        self.kill();
        self.child = run(self.version, &self.dir, self.client, self.peer);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

fn run(version: Version, dir: &TempDir, client: u16, peer: u16) -> Child {
    let (client, peer) = (
        format!("http://127.0.0.1:{client}"),
        format!("http://127.0.0.1:{peer}"),
    );
    version
        .command()
        .args(["--log-level", "error", "--data-dir"])
        .arg(dir.path())
        .args([
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
        ])
        .args([
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
        ])
        .args(["--initial-cluster", &format!("default={peer}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("run etcd: is Debian's package etcd-server installed?")
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

async fn fresh(version: Version) -> (Arc<dyn Store>, Etcd) {
    let etcd = Etcd::start(version).await;
    (Arc::new(etcd.store("/skep").await), etcd)
}

crate::suite!(fresh(Version::System));

/// The suite on etcd 3.5, and how streams are moved on there.
mod newer {
    use super::*;

    crate::suite!(fresh(Version::Newer));

    #[tokio::test]
    async fn a_stream_is_moved_on_without_a_write_where_the_version_allows() {
        for version in [Version::System, Version::Newer] {
            let etcd = Etcd::start(version).await;
            let (ours, other) = (etcd.store("/skep").await, etcd.store("/skep2").await);
            let mut changes = ours.changes(Rev::FIRST);
            for _ in 0..10 {
                put(&other, "a", "1").await;
            }
            let barrier = ours.barrier().await.unwrap();
            while next(&mut changes).await.unwrap().rev < barrier {}
            // A write of our own to move the stream would have taken a revision.
            let moved_by_write = ours.barrier().await.unwrap() > barrier;
            assert_eq!(
                moved_by_write,
                !version.answers_progress_in_order(),
                "{version:?}"
            );
        }
    }
}

#[tokio::test]
async fn two_stores_of_one_prefix_see_each_other() {
    let etcd = Etcd::start(Version::System).await;
    let (one, two) = (etcd.store("/skep").await, etcd.store("/skep").await);
    let mut changes = two.changes(Rev::FIRST);
    put(&one, "a", "1").await;
    assert_eq!(text(&next_change(&mut changes).await), "2: a=1");
    assert_eq!(two.barrier().await.unwrap(), Rev(2));
    two.commit(vec![Op::put("a", "2", Expect::Absent)])
        .await
        .unwrap_err();
    assert_eq!(
        commit(&two, vec![Op::put("a", "2", Expect::Rev(Rev(2)))]).await,
        Rev(3)
    );
    assert_eq!(load(&one, "").await.1.len(), 1);
}

#[tokio::test]
async fn a_stream_reaches_a_barrier_that_others_keys_moved() {
    let etcd = Etcd::start(Version::System).await;
    let (ours, other) = (etcd.store("/skep").await, etcd.store("/skep2").await);
    let mut changes = ours.changes(Rev::FIRST);
    for _ in 0..10 {
        put(&other, "a", "1").await;
    }
    let barrier = ours.barrier().await.unwrap();
    assert_eq!(barrier, Rev(11));
    let mut at = Rev::FIRST;
    while at < barrier {
        let batch = next(&mut changes).await.unwrap();
        assert!(batch.changes.is_empty() && batch.rev > at, "{batch:?}");
        at = batch.rev;
    }
    assert_eq!(load(&ours, "").await.1.len(), 0);
    let mine = put(&ours, "b", "2").await;
    assert_eq!(next_change(&mut changes).await.rev, mine);
}

#[tokio::test]
async fn a_stream_loses_and_repeats_nothing_over_restarts_of_the_server() {
    let mut etcd = Etcd::start(Version::System).await;
    let store = etcd.store("/skep").await;
    let mut changes = store.changes(Rev::FIRST);
    let mut expected = 2;
    for round in 0..4 {
        for n in 0..10 {
            put(&store, &format!("k{n}"), &format!("{round}")).await;
        }
        // Some of the round before the restart, the rest after it.
        for _ in 0..5 {
            assert_eq!(next_change(&mut changes).await.rev, Rev(expected));
            expected += 1;
        }
        etcd.restart();
        drop(etcd.store("/skep").await);
        for _ in 0..5 {
            assert_eq!(next_change(&mut changes).await.rev, Rev(expected));
            expected += 1;
        }
    }
}

#[tokio::test]
async fn a_server_that_is_down_is_told_from_a_conflict_and_comes_back() {
    let mut etcd = Etcd::start(Version::System).await;
    let store = etcd.store("/skep").await;
    put(&store, "a", "1").await;
    etcd.kill();
    let error = within(
        "an answer",
        store.commit(vec![Op::delete("a", Expect::Any)]),
    )
    .await;
    let error = error.unwrap_err();
    assert!(
        matches!(
            error,
            control_plane_storage::CommitError::Unknown(_)
                | control_plane_storage::CommitError::Unavailable(_)
        ),
        "{error}"
    );
    within("an answer", store.barrier()).await.unwrap_err();
    etcd.child = run(etcd.version, &etcd.dir, etcd.client, etcd.peer);
    drop(etcd.store("/skep").await);
    let back = async {
        while store.barrier().await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    within("the connection", back).await;
    put(&store, "a", "2").await;
}

#[tokio::test]
async fn a_wrong_address_is_named_at_start() {
    let mut config = EtcdConfig::new([format!("http://127.0.0.1:{}", free_port())]);
    config.request_timeout = DEADLINE / 10;
    let error = EtcdStore::connect(config.clone()).await.unwrap_err();
    let OpenError::Engine(error) = error else {
        panic!("{error}")
    };
    assert!(error.to_string().contains(&config.endpoints[0]), "{error}");
}
