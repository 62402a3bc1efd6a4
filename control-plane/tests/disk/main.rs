//! The control plane on a disk that fails: it runs full, has errors, takes no writes, is slow; under a
//! running process and at its start.
//!
//! Reads are answered all the while. Writes are refused with 507 when the disk is full and 503
//! otherwise, with the cause and with when to come again; the one in flight when the disk failed with 504,
//! since nobody knows. When the disk is well, writes go on within a second, without a restart.
//!
//! The disk is a file system in user space; the test starts itself in namespaces where it may mount it.

#![expect(clippy::print_stdout, reason = "a test with a main of its own")]

#[path = "../crash/client.rs"]
mod client;
#[path = "../crash/process.rs"]
mod process;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use faulty_disk::{Errno, Faults, FaultyDisk};
use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::process::{ControlPlane, Place};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// After the disk is well again.
const RESUMES_WITHIN: Duration = Duration::from_secs(1);
/// A refusal comes at once; the bound leaves room for a busy machine.
const REFUSED_WITHIN: Duration = Duration::from_secs(2);
/// How long the disk stays as it is once writes are refused.
const FAILS_FOR: Duration = Duration::from_millis(700);
/// What a sync of a slow disk takes, and what a write then may.
const SLOW: Duration = Duration::from_millis(500);
const SLOW_WRITE: Duration = Duration::from_secs(3);
/// A start on a disk that is well.
const STARTS_WITHIN: Duration = Duration::from_secs(10);

fn main() -> anyhow::Result<()> {
    let Some(dir) = faulty_disk::role() else {
        let dir = tempfile::tempdir()?;
        let status = faulty_disk::in_namespaces(dir.path()).context("run unshare (util-linux)")?;
        ensure!(status.success(), "{status}");
        return Ok(());
    };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(run(&dir))
}

async fn run(dir: &Path) -> anyhow::Result<()> {
    let at = dir.join("disk");
    std::fs::create_dir(&at)?;
    let disk = FaultyDisk::mount(&at).context("mount (is there /dev/fuse? `modprobe fuse`)")?;
    disk.forget_history();
    let mut place = Place::new(dir)?;
    place.data = at.join("data");
    let control_plane = place.start()?;
    let mut test = Test {
        client: place.client_when_there(control_plane).await?,
        disk,
        place,
        created: BTreeSet::new(),
        next: 0,
    };
    let well = Faults::default();
    let full = Faults {
        room: Some(0),
        ..well.clone()
    };
    let errors = Faults {
        change: Some(Errno::EIO),
        sync: Some(Errno::EIO),
        ..well.clone()
    };
    let syncs = Faults {
        sync: Some(Errno::EIO),
        ..well.clone()
    };
    let read_only = Faults {
        change: Some(Errno::EROFS),
        ..well
    };
    test.fails("full", full.clone(), 507, "No space left on device")
        .await?;
    test.fails("errors", errors, 503, "Input/output error")
        .await?;
    test.fails("syncs fail", syncs, 503, "Input/output error")
        .await?;
    test.fails("read-only", read_only.clone(), 503, "Read-only file system")
        .await?;
    test.is_slow().await?;
    test.starts_when_it_can("full", full).await?;
    test.starts_when_it_can("read-only", read_only).await
}

impl Place {
    async fn client_when_there(&self, control_plane: ControlPlane) -> anyhow::Result<Running> {
        let mut control_plane = control_plane;
        let client = control_plane.client().await?;
        Ok(Running {
            client,
            control_plane,
        })
    }
}

struct Running {
    client: Client,
    control_plane: ControlPlane,
}

struct Test {
    client: Running,
    disk: FaultyDisk,
    place: Place,
    /// Names of what was acknowledged.
    created: BTreeSet<String>,
    next: u64,
}

impl Test {
    async fn write(&mut self) -> anyhow::Result<(Answer, Duration)> {
        let name = format!("n{}", self.next);
        self.next += 1;
        // Larger than what a page of a file has left.
        let body = json!({"metadata": {"name": name}, "data": {"value": "v".repeat(20_000)}});
        let began = Instant::now();
        let answer = self
            .client
            .client
            .send("POST", CONFIG_MAPS, Some(&body))
            .await?;
        if answer.status == 201 {
            self.created.insert(name);
        }
        Ok((answer, began.elapsed()))
    }

    async fn writes(&mut self, count: u32) -> anyhow::Result<()> {
        for _ in 0..count {
            let (answer, _) = self.write().await?;
            ensure!(
                answer.status == 201,
                "{}: {}",
                answer.status,
                answer.json()?
            );
        }
        Ok(())
    }

    /// All of the API's reads, each in time.
    async fn reads(&mut self) -> anyhow::Result<()> {
        let one = self.created.first().context("an object")?;
        let one = format!("{CONFIG_MAPS}/{one}");
        let listed = format!("{CONFIG_MAPS}?resourceVersion=0");
        let watched = format!("{CONFIG_MAPS}?watch=true&timeoutSeconds=1&resourceVersion=0");
        for path in [&one, &listed, CONFIG_MAPS, "/readyz", "/livez", &watched] {
            let began = Instant::now();
            let answer = self.client.client.send("GET", path, None).await?;
            ensure!(answer.status == 200, "GET {path}: {}", answer.status);
            let bound = if path == watched { 2 } else { 1 } * REFUSED_WITHIN;
            ensure!(began.elapsed() < bound, "GET {path}: {:?}", began.elapsed());
        }
        Ok(())
    }

