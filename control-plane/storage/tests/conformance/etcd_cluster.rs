//! Three members of etcd: one lost, the leader hung, most of them hung, one cut off from the others.
//!
//! Processes on loopback; a member is hung with SIGSTOP, so that its connections stay open, which is
//! worse for a client than a member that is gone.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use control_plane_storage::{CommitError, EtcdConfig, EtcdStore, Expect, Op, Rev, Store};
use tempfile::TempDir;

use crate::{DEADLINE, next_change, put, within};

/// After the loss of a member that is not most of them, everything works again.
const MINORITY_LOSS: Duration = Duration::from_secs(5);
/// Without most members, a write is refused.
const REFUSED_WITHIN: Duration = Duration::from_millis(2500);
/// When they are back, so are writes.
const BACK_WITHIN: Duration = Duration::from_secs(8);

struct Cluster {
    _dir: TempDir,
    members: Vec<Member>,
}

struct Member {
    child: Child,
    client: String,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            drop(member.child.kill());
            drop(member.child.wait());
        }
    }
}

impl Cluster {
    async fn start() -> (Self, EtcdStore) {
        let dir = tempfile::tempdir().unwrap();
        let urls: Vec<(String, String)> = (0..3)
            .map(|_| (url(crate::etcd::free_port()), url(crate::etcd::free_port())))
            .collect();
        let initial: Vec<String> = urls
            .iter()
            .enumerate()
            .map(|(n, (_, peers))| format!("m{n}={peers}"))
            .collect();
        let members = urls
            .iter()
            .enumerate()
            .map(|(n, (client, peers))| {
                let mut command = Command::new("setpriv");
                command.args(["--pdeathsig", "KILL", "etcd", "--log-level", "error"]);
                command.arg("--name").arg(format!("m{n}"));
                command
                    .arg("--data-dir")
                    .arg(dir.path().join(n.to_string()));
                command.args([
                    "--listen-client-urls",
                    client,
                    "--advertise-client-urls",
                    client,
                ]);
                command.args([
                    "--listen-peer-urls",
                    peers,
                    "--initial-advertise-peer-urls",
                    peers,
                ]);
                command.arg("--initial-cluster").arg(initial.join(","));
                // A short election keeps the test short.
                command.args(["--heartbeat-interval", "50", "--election-timeout", "500"]);
                let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
                Member {
                    child: child.expect("run etcd: is Debian's package etcd-server installed?"),
                    client: client.clone(),
                }
            })
            .collect();
        let cluster = Self { _dir: dir, members };
        let endpoints = cluster.members.iter().map(|member| member.client.clone());
        let config = EtcdConfig::new(endpoints);
        let connected = async {
            loop {
                if let Ok(store) = EtcdStore::connect(config.clone()).await
                    && store.barrier().await.is_ok()
                {
                    return store;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let store = within("three members answer", connected).await;
        (cluster, store)
    }

    /// The member that leads, by its own word.
    fn leader(&self) -> usize {
        let leads = |member: &Member| {
            let mut status = Command::new("etcdctl");
            status
                .env("ETCDCTL_API", "3")
                .args(["--endpoints", &member.client]);
            let output = status.args(["endpoint", "status", "-w", "fields"]).output();
            let text = String::from_utf8(output.unwrap().stdout).unwrap();
            let field = |name: &str| {
                let line = text.lines().find(|line| line.starts_with(name));
                line.and_then(|line| line.split_once(" : ").map(|(_, id)| id.to_owned()))
            };
            field("\"MemberID\"").is_some() && field("\"MemberID\"") == field("\"Leader\"")
        };
        self.members.iter().position(leads).expect("a leader")
    }

    fn signal(&self, member: usize, signal: &str) {
        let pid = self.members[member].child.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    }
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

fn op(n: u64) -> Vec<Op> {
    vec![Op::put(format!("k{n}"), n.to_string(), Expect::Any)]
}

/// Writes until one succeeds; what it took.
async fn until_written(store: &EtcdStore, n: u64) -> (Rev, Duration) {
    let started = Instant::now();
    let written = async {
        loop {
            match store.commit(op(n)).await {
                Ok(commit) => return commit.rev,
                Err(CommitError::Unavailable(_) | CommitError::Unknown(_)) => {}
                Err(other) => panic!("{other}"),
            }
        }
    };
    (within("a write", written).await, started.elapsed())
}

#[tokio::test]
async fn a_member_lost_or_hung_costs_seconds_and_no_change() {
    let (mut cluster, store) = Cluster::start().await;
    let mut changes = store.changes(Rev::FIRST);
    let before = put(&store, "a", "1").await;
    while next_change(&mut changes).await.rev < before {}

    let hung = cluster.leader();
    cluster.signal(hung, "-STOP");
    let (rev, took) = until_written(&store, 1).await;
    assert!(took < MINORITY_LOSS, "the leader hung: {took:?}");
    for n in 2..12 {
        store
            .commit(op(n))
            .await
            .expect("no error after the first success");
    }
    // The stream may have been at the hung member.
    let mut seen = before;
    let last = store.barrier().await.unwrap();
    while seen < last {
        let batch = within("the changes", crate::next(&mut changes))
            .await
            .unwrap();
        assert!(batch.rev > seen, "{} after {seen}", batch.rev);
        seen = batch.rev;
    }
    assert!(seen >= rev);
    cluster.signal(hung, "-CONT");

    let lost = cluster.leader();
    cluster.members[lost].child.kill().unwrap();
    let (_, took) = until_written(&store, 20).await;
    assert!(took < MINORITY_LOSS, "the leader killed: {took:?}");
    for n in 21..31 {
        store
            .commit(op(n))
            .await
            .expect("no error after the first success");
    }
    assert!(DEADLINE > MINORITY_LOSS);
}

#[tokio::test]
async fn without_most_members_writes_are_refused_in_time_and_come_back() {
    let (cluster, store) = Cluster::start().await;
    let mut changes = store.changes(Rev::FIRST);
    let before = put(&store, "a", "1").await;
    let stay = cluster.leader();
    let hung: Vec<usize> = (0..3).filter(|n| *n != stay).collect();
    hung.iter().for_each(|n| cluster.signal(*n, "-STOP"));

    // Nobody knows what becomes of the first; of the others it is certain that they were not written.
    let mut refused = 0;
    for n in 0..3 {
        let started = Instant::now();
        let error = store.commit(op(n)).await.unwrap_err();
        assert!(
            started.elapsed() < REFUSED_WITHIN,
            "{:?}",
            started.elapsed()
        );
        match error {
            CommitError::Unknown(_) if n == 0 => {}
            CommitError::Unavailable(_) => refused += 1,
            other => panic!("write {n}: {other}"),
        }
    }
    assert!(refused >= 2);
    let started = Instant::now();
    store.barrier().await.unwrap_err();
    assert!(
        started.elapsed() < REFUSED_WITHIN,
        "{:?}",
        started.elapsed()
    );

    hung.iter().for_each(|n| cluster.signal(*n, "-CONT"));
    let (rev, took) = until_written(&store, 100).await;
    assert!(took < BACK_WITHIN, "{took:?}");
    assert!(rev > before);
    let mut seen = Rev::FIRST;
    while seen < rev {
        let batch = within("the changes", crate::next(&mut changes))
            .await
            .unwrap();
        assert!(batch.rev > seen);
        seen = batch.rev;
    }
    // What was refused for certain is not there.
    let load = crate::load(&store, "k").await.1;
    for n in 1..3 {
        assert!(
            load.iter().all(|entry| entry.key != format!("k{n}")),
            "k{n}"
        );
    }
}
