//! Three members of etcd, each in a network of its own, and what clients of two control planes see while a
//! member is lost, the leader is killed, a minority and then most members are cut off, or a disk is
//! slow.
//!
//! Without a minority no write fails for longer than three seconds. Without most members writes are refused
//! in time, with when to come again, or nobody knows; reads that ask for any version are
//! answered from memory all the while; and when most are back, so are writes. All that was
//! answered can be explained by single steps in the order of the versions.
//!
//! The test starts itself in namespaces of its own, where it may make networks.

#![expect(clippy::print_stdout, reason = "what was measured")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use faulty_disk::{Faults, FaultyDisk};
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::history::{Kind, Operation, linearizable};
use crate::servers::Servers;
use crate::{CONFIG_MAPS, value, version};

const MEMBERS: usize = 3;
const SERVERS: usize = 2;
/// That write and read; one for each server reads any version beside them.
const CLIENTS: usize = 4;
const OBJECTS: usize = 4;
const PACE: Duration = Duration::from_millis(15);
/// From the loss of a minority to the last write that fails: three seconds are promised. Here and
/// below what a busy machine needs is added; what was measured is printed.
const MINORITY: Duration = Duration::from_millis(4500);
/// A refusal without most members: two seconds are promised.
const REFUSED_WITHIN: Duration = Duration::from_secs(4);
/// From the return of most members to writes: two seconds are promised.
const BACK_WITHIN: Duration = Duration::from_secs(5);
/// How long each state is kept.
const STATE: Duration = Duration::from_secs(5);
const READY: Duration = Duration::from_secs(30);
/// What a sync of a slow disk takes.
const SLOW: Duration = Duration::from_millis(300);

/// In namespaces of its own, unless it is there already.
#[test]
fn a_lost_quorum_costs_writes_for_a_while_and_nothing_else() -> anyhow::Result<()> {
    const NAME: &str = "partition::a_lost_quorum_costs_writes_for_a_while_and_nothing_else";
    if let Some(dir) = faulty_disk::role() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        return runtime.block_on(run(&dir));
    }
    let _turn = crate::TURN.blocking_lock();
    let dir = tempfile::tempdir()?;
    let words = [NAME, "--exact", "--nocapture"];
    let status = faulty_disk::in_namespaces_with_network(dir.path(), &words)?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// What a client did, when, and how it was answered.
#[derive(Clone)]
struct Attempt {
    began: Instant,
    ended: Instant,
    kind: Try,
    /// 0: there was no answer.
    status: u16,
    retry_after: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Try {
    Write,
    /// Of the newest state.
    Read,
    /// Of any state.
    ReadAny,
}

#[derive(Default)]
struct Seen {
    attempts: Vec<Attempt>,
    operations: BTreeMap<usize, Vec<Operation>>,
}

async fn run(dir: &Path) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(dir)?;
    cluster.leader().await?;
    let temp = tempfile::tempdir_in(dir)?;
    let mut servers = Servers::over(temp, crate::etcd::flags(&cluster.endpoints()), SERVERS)?;
    for index in 0..SERVERS {
        servers.ready(index).await?;
    }
    let mut first = servers.client(0)?;
    for object in 0..OBJECTS {
        let body = json!({"metadata": {"name": format!("o{object}")}, "data": {"value": "0"}});
        let made = first.send("POST", CONFIG_MAPS, Some(&body)).await?;
        ensure!(made.status == 201, "{}", made.status);
    }
    let (seen, stop) = (
        Arc::new(Mutex::new(Seen::default())),
        CancellationToken::new(),
    );
    let values = Arc::new(AtomicU64::new(1));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS + SERVERS {
        let client = servers.client(number % SERVERS)?;
        clients.spawn(work(
            client,
            number,
            Arc::clone(&values),
            Arc::clone(&seen),
            stop.clone(),
        ));
    }
    phases(&mut cluster, &seen).await?;
    stop.cancel();
    while let Some(client) = clients.join_next().await {
        client??;
    }
    let seen = std::mem::take(&mut *seen.lock());
    let mut count = 0;
    for (object, operations) in seen.operations {
        count += operations.len();
        linearizable(operations).with_context(|| format!("object {object}"))?;
    }
    let stale = seen.attempts.iter().filter(|one| one.kind == Try::ReadAny);
    let (all, bad): (Vec<_>, Vec<_>) = stale.partition(|one| one.status == 200);
    ensure!(
        bad.is_empty(),
        "{} of {} reads of any version failed",
        bad.len(),
        all.len()
    );
    println!(
        "{count} operations are linearizable; {} reads of any version, none failed",
        all.len()
    );
    Ok(())
}

