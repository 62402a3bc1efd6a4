//! Three control planes over one etcd are restarted one after the other, in order and by force, under
//! 1,000 watchers and eight clients that read and write anywhere.
//!
//! No watcher misses an event, gets one twice or out of order; and what the clients did to each object
//! can be explained by single steps in the order of their versions, so nobody who changes
//! servers sees an older state than before.

#[path = "../crash/client.rs"]
mod client;
mod clock;
mod etcd;
mod history;
mod partition;
mod servers;
mod watcher;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::history::{Kind, Operation, Watched, linearizable};
use crate::servers::{End, Servers};
use crate::watcher::{Connection, watch_all};

pub(crate) const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SERVERS: usize = 3;
const WATCHERS: usize = 1000;
/// Watchers that share a connection.
const WATCHERS_EACH: usize = 100;
const CLIENTS: u64 = 8;
const OBJECTS: u64 = 5;
/// Between two operations of a client; every write is told to every watcher.
const PACE: Duration = Duration::from_millis(40);
/// Acknowledged writes between two restarts.
const WRITES_EACH: u64 = 100;
/// For so many writes.
const PHASE_DEADLINE: Duration = Duration::from_secs(30);
/// For all watchers to know the last change.
const CATCH_UP: Duration = Duration::from_secs(30);

/// Each of these tests needs the machine for itself: they measure what is late.
pub(crate) static TURN: Mutex<()> = Mutex::const_new(());

