//! The control plane is killed in the middle of API writes, again and again.
//!
//! What was acknowledged to a client must be there afterwards with the same resourceVersion, what
//! was not may be; resourceVersions never go back; and a watch from before the kill tells all that
//! happened, or says that it cannot.

mod client;
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::Client;
use crate::process::{ControlPlane, Place};

const KILLS: u64 = 50;
/// With `SKEP_LONG=1`.
const KILLS_LONG: u64 = 1000;
const WRITERS: u64 = 4;
/// Acknowledged writes before a kill: from this many up to twice as many.
const WRITES_MIN: u64 = 25;
const WRITES_DEADLINE: Duration = Duration::from_secs(30);
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

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
            ensure!(
                [200, 201].contains(&answer.status),
                "{name}: {body}, retry after {:?}",
                answer.retry_after
            );
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
    let place = Place::new(dir.path())?;
    let mut control_plane = place.start()?;
    let kills = match std::env::var_os("SKEP_LONG") {
        Some(_) => KILLS_LONG,
        None => KILLS,
    };
    let mut starts = Vec::new();
    let mut known = Known::default();
    let (mut listed, mut resumed) = (0, 0);
    for round in 0..kills {
        drop(control_plane.client().await?);
        let (written, count) = write_and_kill(&mut control_plane, &place, round).await?;
        ensure!(count >= WRITES_MIN, "round {round}: {count}");
        let names: BTreeSet<_> = written.acknowledged.keys().cloned().collect();
        known.acknowledged.extend(written.acknowledged);
        known.in_flight = written.in_flight;

        let started = Instant::now();
        control_plane = place.start()?;
        let mut client = control_plane.client().await?;
        starts.push(started.elapsed());
        if listed > 0 {
            resumed += u64::from(watch_from(&mut client, listed, &names).await?);
        }
        listed = compare(&mut client, &mut known, listed)
            .await
            .with_context(|| format!("after kill {round}"))?;
    }
    println!(
        "{kills} kills, {} objects with their resourceVersions, {resumed} watches resumed, \
         resourceVersion {listed}; ready after {:?} (median), {:?} (99 of 100)",
        known.acknowledged.len(),
        percentile(&mut starts, 50),
        percentile(&mut starts, 99)
    );
    Ok(())
}

fn percentile(times: &mut [Duration], of_hundred: usize) -> Duration {
    times.sort_unstable();
    let place = times.len() * of_hundred / 100;
    times
        .get(place.min(times.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

/// Lets writers work until enough is acknowledged and kills the server under them.
async fn write_and_kill(
    control_plane: &mut ControlPlane,
    place: &Place,
    round: u64,
) -> anyhow::Result<(Known, u64)> {
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let client = place.client()?;
        writers.spawn(write(client, writer, round, Arc::clone(&acknowledged)));
    }
    let enough = WRITES_MIN + (round * 7919) % WRITES_MIN;
    let deadline = Instant::now() + WRITES_DEADLINE;
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
