//! The control plane is killed in the middle of API writes, again and again.
//!
//! What was acknowledged to a client must be there afterwards with the same resourceVersion, what
//! was not may be; resourceVersions never go back; and a watch from before the kill tells all that
//! happened, or says that it cannot.

mod client;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::Client;

const KILLS: u64 = 50;
const WRITERS: u64 = 4;
/// Acknowledged writes before a kill: from this many up to twice as many.
const WRITES_MIN: u64 = 25;
const START_DEADLINE: Duration = Duration::from_secs(30);
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

struct ControlPlane {
    child: Child,
    address: SocketAddr,
}

impl ControlPlane {
    fn start(dir: &Path, port: u16, node_port: u16) -> anyhow::Result<Self> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(dir.join("log"))?;
        let child = Command::new(env!("CARGO_BIN_EXE_skep-control-plane"))
            .arg("--data-dir")
            .arg(dir.join("data"))
            .arg("--kubeconfig-out")
            .arg(dir.join("kubeconfig"))
            .args(["--bind", &format!("127.0.0.1:{port}")])
            .args(["--node-bind", &format!("127.0.0.1:{node_port}")])
            .args(["--advertise-address", "127.0.0.1"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
        })
    }

    /// A client, as soon as the API is ready.
    async fn client(&mut self, dir: &Path) -> anyhow::Result<Client> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if let Ok(client) = self.ready(dir).await {
                return Ok(client);
            }
            let log = || std::fs::read_to_string(dir.join("log")).unwrap_or_default();
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("the control plane ended by itself: {status}\n{}", log());
            }
            ensure!(
                Instant::now() < deadline,
                "not ready in {START_DEADLINE:?}\n{}",
                log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn ready(&self, dir: &Path) -> anyhow::Result<Client> {
        let mut client = Client::new(self.address, &dir.join("kubeconfig"))?;
        let answer = client.send("GET", "/readyz", None).await?;
        ensure!(answer.status == 200, "{}", answer.status);
        let answer = client
            .send("GET", "/api/v1/namespaces/default", None)
            .await?;
        ensure!(answer.status == 200, "{}", answer.status);
        Ok(client)
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        drop(self.kill());
    }
}

/// What the writers know: acknowledged objects, and the last one each was not told about.
#[derive(Debug, Default)]
struct Known {
    /// Name to value and resourceVersion.
    acknowledged: BTreeMap<String, (u64, u64)>,
    /// Name to the value that may have been written.
    in_flight: BTreeMap<String, u64>,
}

/// Creates objects and overwrites each once, until the server is gone.
async fn write(
    mut client: Client,
    writer: u64,
    round: u64,
    acknowledged: Arc<AtomicU64>,
) -> anyhow::Result<Known> {
    let mut known = Known::default();
    for n in 0.. {
        let name = format!("r{round}-w{writer}-{n}");
        for value in [1, 2] {
            let object = json!({"metadata": {"name": name}, "data": {"value": value.to_string()}});
            let path = format!("{CONFIG_MAPS}/{name}");
            known.in_flight.insert(name.clone(), value);
            let sent = match value {
                1 => client.send("POST", CONFIG_MAPS, Some(&object)).await,
                _ => {
                    client
                        .send("PATCH", &path, Some(&json!({"data": object["data"]})))
                        .await
                }
            };
            // The kill: nobody knows what became of this one.
            let Ok(answer) = sent else { return Ok(known) };
            let body = answer.json()?;
            ensure!([200, 201].contains(&answer.status), "{name}: {body}");
            known.in_flight.remove(&name);
            known
                .acknowledged
                .insert(name.clone(), (value, version(&body)?));
            acknowledged.fetch_add(1, Ordering::SeqCst);
        }
    }
    Ok(known)
}

fn version(object: &Value) -> anyhow::Result<u64> {
    let version = object["metadata"]["resourceVersion"]
        .as_str()
        .context("a resourceVersion")?;
    Ok(version.parse()?)
}

