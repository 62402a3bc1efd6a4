//! The clocks of two control planes jump: back and forth by an hour and by a year.
//!
//! No lease changes its holder over it, by the leader's clock or by the other's; and clients whose
//! certificates were good before a jump back by an hour are let in after it. (A jump forward ends what
//! ends by then, and before the day that it was issued nothing is good, as upstream.)
//!
//! Debian's libfaketime moves the clock of one process; what the kernel counts by itself
//! (`CLOCK_MONOTONIC`) goes on as it is, as with a real clock that is set.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::client::Client;
use crate::etcd::Etcd;
use crate::servers::Servers;

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/skep-control-plane";
const SERVERS: usize = 2;
/// The lease is over after three seconds: what a jump does to it shows by then.
const LOOK_FOR: Duration = Duration::from_millis(3200);
const READY: Duration = Duration::from_secs(30);
/// What libfaketime reads: seconds against the real time.
const BACK: [&str; 2] = ["-3600", "-31536000"];
const FORTH: [&str; 2] = ["+3600", "+31536000"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_takes_no_lease_and_turns_nobody_away() -> anyhow::Result<()> {
    let _turn = crate::TURN.lock().await;
    let Some(library) = library() else {
        let missing = "libfaketime is missing: run `cargo xtask setup`";
        ensure!(std::env::var_os("CI").is_none(), missing);
        println!("{missing}; not tested");
        return Ok(());
    };
    let dir = tempfile::tempdir()?;
    let etcd = Etcd::start(dir.path())?;
    let clocks: Vec<PathBuf> = (0..SERVERS)
        .map(|n| dir.path().join(format!("clock-{n}")))
        .collect();
    for clock in &clocks {
        std::fs::write(clock, "+0")?;
    }
    let env = clocks
        .iter()
        .map(|clock| environment(&library, clock))
        .collect();
    let temp = tempfile::tempdir_in(dir.path())?;
    let mut servers = Servers::over_with(temp, etcd.flags(), SERVERS, env)?;
    for index in 0..SERVERS {
        servers.ready(index).await?;
    }
    let mut client = servers.client(0)?;
    let holder = first_holder(&mut client).await?;
    let leader = servers.whose_log_says(&holder)?;
    // Each in its turn: the other one's clock first.
    for server in [1 - leader, leader] {
        for offset in BACK.iter().chain(&FORTH) {
            jump(&clocks[server], offset)?;
            let what = format!("clock of {server} (the leader is {leader}) at {offset} s");
            still_held(&mut servers.client(1 - server)?, &holder)
                .await
                .context(what.clone())?;
            if *offset == BACK[0] {
                is_let_in(&servers, server).await.context(what)?;
            }
        }
        jump(&clocks[server], "+0")?;
        still_held(&mut client, &holder)
            .await
            .context("the clock is right again")?;
        client = servers.client(0)?;
    }
    println!("{} jumps, {holder} leads", 2 * (BACK.len() + FORTH.len()));
    Ok(())
}

fn library() -> Option<PathBuf> {
    let triples = ["x86_64-linux-gnu", "aarch64-linux-gnu"];
    let path = |triple| PathBuf::from(format!("/usr/lib/{triple}/faketime/libfaketime.so.1"));
    triples.into_iter().map(path).find(|path| path.exists())
}

fn environment(library: &Path, clock: &Path) -> Vec<(&'static str, PathBuf)> {
    vec![
        ("LD_PRELOAD", library.to_owned()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_owned()),
        ("FAKETIME_NO_CACHE", "1".into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ("DONT_FAKE_MONOTONIC", "1".into()),
    ]
}

/// Whole at every moment: the library reads it with every look at the clock.
fn jump(clock: &Path, offset: &str) -> anyhow::Result<()> {
    let next = clock.with_extension("next");
    std::fs::write(&next, offset)?;
    Ok(std::fs::rename(&next, clock)?)
}

async fn lease(client: &mut Client) -> anyhow::Result<Value> {
    let answer = client.send("GET", LEASE, None).await?;
    ensure!(answer.status == 200, "{}", answer.status);
    answer.json()
}

fn holder_of(lease: &Value) -> String {
    lease["spec"]["holderIdentity"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

async fn first_holder(client: &mut Client) -> anyhow::Result<String> {
    let began = Instant::now();
    loop {
        if let Ok(lease) = lease(client).await
            && !holder_of(&lease).is_empty()
        {
            return Ok(holder_of(&lease));
        }
        ensure!(began.elapsed() < READY, "nobody leads");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The holder stays and goes on renewing.
async fn still_held(client: &mut Client, holder: &str) -> anyhow::Result<()> {
    let before = lease(client).await?;
    let began = Instant::now();
    while began.elapsed() < LOOK_FOR {
        let now = holder_of(&lease(client).await?);
        ensure!(now == holder, "{now} leads instead of {holder}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let after = lease(client).await?;
    let (before, after) = (
        &before["metadata"]["resourceVersion"],
        &after["metadata"]["resourceVersion"],
    );
    ensure!(before != after, "the lease is not renewed");
    ensure!(
        lease(client).await?["spec"]["leaseTransitions"]
            .as_u64()
            .unwrap_or(0)
            <= 1,
        "it changed hands"
    );
    Ok(())
}

/// With a certificate on a new connection.
async fn is_let_in(servers: &Servers, server: usize) -> anyhow::Result<()> {
    let mut fresh = servers.client(server)?;
    let answer = fresh.send("GET", "/api/v1/namespaces/default", None).await;
    let answer = answer.context("a certificate is refused")?;
    ensure!(answer.status == 200, "{}", answer.status);
    Ok(())
}
