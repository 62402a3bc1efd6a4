//! The measured process: started, watched from outside, stopped.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::Mutex;

use super::client::{Certificate, Client, Lines, tls};

const BINARY: &str = env!("CARGO_BIN_EXE_skep-control-plane");
/// How long a start may take before the measurement gives up.
const READY_MAX: Duration = Duration::from_secs(60);
/// Clock ticks of /proc a second, on every Linux that matters.
const TICKS: f64 = 100.0;
/// Watches on one connection.
const WATCHES_PER_CONNECTION: usize = 100;

pub(crate) struct Server {
    child: Child,
    dir: PathBuf,
    address: SocketAddr,
    pub(crate) ready_after: Duration,
    /// The connection that takes the next watches, and how many it has.
    watcher: Mutex<Option<(Client, usize)>>,
}

impl Server {
    pub(crate) async fn start(dir: &Path) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut server = Self {
            child: spawn(dir, address),
            dir: dir.to_owned(),
            address,
            ready_after: Duration::ZERO,
            watcher: Mutex::new(None),
        };
        server.wait_until_ready(Instant::now()).await;
        server
    }

    pub(crate) async fn restart(&mut self) {
        self.terminate().await;
        *self.watcher.lock().await = None;
        let started = Instant::now();
        self.child = spawn(&self.dir, self.address);
        self.wait_until_ready(started).await;
    }

    pub(crate) async fn stop(mut self) {
        self.terminate().await;
    }

    async fn terminate(&mut self) {
        let pid = self.child.id().to_string();
        Command::new("kill").arg(pid).status().unwrap();
        let deadline = Instant::now() + READY_MAX;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the server does not stop");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn wait_until_ready(&mut self, started: Instant) {
        loop {
            let kubeconfig = self.dir.join("kubeconfig");
            if kubeconfig.exists()
                && let Ok(client) =
                    Client::connect(self.address, &tls(&kubeconfig, Certificate::Admin)).await
                && client.get("/readyz", "").await.0 == 200
            {
                self.ready_after = started.elapsed();
                return;
            }
            assert!(started.elapsed() < READY_MAX, "the server does not start");
            assert!(
                self.child.try_wait().unwrap().is_none(),
                "the server ended: see {}",
                self.dir.join("log").display()
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(crate) async fn client(&self) -> Client {
        let tls = tls(&self.dir.join("kubeconfig"), Certificate::Admin);
        Client::connect(self.address, &tls).await.unwrap()
    }

    pub(crate) async fn client_without_certificate(&self) -> Client {
        let tls = tls(&self.dir.join("kubeconfig"), Certificate::None);
        Client::connect(self.address, &tls).await.unwrap()
    }

    /// A new watch, on a connection with not too many.
    pub(crate) async fn watch(&self, path: &str) -> Lines {
        let mut watcher = self.watcher.lock().await;
        if watcher
            .as_ref()
            .is_none_or(|(_, count)| *count >= WATCHES_PER_CONNECTION)
        {
            *watcher = Some((self.client().await, 0));
        }
        let (client, count) = watcher.as_mut().unwrap();
        *count += 1;
        client.watch(path).await
    }

    pub(crate) async fn revision(&self) -> u64 {
        let (_, list) = self.client().await.text("/api/v1/services?limit=1").await;
        let list: Value = serde_json::from_slice(&list).unwrap();
        let text = list["metadata"]["resourceVersion"].as_str().unwrap();
        text.parse().unwrap()
    }

    /// User and system time of the process so far.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // After the name in brackets, which may hold anything.
        let (_, rest) = stat.rsplit_once(')').unwrap();
        let ticks: f64 = rest
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|ticks| ticks.parse::<f64>().unwrap())
            .sum();
        Duration::from_secs_f64(ticks / TICKS)
    }

    pub(crate) fn rss_mb(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<f64>().unwrap() * 1024.0 / 1e6
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After a fault; otherwise it has ended already.
        if self.child.kill().is_ok() {
            self.child.wait().unwrap();
        }
    }
}

fn spawn(dir: &Path, address: SocketAddr) -> Child {
    let log = std::fs::File::create(dir.join("log")).unwrap();
    Command::new(BINARY)
        .arg("--data-dir")
        .arg(dir.join("data"))
        .arg("--kubeconfig-out")
        .arg(dir.join("kubeconfig"))
        .args(["--advertise-address=127.0.0.1", "--node-bind=127.0.0.1:0"])
        .arg(format!("--bind={address}"))
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// The binary's size without symbols, where `strip` is there to tell.
pub(crate) fn binary_mb(dir: &Path) -> f64 {
    let stripped = dir.join("stripped");
    let done = Command::new("strip")
        .arg("-o")
        .arg(&stripped)
        .arg(BINARY)
        .status();
    let path = match done {
        Ok(status) if status.success() => stripped.as_path(),
        _ => Path::new(BINARY),
    };
    std::fs::metadata(path).unwrap().len() as f64 / 1e6
}