fn value(object: &Value) -> anyhow::Result<u64> {
    Ok(object["data"]["value"]
        .as_str()
        .context("a value")?
        .parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_lose_no_acknowledged_write() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let (port, node_port) = (free_port()?, free_port()?);
    let mut control_plane = ControlPlane::start(dir.path(), port, node_port)?;
    let mut known = Known::default();
    let (mut listed, mut resumed) = (0, 0);
    for round in 0..KILLS {
        drop(control_plane.client(dir.path()).await?);
        let (written, count) = write_and_kill(&mut control_plane, dir.path(), round).await?;
        ensure!(count >= WRITES_MIN, "round {round}: {count}");
        let names: BTreeSet<_> = written.acknowledged.keys().cloned().collect();
        known.acknowledged.extend(written.acknowledged);
        known.in_flight = written.in_flight;

        control_plane = ControlPlane::start(dir.path(), port, node_port)?;
        let mut client = control_plane.client(dir.path()).await?;
        if listed > 0 {
            resumed += u64::from(watch_from(&mut client, listed, &names).await?);
        }
        listed = compare(&mut client, &mut known, listed)
            .await
            .with_context(|| format!("after kill {round}"))?;
    }
    println!(
        "{KILLS} kills, {} objects with their resourceVersions, {resumed} watches resumed, \
         resourceVersion {listed}",
        known.acknowledged.len()
    );
    Ok(())
}

/// Lets writers work until enough is acknowledged and kills the server under them.
async fn write_and_kill(
    control_plane: &mut ControlPlane,
    dir: &Path,
    round: u64,
) -> anyhow::Result<(Known, u64)> {
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let client = Client::new(control_plane.address, &dir.join("kubeconfig"))?;
        writers.spawn(write(client, writer, round, Arc::clone(&acknowledged)));
    }
    let enough = WRITES_MIN + (round * 7919) % WRITES_MIN;
    let deadline = Instant::now() + START_DEADLINE;
    while acknowledged.load(Ordering::SeqCst) < enough {
        ensure!(Instant::now() < deadline, "writes do not go on");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    control_plane.kill()?;
    let mut known = Known::default();
    while let Some(writer) = writers.join_next().await {
        let writer = writer??;
        known.acknowledged.extend(writer.acknowledged);
        known.in_flight.extend(writer.in_flight);
    }
    Ok((known, acknowledged.load(Ordering::SeqCst)))
}

/// Compares all objects with what is known, learns what became of those in flight, and returns
/// the list's resourceVersion.
async fn compare(client: &mut Client, known: &mut Known, before: u64) -> anyhow::Result<u64> {
    let list = client.send("GET", CONFIG_MAPS, None).await?.json()?;
    let listed = version(&list)?;
    ensure!(
        listed >= before,
        "the list went from {before} back to {listed}"
    );
    let mut found = BTreeMap::new();
    for object in list["items"].as_array().context("a list")? {
        let name = object["metadata"]["name"].as_str().context("a name")?;
        if name.starts_with('r') {
            ensure!(
                version(object)? <= listed,
                "{object} is newer than the list of {listed}"
            );
            found.insert(name.to_owned(), (value(object)?, version(object)?));
        }
    }
    for (name, value) in std::mem::take(&mut known.in_flight) {
        if let Some(kept) = found.get(&name).filter(|kept| kept.0 == value) {
            let acknowledged = known.acknowledged.get(&name);
            ensure!(
                acknowledged.is_none_or(|before| before.1 < kept.1),
                "{name} {kept:?}"
            );
            known.acknowledged.insert(name, *kept);
        }
    }
    for (name, expected) in &known.acknowledged {
        ensure!(
            found.get(name) == Some(expected),
            "{name}: {:?}, not {expected:?}",
            found.get(name)
        );
    }
    ensure!(
        found.len() == known.acknowledged.len(),
        "there are objects that nobody wrote"
    );
    Ok(listed)
}

/// Whether a watch from before the kill goes on; then it must tell of each of these objects.
async fn watch_from(
    client: &mut Client,
    listed: u64,
    names: &BTreeSet<String>,
) -> anyhow::Result<bool> {
    let path = format!("{CONFIG_MAPS}?watch=true&resourceVersion={listed}&timeoutSeconds=1");
    let answer = client.send("GET", &path, None).await?;
    if answer.status == 410 {
        return Ok(false);
    }
    ensure!(answer.status == 200, "{}", answer.status);
    let mut told = BTreeSet::new();
    let mut newest = listed;
    for line in answer
        .body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let event: Value = serde_json::from_slice(line)?;
        let object = &event["object"];
        if event["type"] == "ERROR" {
            ensure!(object["code"] == 410, "{event}");
            return Ok(false);
        }
        ensure!(version(object)? > newest, "{event} comes after {newest}");
        newest = version(object)?;
        told.insert(
            object["metadata"]["name"]
                .as_str()
                .context("a name")?
                .to_owned(),
        );
    }
    let missing: Vec<_> = names.difference(&told).collect();
    ensure!(
        missing.is_empty(),
        "the watch from {listed} does not tell of {missing:?}"
    );
    Ok(true)
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