    async fn fails(
        &mut self,
        what: &str,
        faults: Faults,
        code: u16,
        cause: &str,
    ) -> anyhow::Result<()> {
        self.writes(10).await.context(what.to_owned())?;
        self.disk.set(faults);
        let began = Instant::now();
        let (mut refused, mut doubtful) = (0, 0);
        // Leases of the control plane may fail first; then none is in doubt here.
        while refused == 0 || began.elapsed() < FAILS_FOR {
            let (answer, took) = self.write().await?;
            let status = answer.json()?;
            ensure!(took < REFUSED_WITHIN, "{what}: refused after {took:?}");
            match answer.status {
                // Small enough for what was allocated.
                201 if refused == 0 => {}
                504 if refused == 0 => doubtful += 1,
                other => {
                    ensure!(other == code, "{what}: {other}: {status}");
                    check_refusal(&answer, &status, cause)?;
                    refused += 1;
                }
            }
            ensure!(began.elapsed() < 4 * FAILS_FOR, "{what}: never refused");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.reads().await.context(what.to_owned())?;
        let ended = self.client.control_plane.ended()?;
        ensure!(ended.is_none(), "{what}: {ended:?}\n{}", self.place.log());
        let resumed = self.resumes(what).await?;
        println!(
            "{what}: {doubtful} in doubt, {refused} refused with {code}, writes again after {resumed:?}"
        );
        Ok(())
    }

    async fn resumes(&mut self, what: &str) -> anyhow::Result<Duration> {
        self.disk.set(Faults::default());
        let well = Instant::now();
        while self.write().await?.0.status != 201 {
            ensure!(well.elapsed() < RESUMES_WITHIN, "{what}: no writes again");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let took = well.elapsed();
        self.has_all().await.context(what.to_owned())?;
        Ok(took)
    }

    /// Everything that was acknowledged is there, whole.
    async fn has_all(&mut self) -> anyhow::Result<()> {
        let list = self
            .client
            .client
            .send("GET", CONFIG_MAPS, None)
            .await?
            .json()?;
        let mut found = BTreeSet::new();
        for object in list["items"].as_array().context("a list")? {
            let name = object["metadata"]["name"].as_str().context("a name")?;
            if name.starts_with('n') {
                let value = object["data"]["value"].as_str().unwrap_or_default();
                ensure!(value.len() == 20_000, "{name} is there in part");
                found.insert(name.to_owned());
            }
        }
        let lost: Vec<_> = self.created.difference(&found).collect();
        ensure!(lost.is_empty(), "lost: {lost:?}");
        Ok(())
    }

    async fn is_slow(&mut self) -> anyhow::Result<()> {
        self.disk.set(Faults {
            sync_takes: SLOW,
            ..Faults::default()
        });
        let mut slowest = Duration::ZERO;
        for _ in 0..4 {
            let (answer, took) = self.write().await?;
            ensure!(
                answer.status == 201,
                "{}: {}",
                answer.status,
                answer.json()?
            );
            ensure!(
                took >= SLOW,
                "acknowledged after {took:?}, before it was on the disk"
            );
            ensure!(took < SLOW_WRITE, "a write took {took:?}");
            slowest = slowest.max(took);
            let began = Instant::now();
            self.reads().await?;
            // The watch alone takes a second.
            let reads = began.elapsed();
            ensure!(reads < Duration::from_secs(2), "reads took {reads:?}");
        }
        println!("syncs of {SLOW:?}: writes within {slowest:?}");
        self.disk.set(Faults::default());
        self.has_all().await
    }

    /// A process that is started on a disk that takes no writes waits, instead of ending again and again.
    async fn starts_when_it_can(&mut self, what: &str, faults: Faults) -> anyhow::Result<()> {
        self.disk.set(faults);
        self.client.control_plane.kill()?;
        let mut control_plane = self.place.start()?;
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(2) {
            let ended = control_plane.ended()?;
            ensure!(ended.is_none(), "{what}: {ended:?}\n{}", self.place.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let log = self.place.log();
        ensure!(
            log.contains("waiting for the disk"),
            "{what}: it says nothing:\n{log}"
        );
        self.disk.set(Faults::default());
        let well = Instant::now();
        self.client = self.place.client_when_there(control_plane).await?;
        let took = well.elapsed();
        ensure!(took < STARTS_WITHIN, "{what}: ready after {took:?}");
        println!("started while {what}: ready {took:?} after the disk was well");
        self.has_all().await?;
        self.writes(3).await
    }
}

fn check_refusal(answer: &Answer, status: &Value, cause: &str) -> anyhow::Result<()> {
    ensure!(answer.retry_after.is_some(), "no Retry-After: {status}");
    let message = status["message"].as_str().unwrap_or_default();
    ensure!(message.contains(cause), "no cause: {status}");
    ensure!(
        status["kind"] == "Status" && status["code"] == answer.status,
        "{status}"
    );
    Ok(())
}
