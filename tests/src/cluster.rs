//! A cluster of a test: changes when `cargo xtask up` or its files do.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::output::Output;
use crate::process::{self, Process};
use crate::workspace;

/// What a test wants.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub nodes: u8,
    pub store: Store,
    /// More than one need etcd.
    pub control_planes: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 2,
            store: Store::Embedded,
            control_planes: 1,
        }
    }
}

/// Where the control plane keeps its objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    Embedded,
    Etcd,
}

/// A running cluster; taken down when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    options: Options,
    is_down: bool,
}

/// One node, as `nodes.json` has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Node {
    pub name: String,
    /// Counted from 1.
    pub index: u8,
    pub ip: String,
    /// The node's init.
    pub pid: i32,
}

#[derive(Debug, Deserialize)]
struct Nodes {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct ControlPlane {
    supervisor: Supervisor,
}

#[derive(Debug, Deserialize)]
struct Supervisor {
    pid: i32,
}

impl Cluster {
    /// Brings a cluster up and waits until it is ready. `name`: of the test, for files and logs.
    ///
    /// # Errors
    /// When a step of `up` fails; what was made is taken away again, the logs are kept.
    pub fn up(name: &str, options: Options) -> Result<Self> {
        let name = format!("{name}-{}", std::process::id());
        // From here on: dropped on failure.
        let cluster = Self {
            name,
            options,
            is_down: false,
        };
        cluster.up_again()?;
        Ok(cluster)
    }

    /// `cargo xtask up` with what the cluster was made with.
    ///
    /// # Errors
    /// When a step of `up` fails.
    pub fn up_again(&self) -> Result<()> {
        let nodes = self.options.nodes.to_string();
        let control_planes = self.options.control_planes.to_string();
        let store = match self.options.store {
            Store::Embedded => "embedded",
            Store::Etcd => "etcd",
        };
        let mut words = vec![
            "up",
            "--name",
            &self.name,
            "--nodes",
            &nodes,
            "--store",
            store,
            "--control-planes",
            &control_planes,
        ];
        if workspace::is_built() {
            words.push("--prebuilt");
        }
        Output::of(&mut workspace::xtask(&words), b"")?
            .success()
            .map(drop)
    }

    /// Takes the cluster away.
    ///
    /// # Errors
    /// When something of it cannot be removed.
    pub fn down(mut self) -> Result<()> {
        self.take_down()
    }

    fn take_down(&mut self) -> Result<()> {
        self.is_down = true;
        self.take_away()
    }

    /// As [`Cluster::down`], of a cluster that others hold too and use no more.
    ///
    /// # Errors
    /// When something of it cannot be removed.
    pub fn take_away(&self) -> Result<()> {
        Output::of(&mut workspace::xtask(&["down", "--name", &self.name]), b"")?
            .success()
            .map(drop)
    }

    /// Its files: `kubeconfig`, `logs/`, `nodes/NODE/`.
    pub fn dir(&self) -> PathBuf {
        workspace::target().join(format!("cluster-{}", self.name))
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir().join("kubeconfig")
    }

    /// Where clients keep what they know of this cluster; gone with it.
    pub fn client_cache(&self) -> PathBuf {
        self.dir().join("client-cache")
    }

    /// The log of `control-plane`, `node-1-agent`, `node-1-containerd`, `etcd`, ...
    ///
    /// # Errors
    /// When there is none.
    pub fn log(&self, what: &str) -> Result<String> {
        let path = self.dir().join("logs").join(format!("{what}.log"));
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    /// Stock kubectl with this cluster's kubeconfig; not yet started.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(workspace::tools().join("kubectl"));
        command.current_dir(workspace::root()).args(arguments);
        command.env("KUBECONFIG", self.kubeconfig());
        command.env("KUBECACHEDIR", self.client_cache());
        command
    }

    /// Runs kubectl to its end, whatever its exit code.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<Output> {
        Output::of(&mut self.kubectl_command(arguments), b"")
    }

