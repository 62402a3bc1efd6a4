//! Three members of etcd, of one version or of two, with and without TLS: one lost, the leader hung, most
//! of them hung.
//!
//! Processes on loopback; a member is hung with SIGSTOP, so that its connections stay open, which is
//! worse for a client than a member that is gone.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use control_plane_storage::{CommitError, EtcdConfig, EtcdStore, EtcdTls, Expect, Op, Rev, Store};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::etcd_version::Version;
use crate::{DEADLINE, next_change, put, within};

/// After the loss of a member that is not most of them, everything works again.
const MINORITY_LOSS: Duration = Duration::from_secs(5);
/// Without most members, a write is refused.
const REFUSED_WITHIN: Duration = Duration::from_millis(2500);
/// When they are back, so are writes.
const BACK_WITHIN: Duration = Duration::from_secs(8);

struct Cluster {
    dir: TempDir,
    members: Vec<Member>,
    tls: Option<Pki>,
}

/// Who talks to whom: each other by certificates of one authority.
struct Pki {
    ca: String,
    client: (String, String),
}

impl Pki {
    /// The members' files go to `dir`.
    fn make(dir: &Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let issue = |usages: &[ExtendedKeyUsagePurpose]| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
            params.extended_key_usages = usages.to_vec();
            let certificate = params.signed_by(&key, &issuer).unwrap();
            (certificate.pem(), key.serialize_pem())
        };
        let client = [ExtendedKeyUsagePurpose::ClientAuth];
        let both = [ExtendedKeyUsagePurpose::ServerAuth, client[0].clone()];
        let member = issue(&both);
        for (name, text) in [("ca", &ca), ("crt", &member.0), ("key", &member.1)] {
            std::fs::write(dir.join(name), text).unwrap();
        }
        Self {
            ca,
            client: issue(&client),
        }
    }

    fn member_flags(dir: &Path) -> Vec<String> {
        let flags = ["", "peer-"].map(|kind| {
            [
                format!("--{kind}cert-file={}", dir.join("crt").display()),
                format!("--{kind}key-file={}", dir.join("key").display()),
                format!("--{kind}trusted-ca-file={}", dir.join("ca").display()),
                format!("--{kind}client-cert-auth=true"),
            ]
        });
        flags.concat()
    }

    fn store(&self) -> EtcdTls {
        let (certificate, key) = &self.client;
        EtcdTls {
            ca: self.ca.clone().into(),
            identity: Some((certificate.clone().into(), key.clone().into())),
            server_name: None,
        }
    }
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
    async fn start(versions: [Version; 3], tls: bool) -> (Self, EtcdStore) {
        let dir = tempfile::tempdir().unwrap();
        let tls = tls.then(|| Pki::make(dir.path()));
        let url = |port: u16| match tls {
            Some(_) => format!("https://127.0.0.1:{port}"),
            None => format!("http://127.0.0.1:{port}"),
        };
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
                let mut command = versions[n].command();
                command.args(["--log-level", "error"]);
                if tls.is_some() {
                    command.args(Pki::member_flags(dir.path()));
                }
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
        let cluster = Self { dir, members, tls };
        let endpoints = cluster.members.iter().map(|member| member.client.clone());
        let mut config = EtcdConfig::new(endpoints);
        config.tls = cluster.tls.as_ref().map(Pki::store);
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
            if let Some(tls) = &self.tls {
                let (certificate, key) = &tls.client;
                let file = |name: &str, text: &str| {
                    let path = self.dir.path().join(name);
                    std::fs::write(&path, text).unwrap();
                    path
                };
                status.arg("--cacert").arg(self.dir.path().join("ca"));
                status.arg("--cert").arg(file("client.crt", certificate));
                status.arg("--key").arg(file("client.key", key));
            }
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
    lose_and_hang([Version::System; 3], false).await;
}

#[tokio::test]
async fn a_member_of_a_newer_cluster_lost_or_hung_costs_seconds_and_no_change() {
    lose_and_hang([Version::Newer; 3], true).await;
}

#[tokio::test]
async fn a_member_of_a_cluster_of_two_versions_lost_or_hung_costs_seconds_and_no_change() {
    lose_and_hang([Version::System, Version::Newer, Version::System], true).await;
}

async fn lose_and_hang(versions: [Version; 3], tls: bool) {
    let (mut cluster, store) = Cluster::start(versions, tls).await;
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
    hang_most([Version::System; 3], false).await;
}

#[tokio::test]
async fn without_most_members_of_a_newer_cluster_writes_are_refused_in_time_and_come_back() {
    hang_most([Version::Newer; 3], true).await;
}

async fn hang_most(versions: [Version; 3], tls: bool) {
    let (cluster, store) = Cluster::start(versions, tls).await;
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