/// What one client did.
#[derive(Default)]
struct Done {
    operations: BTreeMap<u64, Vec<Operation>>,
    /// Writes whose outcome is not known.
    unknown: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_is_seen_by_nobody() -> anyhow::Result<()> {
    let _turn = TURN.lock().await;
    let mut servers = Servers::start(SERVERS).await?;
    let mut first = servers.client(0)?;
    let mut start = 0;
    for object in 0..OBJECTS {
        let body = json!({"metadata": {"name": format!("o{object}")}, "data": {"value": "0"}});
        let made = first.send("POST", CONFIG_MAPS, Some(&body)).await?;
        ensure!(made.status == 201, "{}", made.status);
        start = version(&made.json()?)?;
    }
    let (last, known_last) = watch::channel(u64::MAX);
    let mut watchers = start_watchers(&servers, start, &known_last);
    let stop = CancellationToken::new();
    let mut clients = JoinSet::new();
    let values = Arc::new(AtomicU64::new(1));
    let written = Arc::new(AtomicU64::new(0));
    for number in 0..CLIENTS {
        let all = (0..SERVERS)
            .map(|index| servers.client(index))
            .collect::<Result<_, _>>()?;
        let counters = (Arc::clone(&values), Arc::clone(&written));
        clients.spawn(work(all, number, counters, stop.clone()));
    }
    let began = Instant::now();
    for (index, end) in [
        (0, End::Orderly),
        (1, End::Orderly),
        (2, End::Orderly),
        (0, End::Kill),
    ] {
        more_writes(&written).await?;
        servers.restart(index, end).await?;
    }
    more_writes(&written).await?;
    let restarts = began.elapsed();
    stop.cancel();
    let mut done = Vec::new();
    while let Some(client) = clients.join_next().await {
        done.push(client??);
    }
    let end = marker(&mut servers.client(1)?).await?;
    last.send_replace(end);
    let watched = tokio::time::timeout(CATCH_UP, async {
        let mut all = Vec::new();
        while let Some(watcher) = watchers.join_next().await {
            all.push(watcher??);
        }
        anyhow::Ok(all)
    });
    let watched = watched
        .await
        .context("a watcher waits for an event that does not come")??;
    judge(&done, &watched, start, end)?;
    let events: usize = watched.iter().map(|one| one.events.len()).sum();
    let relists: usize = watched.iter().map(|one| one.relists.len()).sum();
    let connections: u32 = watched.iter().map(|one| one.connections).sum();
    println!(
        "{events} events to {WATCHERS} watchers over {connections} connections, {relists} lists \
         again; 4 restarts in {restarts:?}"
    );
    Ok(())
}

fn start_watchers(
    servers: &Servers,
    start: u64,
    last: &watch::Receiver<u64>,
) -> JoinSet<anyhow::Result<Watched>> {
    let mut watchers = JoinSet::new();
    for group in 0..WATCHERS.div_ceil(WATCHERS_EACH) {
        let connections: Vec<_> = (0..SERVERS)
            .map(|index| {
                Arc::new(Connection::new(
                    servers.address(index),
                    servers.kubeconfig(index),
                ))
            })
            .collect();
        let connections: Arc<[_]> = Arc::from(connections);
        for _ in 0..WATCHERS_EACH {
            watchers.spawn(watch_all(
                Arc::clone(&connections),
                group,
                start,
                last.clone(),
            ));
        }
    }
    watchers
}

/// Waits until clients have written some more.
async fn more_writes(written: &AtomicU64) -> anyhow::Result<()> {
    let (enough, began) = (
        written.load(Ordering::Relaxed) + WRITES_EACH,
        Instant::now(),
    );
    while written.load(Ordering::Relaxed) < enough {
        ensure!(began.elapsed() < PHASE_DEADLINE, "writes do not go on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Reads and writes objects at one server after the other until `stop`.
async fn work(
    mut servers: Vec<Client>,
    number: u64,
    (values, written): (Arc<AtomicU64>, Arc<AtomicU64>),
    stop: CancellationToken,
) -> anyhow::Result<Done> {
    let mut done = Done::default();
    for n in number.. {
        if stop.is_cancelled() {
            break;
        }
        tokio::time::sleep(PACE).await;
        let object = (n * 7 + number) % OBJECTS;
        let path = format!("{CONFIG_MAPS}/o{object}");
        let count = u64::try_from(servers.len())?;
        let server = &mut servers[usize::try_from((n + n / 3) % count)?];
        let kind = if n % 3 == 0 { Kind::Write } else { Kind::Read };
        let began = Instant::now();
        let sent = match kind {
            Kind::Read => server.send("GET", &path, None).await,
            Kind::Write => {
                let value = values.fetch_add(1, Ordering::Relaxed).to_string();
                let change = json!({"data": {"value": value}});
                server.send("PATCH", &path, Some(&change)).await
            }
        };
        let Ok(answer) = sent else {
            done.unknown += u64::from(kind == Kind::Write);
            continue;
        };
        let body = answer.json().unwrap_or_default();
        if answer.status == 200 && kind == Kind::Write {
            written.fetch_add(1, Ordering::Relaxed);
        }
        match answer.status {
            200 => done.operations.entry(object).or_default().push(Operation {
                began,
                ended: Instant::now(),
                kind,
                version: version(&body)?,
                value: value(&body)?,
            }),
            // A server that stops, or that has not caught up: all may say so.
            429 | 500..=599 => done.unknown += u64::from(kind == Kind::Write),
            other => anyhow::bail!("{kind:?} {path}: {other}: {body}"),
        }
    }
    Ok(done)
}

/// The last change: whoever knows it knows all.
async fn marker(client: &mut Client) -> anyhow::Result<u64> {
    let body = json!({"metadata": {"name": "last"}});
    let made = client.send("POST", CONFIG_MAPS, Some(&body)).await?;
    ensure!(made.status == 201, "{}", made.status);
    version(&made.json()?)
}

fn judge(done: &[Done], watched: &[Watched], start: u64, end: u64) -> anyhow::Result<()> {
    let mut objects: BTreeMap<u64, Vec<Operation>> = BTreeMap::new();
    for client in done {
        for (object, operations) in &client.operations {
            objects
                .entry(*object)
                .or_default()
                .extend(operations.iter().cloned());
        }
    }
    let unknown: u64 = done.iter().map(|client| client.unknown).sum();
    let mut changes: Vec<u64> = objects
        .values()
        .flatten()
        .filter(|operation| operation.kind == Kind::Write && operation.version > start)
        .map(|operation| operation.version)
        .collect();
    changes.push(end);
    changes.sort_unstable();
    let acknowledged = changes.len();
    ensure!(acknowledged > 50, "only {acknowledged} writes");
    // A write without an answer may have happened; then everybody must have been told of it.
    let told = watched.iter().flat_map(|one| one.events.iter().copied());
    changes.extend(told);
    changes.sort_unstable();
    changes.dedup();
    let more = u64::try_from(changes.len() - acknowledged)?;
    // Config maps that the controllers keep (the cluster's CA) are changes as well.
    ensure!(
        more <= unknown + 4,
        "{more} changes that nobody made, {unknown} are unknown"
    );
    for (object, operations) in objects {
        let count = operations.len();
        linearizable(operations).with_context(|| format!("object {object}, {count} operations"))?;
    }
    for (number, one) in watched.iter().enumerate() {
        one.complete(start, &changes)
            .with_context(|| format!("watcher {number}, lists again {:?}", one.relists))?;
    }
    Ok(())
}

pub(crate) fn version(object: &Value) -> anyhow::Result<u64> {
    let version = object["metadata"]["resourceVersion"].as_str();
    Ok(version.context("a resourceVersion")?.parse()?)
}

pub(crate) fn value(object: &Value) -> anyhow::Result<u64> {
    Ok(object["data"]["value"]
        .as_str()
        .context("a value")?
        .parse()?)
}