async fn phases(cluster: &mut Cluster, seen: &Mutex<Seen>) -> anyhow::Result<()> {
    tokio::time::sleep(STATE / 5).await;
    let leader = cluster.leader().await?;
    let follower = (leader + 1) % MEMBERS;
    cluster.kill(follower)?;
    minority("a member killed", seen).await?;
    cluster.start_member(follower)?;
    let leader = cluster.all_well().await?;
    cluster.kill(leader)?;
    minority("the leader killed", seen).await?;
    cluster.start_member(leader)?;
    let leader = cluster.all_well().await?;
    cluster.cut_off(leader)?;
    minority("the leader cut off", seen).await?;
    cluster.heal(leader)?;
    let leader = cluster.all_well().await?;
    cluster.slow_down(leader, SLOW);
    let began = Instant::now();
    tokio::time::sleep(STATE).await;
    let failed = failures(seen, began).len();
    println!("the leader's disk takes {SLOW:?} for a sync: {failed} writes failed");
    ensure!(failed == 0, "writes fail where a disk is slow");
    cluster.slow_down(leader, Duration::ZERO);
    cluster.all_well().await?;
    most(cluster, seen).await
}

/// Looks on while a minority is lost.
async fn minority(what: &str, seen: &Mutex<Seen>) -> anyhow::Result<()> {
    let began = Instant::now();
    tokio::time::sleep(STATE).await;
    let failed = failures(seen, began);
    let last = failed.iter().map(|one| one.ended - began).max();
    println!(
        "{what}: {} writes failed, the last {last:?} after it",
        failed.len()
    );
    ensure!(
        last.is_none_or(|last| last <= MINORITY),
        "{what}: a write failed after {last:?}"
    );
    let fine = writes(seen, began)
        .iter()
        .filter(|one| one.status == 200)
        .count();
    ensure!(fine > 20, "{what}: only {fine} writes");
    Ok(())
}

