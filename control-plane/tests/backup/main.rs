//! A snapshot of a control plane under load goes to another machine.
//!
//! Everything acknowledged up to the snapshot's revision is in it, with its resourceVersion, and the new
//! control plane begins above every revision that anybody was told by the old one: who watched or
//! listed there must list again. From a store of its own and from etcd. "Another machine" is another
//! directory, other addresses and other certificates of the same authority, whose keys are copied as
//! the documentation says; without them the new control plane refuses to start.

#![expect(clippy::print_stdout, reason = "what was measured")]

#[path = "../crash/client.rs"]
mod client;
#[path = "../replicas/etcd.rs"]
mod etcd;
#[path = "../crash/process.rs"]
mod process;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::etcd::Etcd;
use crate::process::Place;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SECRET: &str = "/api/v1/namespaces/default/secrets/sealed";
const WRITERS: u64 = 4;
/// Acknowledged before the snapshot is taken, and again before the old machine is lost.
const WRITES: usize = 300;
const DEADLINE: Duration = Duration::from_secs(20);

/// Name to resourceVersion.
type Acknowledged = Arc<Mutex<BTreeMap<String, u64>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_its_own_is_saved_under_load_and_goes_on_elsewhere() -> anyhow::Result<()> {
    move_elsewhere(None).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_is_saved_under_load_and_goes_on_elsewhere() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    move_elsewhere(Some(Etcd::start(dir.path())?)).await
}

#[expect(clippy::too_many_lines, reason = "one story, told in its order")]
async fn move_elsewhere(etcd: Option<Etcd>) -> anyhow::Result<()> {
    let (old_dir, new_dir) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let mut old = Place::new(old_dir.path())?;
    old.store = etcd.as_ref().map(Etcd::flags).unwrap_or_default();
    let mut running = old.start()?;
    let mut client = running.client().await?;
    let secret = json!({"metadata": {"name": "sealed"}, "stringData": {"word": "canary"}});
    let made = client
        .send("POST", "/api/v1/namespaces/default/secrets", Some(&secret))
        .await?;
    ensure!(made.status == 201, "{}", made.status);

    let (acknowledged, stop) = (Acknowledged::default(), CancellationToken::new());
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(
            old.client()?,
            writer,
            Arc::clone(&acknowledged),
            stop.clone(),
        ));
    }
    until(&acknowledged, WRITES).await?;
    let file = old_dir.path().join("snapshot");
    let saved = snapshot("save", &file, &old)?;
    let rev = revision(&saved)?;
    let by_then = acknowledged.lock().len();
    until(&acknowledged, by_then + WRITES).await?;
    stop.cancel();
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    let told = list(&mut client).await?.1;
    running.kill()?;
    a_damaged_snapshot_is_refused(&file, &old)?;

    let new = Place::new(new_dir.path())?;
    snapshot("restore", &file, &new)?;
    let refused = snapshot("restore", &file, &new);
    ensure!(refused.is_err(), "a store was overwritten");
    without_the_keys_it_refuses(&new).await?;
    copy_keys(&old.data.join("pki"), &new.data.join("pki"))?;
    let mut running = new.start()?;
    let mut client = running.client().await?;
    let acknowledged = std::mem::take(&mut *acknowledged.lock());
    let in_it: BTreeMap<_, _> = acknowledged
        .into_iter()
        .filter(|(_, at)| *at <= rev)
        .collect();
    ensure!(
        in_it.len() >= WRITES,
        "only {} are in the snapshot",
        in_it.len()
    );
    let (found, listed) = list(&mut client).await?;
    ensure!(
        listed > told,
        "the new store is at {listed}, {told} was told"
    );
    for (name, at) in &in_it {
        ensure!(
            found.get(name) == Some(at),
            "{name} of {at}: {:?}",
            found.get(name)
        );
    }
    ensure!(
        found.values().all(|at| *at <= rev),
        "newer than the snapshot"
    );
    let secret = client.send("GET", SECRET, None).await?.json()?;
    ensure!(
        secret["data"]["word"] == "Y2FuYXJ5",
        "the secret is {secret}"
    );
    let gone = format!("{CONFIG_MAPS}?watch=true&resourceVersion={told}&timeoutSeconds=1");
    let answer = client.send("GET", &gone, None).await?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    ensure!(
        answer.status == 410 || text.contains("\"code\":410"),
        "{}: {text}",
        answer.status
    );
    let body = json!({"metadata": {"name": "after"}});
    let made = client.send("POST", CONFIG_MAPS, Some(&body)).await?;
    ensure!(
        made.status == 201 && version(&made.json()?)? > listed,
        "{}",
        made.status
    );
    println!(
        "{} objects moved; revision {told} then, {listed} now: {saved}",
        in_it.len()
    );
    Ok(())
}