    /// `kubectl apply` of a text.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn apply(&self, manifest: &str) -> Result<Output> {
        self.kubectl_with_input(&["apply", "--filename=-"], manifest)
    }

    /// # Errors
    /// When it cannot be started.
    pub fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<Output> {
        Output::of(&mut self.kubectl_command(arguments), input.as_bytes())
    }

    /// `kubectl apply` of a file of the source tree.
    ///
    /// # Errors
    /// When it fails or warns.
    pub fn apply_file(&self, file: &str) -> Result<Output> {
        self.kubectl(&["apply", "--filename", file])?
            .success()?
            .without_warning()
    }

    /// Creates a namespace for one test, and waits until pods can be made in it.
    ///
    /// # Errors
    /// When it exists.
    pub fn namespace(&self, name: &str) -> Result<()> {
        self.kubectl(&["create", "namespace", name])?.success()?;
        let account = || {
            let words = ["get", "serviceaccount", "default", "--namespace", name];
            self.kubectl(&words)?.success()
        };
        crate::wait::until(
            std::time::Duration::from_secs(30),
            "the default account",
            account,
        )?;
        Ok(())
    }

    /// Runs a command in a node's namespaces and control groups.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn exec(&self, node: &str, command: &[&str]) -> Result<Output> {
        let mut words = vec!["exec", "--name", &self.name, "--node", node, "--"];
        words.extend(command);
        Output::of(&mut workspace::xtask(&words), b"")
    }

    /// The operator's command, with the rights that reading maps needs.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn skep(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = process::as_root(&workspace::target().join("debug/skep"));
        command.arg("--cluster").arg(self.dir()).args(arguments);
        Output::of(&mut command, b"")
    }

    /// # Errors
    /// When the cluster is not up.
    pub fn nodes(&self) -> Result<Vec<Node>> {
        let nodes: Nodes = read(&self.dir().join("nodes.json"))?;
        ensure!(!nodes.nodes.is_empty(), "the cluster has no nodes");
        Ok(nodes.nodes)
    }

    /// The node's agent. It is started again when it is killed.
    ///
    /// # Errors
    /// When it does not run at the moment.
    pub fn agent(&self, node: &str) -> Result<Process> {
        let nodes = self.nodes()?;
        let init = nodes.iter().find(|one| one.name == node);
        Process::child_of(
            init.with_context(|| format!("no node {node}"))?.pid,
            "skep-node-agent",
        )
    }

    /// The control plane. It is started again when it is killed.
    ///
    /// # Errors
    /// When it does not run at the moment.
    pub fn control_plane(&self) -> Result<Process> {
        let running: ControlPlane = read(&self.dir().join("control-plane.json"))?;
        Process::child_of(running.supervisor.pid, "skep-control-plane")
    }

    /// Which of several control planes, counted from 1, that is. It is started again when it is killed.
    ///
    /// # Errors
    /// When it does not run at the moment.
    pub fn control_plane_of(&self, number: u8) -> Result<Process> {
        let running: ControlPlane = read(&self.dir().join("control-plane.json"))?;
        let all = Process::children_of(running.supervisor.pid, "skep-control-plane")?;
        // The first one has the cluster's own directory.
        let end = match number {
            1 => "/control-plane".to_owned(),
            other => format!("/control-plane-{other}"),
        };
        all.into_iter()
            .find(|one| {
                one.argument("--data-dir")
                    .is_some_and(|dir| dir.ends_with(&end))
            })
            .with_context(|| format!("control plane {number} does not run"))
    }

    /// The logs of a cluster that was not taken down by its test outlive it: the test failed, or
    /// it shares the cluster with one that may have.
    fn keep_logs(&self) -> Result<PathBuf> {
        let name = self
            .name
            .trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
        let to = workspace::target().join("test-logs").join(name);
        std::fs::create_dir_all(&to).with_context(|| format!("create {}", to.display()))?;
        let logs = self.dir().join("logs");
        for entry in std::fs::read_dir(&logs).with_context(|| format!("list {}", logs.display()))? {
            let from = entry.context("list logs")?.path();
            let name = from.file_name().context("a log's name")?;
            std::fs::copy(&from, to.join(name))
                .with_context(|| format!("copy {}", from.display()))?;
        }
        Ok(to)
    }
}

impl Drop for Cluster {
    #[expect(
        clippy::print_stderr,
        reason = "shown with the output of the failed test"
    )]
    fn drop(&mut self) {
        if self.is_down || !self.dir().exists() {
            return;
        }
        match self.keep_logs() {
            Ok(to) => eprintln!("logs of cluster {}: {}", self.name, to.display()),
            Err(error) => eprintln!("keep the logs of cluster {}: {error:#}", self.name),
        }
        if let Err(error) = self.take_down() {
            eprintln!("take cluster {} down: {error:#}", self.name);
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))
}
