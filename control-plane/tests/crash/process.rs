//! One control plane with a store of its own, as a process on loopback.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::client::Client;

const START_DEADLINE: Duration = Duration::from_secs(30);

/// Where a control plane keeps what, and where it listens.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// For its log and its kubeconfig.
    pub(crate) dir: PathBuf,
    pub(crate) data: PathBuf,
    /// Flags of a store that is not its own.
    pub(crate) store: Vec<String>,
    port: u16,
    node_port: u16,
}

pub(crate) struct ControlPlane {
    child: Child,
    place: Place,
}

impl Place {
    /// Everything in one directory, on ports that are free.
    pub(crate) fn new(dir: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            dir: dir.to_owned(),
            data: dir.join("data"),
            store: Vec::new(),
            port: free_port()?,
            node_port: free_port()?,
        })
    }

    pub(crate) fn start(&self) -> anyhow::Result<ControlPlane> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))?;
        // Taken down with this process, should it be killed.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(env!("CARGO_BIN_EXE_skep-control-plane"))
            .arg("--data-dir")
            .arg(&self.data)
            .args(&self.store)
            .arg("--kubeconfig-out")
            .arg(self.dir.join("kubeconfig"))
            .args(["--bind", &format!("127.0.0.1:{}", self.port)])
            .args(["--node-bind", &format!("127.0.0.1:{}", self.node_port)])
            .args(["--advertise-address", "127.0.0.1"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(ControlPlane {
            child,
            place: self.clone(),
        })
    }

    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        Client::new(address, &self.dir.join("kubeconfig"))
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl ControlPlane {
    /// A client, as soon as the API is ready.
    pub(crate) async fn client(&mut self) -> anyhow::Result<Client> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if let Ok(client) = self.ready().await {
                return Ok(client);
            }
            if let Some(status) = self.ended()? {
                anyhow::bail!(
                    "the control plane ended by itself: {status}\n{}",
                    self.place.log()
                );
            }
            ensure!(
                Instant::now() < deadline,
                "not ready in {START_DEADLINE:?}\n{}",
                self.place.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn ready(&self) -> anyhow::Result<Client> {
        let mut client = self.place.client()?;
        let answer = client.send("GET", "/readyz", None).await?;
        ensure!(answer.status == 200, "{}", answer.status);
        let answer = client
            .send("GET", "/api/v1/namespaces/default", None)
            .await?;
        ensure!(answer.status == 200, "{}", answer.status);
        Ok(client)
    }

    /// Its end, if it has ended.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
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

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