async fn write(
    mut client: Client,
    writer: u64,
    acknowledged: Acknowledged,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    for n in 0.. {
        if stop.is_cancelled() {
            break;
        }
        let name = format!("w{writer}-{n}");
        let body = json!({"metadata": {"name": name}, "data": {"value": "v".repeat(n % 3000)}});
        let made = client.send("POST", CONFIG_MAPS, Some(&body)).await?;
        let again = made.retry_after;
        ensure!(
            made.status == 201,
            "{name}: {}, again after {again:?}",
            made.status
        );
        acknowledged.lock().insert(name, version(&made.json()?)?);
    }
    Ok(())
}

async fn until(acknowledged: &Acknowledged, count: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    while acknowledged.lock().len() < count {
        ensure!(began.elapsed() < DEADLINE, "writes do not go on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

fn control_plane() -> Command {
    Command::new(env!("CARGO_BIN_EXE_skep-control-plane"))
}

/// What `snapshot WORD` says.
fn snapshot(word: &str, file: &Path, place: &Place) -> anyhow::Result<String> {
    let mut command = control_plane();
    command.args(["snapshot", word]).arg(file);
    if word != "status" {
        command
            .arg("--data-dir")
            .arg(&place.data)
            .args(&place.store);
    }
    let Output {
        status,
        stdout,
        stderr,
    } = command.output()?;
    if !status.success() {
        bail!(
            "snapshot {word}: {status}: {}",
            String::from_utf8_lossy(&stderr)
        );
    }
    Ok(String::from_utf8(stdout)?.trim().to_owned())
}

/// Of `saved: revision 12, 34 keys, ..`.
fn revision(saved: &str) -> anyhow::Result<u64> {
    let number = saved.split(' ').nth(2).context("a revision")?;
    Ok(number.trim_end_matches(',').parse()?)
}

fn a_damaged_snapshot_is_refused(file: &Path, place: &Place) -> anyhow::Result<()> {
    let whole = snapshot("status", file, place)?;
    ensure!(whole.starts_with("whole: "), "{whole}");
    let bytes = std::fs::read(file)?;
    let damaged = file.with_extension("damaged");
    for at in (0..bytes.len()).step_by(bytes.len() / 20 + 1) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 4;
        std::fs::write(&damaged, flipped)?;
        let read = snapshot("status", &damaged, place);
        ensure!(read.is_err(), "byte {at} is wrong: {read:?}");
    }
    std::fs::write(&damaged, &bytes[..bytes.len() - 1])?;
    ensure!(
        snapshot("status", &damaged, place).is_err(),
        "the last byte is missing"
    );
    Ok(())
}

/// With keys of its own it would be another cluster with this one's objects.
async fn without_the_keys_it_refuses(place: &Place) -> anyhow::Result<()> {
    let mut running = place.start()?;
    let began = Instant::now();
    loop {
        if let Some(status) = running.ended()? {
            ensure!(!status.success(), "{status}");
            let log = place.log();
            ensure!(
                log.contains("not in the key file"),
                "it does not say why:\n{log}"
            );
            return Ok(());
        }
        ensure!(
            began.elapsed() < DEADLINE,
            "it runs without the keys:\n{}",
            place.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn copy_keys(from: &Path, to: &Path) -> anyhow::Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// The writers' objects, and the list's version.
async fn list(client: &mut Client) -> anyhow::Result<(BTreeMap<String, u64>, u64)> {
    let list = client.send("GET", CONFIG_MAPS, None).await?.json()?;
    let mut found = BTreeMap::new();
    for object in list["items"].as_array().context("a list")? {
        let name = object["metadata"]["name"].as_str().context("a name")?;
        if name.starts_with('w') {
            found.insert(name.to_owned(), version(object)?);
        }
    }
    Ok((found, version(&list)?))
}

fn version(object: &Value) -> anyhow::Result<u64> {
    let version = object["metadata"]["resourceVersion"].as_str();
    Ok(version.context("a resourceVersion")?.parse()?)
}
