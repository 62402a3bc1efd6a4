//! One etcd and several control planes on it, as processes on loopback.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::client::Client;
use crate::etcd::Etcd;

const START_DEADLINE: Duration = Duration::from_secs(30);
const STOP_DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Servers {
    dir: tempfile::TempDir,
    store: Vec<String>,
    env: Vec<Environment>,
    servers: Vec<Server>,
    /// Ends after those that use it.
    etcd: Option<Etcd>,
}

/// Variables that a server gets beside ours.
pub(crate) type Environment = Vec<(&'static str, PathBuf)>;

struct Server {
    child: Child,
    address: SocketAddr,
    node_port: u16,
}

/// The end of a control plane.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    Orderly,
    Kill,
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in self.servers.iter_mut().map(|server| &mut server.child) {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

impl Servers {
    /// All are ready on return.
    pub(crate) async fn start(count: usize) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let etcd = Etcd::start(dir.path())?;
        let mut servers = Self::over(dir, etcd.flags(), count)?;
        servers.etcd = Some(etcd);
        for index in 0..count {
            servers.ready(index).await?;
        }
        Ok(servers)
    }

    /// Control planes with a store that is there, or comes soon.
    pub(crate) fn over(
        dir: tempfile::TempDir,
        store: Vec<String>,
        count: usize,
    ) -> anyhow::Result<Self> {
        Self::over_with(dir, store, count, vec![Vec::new(); count])
    }

    /// The same, each with an environment of its own.
    pub(crate) fn over_with(
        dir: tempfile::TempDir,
        store: Vec<String>,
        count: usize,
        env: Vec<Environment>,
    ) -> anyhow::Result<Self> {
        let mut servers = Self {
            dir,
            store,
            env,
            servers: Vec::new(),
            etcd: None,
        };
        for index in 0..count {
            let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
            let node_port = free_port()?;
            let child = servers.spawn(index, address, node_port)?;
            servers.servers.push(Server {
                child,
                address,
                node_port,
            });
        }
        Ok(servers)
    }

    fn spawn(&self, index: usize, address: SocketAddr, node_port: u16) -> anyhow::Result<Child> {
        let dir = self.dir.path();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(dir.join(format!("log-{index}")))?;
        let child = bound_to_us(env!("CARGO_BIN_EXE_skep-control-plane"))
            .arg("--data-dir")
            .arg(dir.join(format!("data-{index}")))
            .arg("--pki-dir")
            .arg(dir.join("pki"))
            .arg("--kubeconfig-out")
            .arg(self.kubeconfig(index))
            .args(&self.store)
            .args(["--bind", &address.to_string()])
            .args(["--node-bind", &format!("127.0.0.1:{node_port}")])
            .args(["--advertise-address", "127.0.0.1"])
            .envs(self.env[index].iter().cloned())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(child)
    }

    pub(crate) fn address(&self, index: usize) -> SocketAddr {
        self.servers[index].address
    }

    pub(crate) fn kubeconfig(&self, index: usize) -> PathBuf {
        self.dir.path().join(format!("kubeconfig-{index}"))
    }

    pub(crate) fn client(&self, index: usize) -> anyhow::Result<Client> {
        Client::new(self.address(index), &self.kubeconfig(index))
    }

    /// The server that says of itself that it leads.
    pub(crate) fn whose_log_says(&self, identity: &str) -> anyhow::Result<usize> {
        for index in 0..self.servers.len() {
            let log = std::fs::read_to_string(self.dir.path().join(format!("log-{index}")))?;
            if log
                .lines()
                .any(|line| line.contains("run here") && line.contains(identity))
            {
                return Ok(index);
            }
        }
        anyhow::bail!("no log says that {identity} leads")
    }

    pub(crate) async fn ready(&mut self, index: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            let asked = async { self.client(index)?.send("GET", "/readyz", None).await };
            if asked.await.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            let log = self.dir.path().join(format!("log-{index}"));
            let log = std::fs::read_to_string(log).unwrap_or_default();
            let ended = self.servers[index].child.try_wait()?;
            ensure!(ended.is_none(), "server {index} ended: {ended:?}\n{log}");
            ensure!(
                Instant::now() < deadline,
                "server {index} is not ready\n{log}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends a control plane, starts it again on the same address, waits until it is ready.
    pub(crate) async fn restart(&mut self, index: usize, end: End) -> anyhow::Result<()> {
        let signal = match end {
            End::Orderly => "-TERM",
            End::Kill => "-KILL",
        };
        let pid = self.servers[index].child.id().to_string();
        ensure!(
            Command::new("kill")
                .args([signal, &pid])
                .status()?
                .success()
        );
        let deadline = Instant::now() + STOP_DEADLINE;
        while self.servers[index].child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "server {index} does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (address, node_port) = (self.address(index), self.servers[index].node_port);
        self.servers[index].child = self.spawn(index, address, node_port)?;
        self.ready(index).await
    }
}

/// Taken down with this process, should it be killed.
fn bound_to_us(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program.as_ref());
    command
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
