//! What a durable commit costs on each engine, in one run, as ratios.
//!
//! `cargo run --release -p control-plane-storage --example commit_cost [-- DIR]`. `DIR` is where
//! the files go; use the disk that matters (the default is the system's temporary directory, which
//! may be memory). etcd is Debian's, started on loopback and stopped again.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use control_plane_storage::{
    CommitError, EmbeddedStore, EtcdConfig, EtcdStore, Expect, MemoryStore, Op, Store,
};
use tokio::task::JoinSet;

const VALUE_BYTES: usize = 1500;
const MEASURED: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;
const GROUPED: usize = 64;

struct Etcd(Child);

impl Drop for Etcd {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[derive(Clone, Copy, Default)]
struct Figures {
    commits_per_s: f64,
    p50: Duration,
    p99: Duration,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let dir = match std::env::args_os().nth(1) {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let (_etcd, etcd) = start_etcd(&dir.path().join("etcd")).await?;
    let engines: Vec<(&str, Arc<dyn Store>)> = vec![
        ("memory", Arc::new(MemoryStore::new())),
        (
            "embedded",
            Arc::new(EmbeddedStore::open(dir.path().join("embedded")).await?),
        ),
        ("etcd", Arc::new(etcd)),
    ];
    for writers in [1, GROUPED] {
        // Rounds of all engines in turn, so that a busy minute hits all alike; the median counts.
        let mut rounds: Vec<Vec<Figures>> = vec![Vec::new(); engines.len()];
        for round in 0..ROUNDS {
            for (figures, (_, store)) in rounds.iter_mut().zip(&engines) {
                figures.push(measure(store, writers, round).await?);
            }
        }
        show(&engines, writers, rounds);
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the program's result")]
fn show(engines: &[(&str, Arc<dyn Store>)], writers: usize, rounds: Vec<Vec<Figures>>) {
    let medians: Vec<Figures> = rounds
        .into_iter()
        .map(|mut figures| {
            figures.sort_by(|a, b| a.commits_per_s.total_cmp(&b.commits_per_s));
            figures[figures.len() / 2]
        })
        .collect();
    let etcd = medians.last().copied().unwrap_or_default();
    println!("{writers} writer(s), {VALUE_BYTES} B a value, median of {ROUNDS}:");
    for ((name, _), figures) in engines.iter().zip(&medians) {
        println!(
            "  {name:9} {:9.0} commits/s  p50 {:9.1?}  p99 {:9.1?}  {:6.2} x etcd",
            figures.commits_per_s,
            figures.p50,
            figures.p99,
            figures.commits_per_s / etcd.commits_per_s
        );
    }
}

/// `writers` tasks overwrite a thousand keys each, one commit at a time.
async fn measure(
    store: &Arc<dyn Store>,
    writers: usize,
    round: usize,
) -> Result<Figures, CommitError> {
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let store = Arc::clone(store);
        tasks.spawn(async move {
            let mut times = Vec::new();
            while began.elapsed() < MEASURED {
                let key = format!("o/core/pods/{round}/{writer}/{}", times.len() % 1000);
                let op = Op::put(key, vec![b'v'; VALUE_BYTES], Expect::Any);
                let at = Instant::now();
                store.commit(vec![op]).await?;
                times.push(at.elapsed());
            }
            Ok::<_, CommitError>(times)
        });
    }
    let mut times = Vec::new();
    while let Some(task) = tasks.join_next().await {
        times.extend(task.map_err(|_panicked| CommitError::Closed)??);
    }
    let elapsed = began.elapsed();
    times.sort_unstable();
    let at = |share: usize| {
        times
            .get(times.len() * share / 100)
            .copied()
            .unwrap_or_default()
    };
    let count = u32::try_from(times.len()).unwrap_or(u32::MAX);
    let commits_per_s = f64::from(count) / elapsed.as_secs_f64();
    Ok(Figures {
        commits_per_s,
        p50: at(50),
        p99: at(99),
    })
}

async fn start_etcd(dir: &Path) -> anyhow::Result<(Etcd, EtcdStore)> {
    let port = || anyhow::Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port());
    let client = format!("http://127.0.0.1:{}", port()?);
    let peer = format!("http://127.0.0.1:{}", port()?);
    let child = Command::new("setpriv")
        .args([
            "--pdeathsig",
            "KILL",
            "etcd",
            "--log-level",
            "error",
            "--data-dir",
        ])
        .arg(dir)
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
        .spawn()?;
    let etcd = Etcd(child);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match EtcdStore::connect(EtcdConfig::new([client.clone()])).await {
            Ok(store) => return Ok((etcd, store)),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
