//! One etcd of one member on loopback.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

pub(crate) struct Etcd {
    child: Child,
    url: String,
}

impl Etcd {
    /// With its data in a directory below `dir`. It may not answer yet.
    pub(crate) fn start(dir: &Path) -> anyhow::Result<Self> {
        let url = || -> anyhow::Result<String> {
            let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
            Ok(format!("http://127.0.0.1:{port}"))
        };
        let (clients, peers) = (url()?, url()?);
        // Taken down with this process, should it be killed.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "etcd", "--log-level", "error"])
            .arg("--data-dir")
            .arg(dir.join("etcd"))
            .args(["--listen-client-urls", &clients])
            .args(["--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &peers])
            .args(["--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", &format!("default={peers}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Ok(Self {
            child: child.context("run etcd: is Debian's package etcd-server installed?")?,
            url: clients,
        })
    }

    /// A control plane's flags for it.
    pub(crate) fn flags(&self) -> Vec<String> {
        flags(&self.url)
    }
}

/// A control plane's flags for an etcd with these members.
pub(crate) fn flags(urls: &str) -> Vec<String> {
    ["--store", "etcd", "--etcd-endpoints", urls]
        .map(str::to_owned)
        .to_vec()
}

impl Drop for Etcd {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
