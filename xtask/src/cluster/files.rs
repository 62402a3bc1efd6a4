//! The files of one cluster below `target/`: changes when what is kept on disk changes.
//!
//! `cluster.json` is written by the network step and says which cluster this is; `nodes.json` is
//! written when nodes were started and is what the `skep` command reads to find them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::addresses::ClusterIndex;
use super::daemon::ProcessId;
use crate::workspace;

/// The cluster that commands mean when none is named.
pub(crate) const DEFAULT_NAME: &str = "default";

/// Which cluster, and where its files lie.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
}

/// What `up` decided once and every later command needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Network {
    pub(crate) index: ClusterIndex,
    /// Holds the network namespace of the underlay bridge.
    pub(crate) holder: ProcessId,
}

/// All nodes of a cluster, for people and programs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Nodes {
    pub(crate) cluster: String,
    pub(crate) nodes: Vec<Node>,
}

/// One node; the paths lead through its own mount namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) index: u8,
    pub(crate) ip: String,
    /// The node's init as the machine numbers it.
    pub(crate) pid: i32,
    /// Tells it from a later process with the same number.
    pub(crate) started: u64,
    pub(crate) agent_socket: String,
    pub(crate) containerd_socket: String,
    pub(crate) bpffs: String,
}

impl Node {
    pub(crate) fn process(&self) -> ProcessId {
        ProcessId {
            pid: self.pid,
            started: self.started,
        }
    }
}

/// Which store a cluster was started with, and who runs its control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ControlPlane {
    pub(crate) store: Store,
    pub(crate) release: bool,
    pub(crate) mode: DataplaneMode,
    /// How many control planes.
    #[serde(default = "one")]
    pub(crate) count: u8,
    pub(crate) supervisor: ProcessId,
}

/// What files of before several control planes mean.
fn one() -> u8 {
    1
}

/// Where the control plane keeps its objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Store {
    /// The engine inside the control plane.
    Embedded,
    /// An etcd of the distribution, started with the cluster.
    Etcd,
}

/// How pods of other nodes are reached; a flag of the agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DataplaneMode {
    /// Routes on the underlay.
    Direct,
    /// A VXLAN tunnel between the nodes.
    Vxlan,
}

impl DataplaneMode {
    pub(crate) fn flag(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Vxlan => "vxlan",
        }
    }
}

impl Store {
    pub(crate) fn flag(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Etcd => "etcd",
        }
    }
}

impl Cluster {
    /// # Errors
    /// When the name could not be part of a file name.
    pub(crate) fn named(name: &str) -> Result<Self> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 40 || !name.chars().all(plain) {
            bail!("cluster name {name:?}: use 1 to 40 of a-z, 0-9 and '-'");
        }
        let dir = match name {
            DEFAULT_NAME => workspace::target().join("cluster"),
            other => workspace::target().join(format!("cluster-{other}")),
        };
        Ok(Self {
            name: name.to_owned(),
            dir,
        })
    }

    /// Every cluster of this tree that has files, running or not.
    pub(crate) fn all() -> Result<Vec<Self>> {
        let target = workspace::target();
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&target).context("list target")? {
            let name = entry.context("list target")?.file_name();
            let name = name.to_string_lossy();
            if name == "cluster" {
                found.push(Self::named(DEFAULT_NAME)?);
            } else if let Some(name) = name.strip_prefix("cluster-") {
                found.push(Self::named(name)?);
            }
        }
        Ok(found)
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    pub(crate) fn log(&self, what: &str) -> PathBuf {
        self.logs().join(format!("{what}.log"))
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// `number`: counted from 1.
    pub(crate) fn control_plane_data(&self, number: u8) -> PathBuf {
        match number {
            1 => self.dir.join("control-plane"),
            other => self.dir.join(format!("control-plane-{other}")),
        }
    }

    /// Keys and certificates, the same for all control planes.
    pub(crate) fn pki(&self) -> PathBuf {
        self.control_plane_data(1).join("pki")
    }

    pub(crate) fn cluster_ca(&self) -> PathBuf {
        self.pki().join("ca.crt")
    }

    pub(crate) fn join_token(&self) -> PathBuf {
        self.dir.join("join-token")
    }

    pub(crate) fn node_dir(&self, node: &str) -> PathBuf {
        self.dir.join("nodes").join(node)
    }

    pub(crate) fn network(&self) -> Result<Option<Network>> {
        read_json(&self.dir.join("cluster.json"))
    }

    pub(crate) fn write_network(&self, network: &Network) -> Result<()> {
        write_json(&self.dir.join("cluster.json"), network)
    }

    /// The directory of the nodes' containerd, when it is not the machine's.
    pub(crate) fn containerd(&self) -> Result<Option<PathBuf>> {
        read_json(&self.dir.join("containerd.json"))
    }

    pub(crate) fn write_containerd(&self, directory: &Path) -> Result<()> {
        let directory = std::path::absolute(directory)
            .with_context(|| format!("find {}", directory.display()))?;
        write_json(&self.dir.join("containerd.json"), &directory)
    }

    pub(crate) fn nodes(&self) -> Result<Nodes> {
        Ok(read_json(&self.dir.join("nodes.json"))?.unwrap_or_default())
    }

    pub(crate) fn write_nodes(&self, nodes: &Nodes) -> Result<()> {
        write_json(&self.dir.join("nodes.json"), nodes)
    }

    pub(crate) fn control_plane(&self) -> Result<Option<ControlPlane>> {
        read_json(&self.dir.join("control-plane.json"))
    }

    pub(crate) fn write_control_plane(&self, control_plane: &ControlPlane) -> Result<()> {
        write_json(&self.dir.join("control-plane.json"), control_plane)
    }

    /// The node called `wanted`, by name or by number.
    pub(crate) fn node(&self, wanted: &str) -> Result<Node> {
        let nodes = self.nodes()?.nodes;
        let known: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
        nodes
            .into_iter()
            .find(|node| node.name == wanted || node.index.to_string() == wanted)
            .with_context(|| match known.is_empty() {
                true => format!("cluster {:?} has no nodes: run `cargo xtask up`", self.name),
                false => format!("no node {wanted:?}; there are: {}", known.join(", ")),
            })
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    serde_json::from_str(&text)
        .map(Some)
        .with_context(|| format!("read {}: not what this version writes", path.display()))
}

/// Written aside and renamed, so that a reader sees the old or the new text.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(value).context("serialise")?;
    let aside = path.with_extension("new");
    std::fs::write(&aside, text).with_context(|| format!("write {}", aside.display()))?;
    std::fs::rename(&aside, path).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::Cluster;

    #[test]
    fn the_default_cluster_has_the_documented_directory() {
        let cluster = Cluster::named("default").unwrap();
        assert!(cluster.kubeconfig().ends_with("target/cluster/kubeconfig"));
    }

    #[test]
    fn a_name_that_is_a_path_is_refused() {
        for name in ["", "..", "a/b", "A", &"x".repeat(41)] {
            assert!(Cluster::named(name).is_err(), "{name:?}");
        }
    }
}