/// All members are cut off from each other.
async fn most(cluster: &mut Cluster, seen: &Mutex<Seen>) -> anyhow::Result<()> {
    for member in 0..MEMBERS {
        cluster.cut_off(member)?;
    }
    let began = Instant::now();
    tokio::time::sleep(STATE).await;
    // The first write of each server is in doubt for two seconds; those after it are refused.
    while !writes(seen, began).iter().any(|one| one.status == 503) {
        ensure!(began.elapsed() < 3 * STATE, "no write was refused");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (mut refused, mut unknown, mut slowest) = (0, 0, Duration::ZERO);
    for one in writes(seen, began) {
        let took = one.ended - one.began;
        slowest = slowest.max(took);
        match (one.status, one.retry_after) {
            // Before the leader noticed that it leads nobody.
            (200, _) if one.began - began < Duration::from_secs(1) => {}
            (503, Some(_)) => refused += 1,
            (504, _) => unknown += 1,
            (other, again) => bail!("a write was answered {other}, again after {again:?}"),
        }
        ensure!(took < REFUSED_WITHIN, "a write was refused after {took:?}");
    }
    let reads = attempts(seen, began, Try::ReadAny);
    ensure!(
        reads.len() > 50,
        "only {} reads of any version",
        reads.len()
    );
    for one in attempts(seen, began, Try::Read) {
        let took = one.ended - one.began;
        let fine = matches!(one.status, 200 | 503 | 504);
        ensure!(fine && took < REFUSED_WITHIN, "{}, {took:?}", one.status);
    }
    for member in 0..MEMBERS {
        cluster.heal(member)?;
    }
    let healed = Instant::now();
    let back = loop {
        let first = writes(seen, healed)
            .into_iter()
            .find(|one| one.status == 200);
        if let Some(first) = first {
            break first.ended - healed;
        }
        ensure!(healed.elapsed() < 2 * STATE, "no writes again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    println!(
        "most members cut off: {refused} writes refused, {unknown} in doubt, each within {slowest:?}; \
         writes again {back:?} after they were back"
    );
    ensure!(back < BACK_WITHIN, "writes again after {back:?}");
    tokio::time::sleep(STATE / 5).await;
    Ok(())
}

/// Those that began after `began`.
fn attempts(seen: &Mutex<Seen>, began: Instant, kind: Try) -> Vec<Attempt> {
    let seen = seen.lock();
    let wanted = seen
        .attempts
        .iter()
        .filter(|one| one.kind == kind && one.began > began);
    wanted.cloned().collect()
}

fn writes(seen: &Mutex<Seen>, began: Instant) -> Vec<Attempt> {
    attempts(seen, began, Try::Write)
}

fn failures(seen: &Mutex<Seen>, began: Instant) -> Vec<Attempt> {
    let mut writes = writes(seen, began);
    writes.retain(|one| one.status != 200);
    writes
}

/// Reads and writes objects at one server until `stop`.
async fn work(
    mut client: Client,
    number: usize,
    values: Arc<AtomicU64>,
    seen: Arc<Mutex<Seen>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    for n in number.. {
        if stop.is_cancelled() {
            break;
        }
        tokio::time::sleep(PACE).await;
        let object = (n / 2 + number) % OBJECTS;
        let path = format!("{CONFIG_MAPS}/o{object}");
        // Those that wait for the quorum and those that do not are not to wait for each other.
        let kind = match number {
            0..CLIENTS => [Try::Write, Try::Read][n % 2],
            _ => Try::ReadAny,
        };
        let began = Instant::now();
        let sent = match kind {
            Try::Read => client.send("GET", &path, None).await,
            Try::ReadAny => {
                let path = format!("{CONFIG_MAPS}?resourceVersion=0");
                client.send("GET", &path, None).await
            }
            Try::Write => {
                let value = values.fetch_add(1, Ordering::Relaxed).to_string();
                let change = json!({"data": {"value": value}});
                client.send("PATCH", &path, Some(&change)).await
            }
        };
        let ended = Instant::now();
        let (status, retry_after) = match &sent {
            Ok(answer) => (answer.status, answer.retry_after),
            Err(_) => (0, None),
        };
        let attempt = Attempt {
            began,
            ended,
            kind,
            status,
            retry_after,
        };
        let mut seen = seen.lock();
        seen.attempts.push(attempt);
        let kind = match kind {
            Try::Write => Kind::Write,
            Try::Read => Kind::Read,
            Try::ReadAny => continue,
        };
        if let Ok(answer) = sent.as_ref()
            && status == 200
        {
            let body = answer.json()?;
            seen.operations.entry(object).or_default().push(Operation {
                began,
                ended,
                kind,
                version: version(&body)?,
                value: value(&body)?,
            });
        }
    }
    Ok(())
}

/// Three members, each behind its own end of a cable into one bridge.
struct Cluster {
    dir: std::path::PathBuf,
    /// Keep the members' networks.
    holders: Vec<Child>,
    members: Vec<Option<Child>>,
    disks: Vec<FaultyDisk>,
}

fn address(member: usize) -> String {
    format!("10.77.0.1{member}")
}

fn ip(words: &str) -> anyhow::Result<()> {
    let status = Command::new("ip").args(words.split(' ')).status()?;
    ensure!(status.success(), "ip {words}: {status}");
    Ok(())
}

impl Cluster {
    fn start(dir: &Path) -> anyhow::Result<Self> {
        ip("link set lo up")?;
        ip("link add br0 type bridge")?;
        ip("address add 10.77.0.1/24 dev br0")?;
        ip("link set br0 up")?;
        let mut cluster = Self {
            dir: dir.to_owned(),
            holders: Vec::new(),
            members: Vec::new(),
            disks: Vec::new(),
        };
        for member in 0..MEMBERS {
            cluster.make_network(member)?;
            let disk = dir.join(format!("disk-{member}"));
            std::fs::create_dir(&disk)?;
            let disk = FaultyDisk::mount(&disk).context("mount (is there /dev/fuse?)")?;
            disk.forget_history();
            cluster.disks.push(disk);
            cluster.members.push(None);
            cluster.start_member(member)?;
        }
        Ok(cluster)
    }

    fn make_network(&mut self, member: usize) -> anyhow::Result<()> {
        let mut holder = Command::new("unshare");
        holder.args([
            "--net",
            "setpriv",
            "--pdeathsig",
            "KILL",
            "sleep",
            "infinity",
        ]);
        self.holders.push(holder.spawn()?);
        let pid = self.holders[member].id();
        // Its network is there when it is not ours any more.
        let ours = std::fs::read_link("/proc/self/ns/net")?;
        let began = Instant::now();
        while std::fs::read_link(format!("/proc/{pid}/ns/net"))? == ours {
            ensure!(began.elapsed() < READY, "no network for member {member}");
            std::thread::yield_now();
        }
        ip(&format!("link add v{member} type veth peer name e{member}"))?;
        ip(&format!("link set v{member} master br0 up"))?;
        ip(&format!("link set e{member} netns {pid}"))?;
        let address = address(member);
        self.inside(
            member,
            &[
                "ip",
                "address",
                "add",
                &format!("{address}/24"),
                "dev",
                &format!("e{member}"),
            ],
        )?;
        self.inside(member, &["ip", "link", "set", &format!("e{member}"), "up"])?;
        self.inside(member, &["ip", "link", "set", "lo", "up"])
    }

    fn enter(&self, member: usize) -> Command {
        let mut command = Command::new("nsenter");
        let pid = self.holders[member].id();
        command.arg(format!("--net=/proc/{pid}/ns/net"));
        command
    }

    fn inside(&self, member: usize, words: &[&str]) -> anyhow::Result<()> {
        let status = self.enter(member).args(words).status()?;
        ensure!(status.success(), "{words:?} at member {member}: {status}");
        Ok(())
    }

    fn endpoints(&self) -> String {
        let urls = (0..self.members.len()).map(|member| format!("http://{}:2379", address(member)));
        urls.collect::<Vec<_>>().join(",")
    }

    fn start_member(&mut self, member: usize) -> anyhow::Result<()> {
        let (clients, peers) = (
            format!("http://{}:2379", address(member)),
            format!("http://{}:2380", address(member)),
        );
        let initial: Vec<String> = (0..MEMBERS)
            .map(|member| format!("m{member}=http://{}:2380", address(member)))
            .collect();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.join(format!("etcd-{member}.log")))?;
        let mut command = self.enter(member);
        let child = command
            .args([
                "setpriv",
                "--pdeathsig",
                "KILL",
                "etcd",
                "--log-level",
                "warn",
            ])
            .args(["--name", &format!("m{member}"), "--data-dir"])
            .arg(self.dir.join(format!("disk-{member}/etcd")))
            .args([
                "--listen-client-urls",
                &clients,
                "--advertise-client-urls",
                &clients,
            ])
            .args([
                "--listen-peer-urls",
                &peers,
                "--initial-advertise-peer-urls",
                &peers,
            ])
            .args(["--initial-cluster", &initial.join(",")])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.members[member] = Some(child.context("run nsenter")?);
        Ok(())
    }

    fn kill(&mut self, member: usize) -> anyhow::Result<()> {
        let mut child = self.members[member].take().context("it runs")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// From the other members, not from its clients.
    fn cut_off(&self, member: usize) -> anyhow::Result<()> {
        let others: Vec<String> = (0..MEMBERS)
            .filter(|other| *other != member)
            .map(address)
            .collect();
        let others = others.join(", ");
        let rules = format!(
            "add table ip cut\n\
             add chain ip cut i {{ type filter hook input priority 0; }}\n\
             add rule ip cut i ip saddr {{ {others} }} drop\n\
             add chain ip cut o {{ type filter hook output priority 0; }}\n\
             add rule ip cut o ip daddr {{ {others} }} drop"
        );
        self.inside(member, &["nft", &rules])
    }

    fn heal(&self, member: usize) -> anyhow::Result<()> {
        self.inside(member, &["nft", "delete table ip cut"])
    }

    fn slow_down(&self, member: usize, sync_takes: Duration) {
        self.disks[member].set(Faults {
            sync_takes,
            ..Faults::default()
        });
    }

    /// The members that answer, and which of them leads.
    #[expect(
        clippy::unused_self,
        reason = "members live as long as the cluster does"
    )]
    fn states(&self) -> anyhow::Result<(usize, Option<usize>)> {
        let (mut well, mut leader) = (0, None);
        for member in 0..MEMBERS {
            let endpoint = format!("http://{}:2379", address(member));
            let asked = Command::new("etcdctl")
                .env("ETCDCTL_API", "3")
                .args(["--endpoints", &endpoint, "--command-timeout=1s"])
                .args(["endpoint", "status", "-w", "fields"])
                .stderr(Stdio::null())
                .output()?;
            let text = String::from_utf8(asked.stdout)?;
            let field = |name: &str| {
                let line = text.lines().find(|line| line.starts_with(name))?;
                line.split_once(" : ").map(|(_, value)| value.to_owned())
            };
            let (own, leads) = (field("\"MemberID\""), field("\"Leader\""));
            well += usize::from(own.is_some() && leads.as_deref().is_some_and(|id| id != "0"));
            if own.is_some() && own == leads {
                leader = Some(member);
            }
        }
        Ok((well, leader))
    }

    async fn leader(&self) -> anyhow::Result<usize> {
        self.all_well().await
    }

    /// Waits until all members answer and one leads.
    async fn all_well(&self) -> anyhow::Result<usize> {
        let began = Instant::now();
        loop {
            if let (MEMBERS, Some(leader)) = self.states()? {
                return Ok(leader);
            }
            ensure!(
                began.elapsed() < READY,
                "the members are not well: {:?}",
                self.states()?
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let members = self.members.iter_mut().flatten();
        for child in members.chain(&mut self.holders) {
            drop(child.kill());
            drop(child.wait());
        }
    }
}
