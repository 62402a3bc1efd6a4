//! A node: changes when what runs in one, or how it is cut off from the machine, changes.
//!
//! `launch` makes the namespaces and starts the node's init, which builds the node's view of the
//! file system and keeps containerd and the agent running. When the init is killed the kernel
//! ends all processes of the node and takes its mounts and links away.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

use super::addresses::node_name;
use super::cgroups::{self, Version};
use super::containerd::{self, Settings};
use super::daemon::{self, Group, ProcessId};
use super::files::{Cluster, ControlPlane, Network, Node, Nodes};
use super::supervise::{self, OnReload, Service};
use super::{control_plane, mounts, resolver, underlay, wait};
use crate::build::host::Profile;
use crate::process;

/// containerd's socket, as the node sees it.
const AGENT_SOCKET: &str = "/run/skep/agent.sock";
const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
const BPFFS: &str = "/sys/fs/bpf";

/// A containerd that starts on a loaded machine.
const CONTAINERD_LIMIT: Duration = Duration::from_secs(60);

/// Starts the nodes 1..=count that do not run, in parallel; all containerds answer on return.
/// A node that was dying when it was looked at is started in a second round.
pub(crate) fn up(cluster: &Cluster, count: u8) -> Result<()> {
    let network = cluster.network()?.context("the cluster has no network")?;
    std::fs::create_dir_all(mounts::CNI_CACHE).context("a mount point for the CNI's cache")?;
    let started_before = launch_missing(cluster, &network, count)?;
    let nodes = cluster.nodes()?.nodes;
    let failed: Vec<(&Node, anyhow::Error)> = nodes
        .iter()
        .filter_map(|node| Some((node, wait_for_containerd(cluster, node).err()?)))
        .collect();
    let was_dying =
        |node: &Node| started_before.contains(&node.index) && !node.process().is_alive();
    if failed.iter().any(|(node, _)| was_dying(node)) {
        launch_missing(cluster, &network, count)?;
        let nodes = cluster.nodes()?.nodes;
        return nodes
            .iter()
            .try_for_each(|node| wait_for_containerd(cluster, node));
    }
    failed
        .into_iter()
        .next()
        .map_or(Ok(()), |(_, error)| Err(error))
}

/// Launches the nodes that do not run; returns the numbers of those that did.
fn launch_missing(cluster: &Cluster, network: &Network, count: u8) -> Result<Vec<u8>> {
    let known = cluster.nodes()?.nodes;
    let mut nodes: Vec<Node> = known
        .into_iter()
        .filter(|node| node.process().is_alive())
        .collect();
    let before: Vec<u8> = nodes.iter().map(|node| node.index).collect();
    let missing = (1..=count).filter(|n| !before.contains(n));
    let launched: Vec<(u8, std::process::Child)> = missing
        .map(|n| Ok((n, spawn_launch(cluster, n)?)))
        .collect::<Result<_>>()?;
    let mut failures = Vec::new();
    for (n, child) in launched {
        match finish_launch(cluster, network, n, child) {
            Ok(node) => nodes.push(node),
            Err(error) => failures.push(format!("{}: {error:#}", node_name(n))),
        }
    }
    nodes.sort_by_key(|node| node.index);
    // Written even on failure: `down` must know what runs.
    cluster.write_nodes(&Nodes {
        cluster: cluster.name.clone(),
        nodes,
    })?;
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    Ok(before)
}

fn spawn_launch(cluster: &Cluster, node: u8) -> Result<std::process::Child> {
    let program = std::env::current_exe().context("find this program's own file")?;
    let mut command = Command::new(program);
    command.args([
        "privileged",
        "node-launch",
        &cluster.name,
        &node.to_string(),
    ]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
        .spawn()
        .with_context(|| format!("start `{}`", process::display(&command)))
}

/// The launcher prints the init's pid.
fn finish_launch(
    cluster: &Cluster,
    network: &Network,
    node: u8,
    child: std::process::Child,
) -> Result<Node> {
    let output = child.wait_with_output().context("wait for the launcher")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let pid: i32 = said
        .trim()
        .parse()
        .with_context(|| format!("init's pid in {said:?}"))?;
    let name = node_name(node);
    let log = cluster.log(&format!("{name}-init"));
    let process = ProcessId::of(pid)
        .with_context(|| format!("the node's init ended at once; log {}", log.display()))?;
    let root = format!("/proc/{pid}/root");
    Ok(Node {
        ip: network.index.node_ip(node),
        index: node,
        pid,
        started: process.started,
        agent_socket: text(&sockets(network, &name).join("agent.sock")),
        containerd_socket: format!("{root}{CONTAINERD_SOCKET}"),
        bpffs: format!("{root}{BPFFS}"),
        name,
    })
}

fn wait_for_containerd(cluster: &Cluster, node: &Node) -> Result<()> {
    let answers = || std::os::unix::net::UnixStream::connect(&node.containerd_socket).is_ok();
    let state = wait::until(CONTAINERD_LIMIT, || {
        if !node.process().is_alive() {
            return Some(false);
        }
        answers().then_some(true)
    });
    let (what, log) = match state {
        Some(true) => return Ok(()),
        Some(false) => (
            "its init ended",
            cluster.log(&format!("{}-init", node.name)),
        ),
        None => (
            "containerd does not answer",
            cluster.log(&format!("{}-containerd", node.name)),
        ),
    };
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    bail!(
        "{}: {what}; log {}:\n{}",
        node.name,
        log.display(),
        process::tail(&said)
    )
}

/// Makes one node's namespaces and prints its init's pid. Runs in a process of its own, since
/// namespaces are entered by the caller.
pub(crate) fn launch(cluster: &Cluster, node: u8) -> Result<()> {
    daemon::detach()?;
    let network = cluster.network()?.context("the cluster has no network")?;
    let name = node_name(node);
    prepare_files(cluster, &network, node)?;
    let group = group(&network, &name);
    // What an earlier life left: cgroup2 takes no process where controllers are handed on.
    cgroups::end_processes(&group)?;
    cgroups::remove(&group)?;
    cgroups::enter(&group)?;
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWCGROUP,
    )
    .context("make the node's namespaces")?;
    mounts::isolate()?;
    nix::unistd::sethostname(&name).context("name the node")?;
    underlay::connect(&network, &name, &network.index.node_ip(node))?;
    // Last: the first child from here on is pid 1 of the node.
    unshare(CloneFlags::CLONE_NEWPID).context("make the node's pid namespace")?;
    let log = daemon::open_log(&cluster.log(&format!("{name}-init")))?;
    let child = Command::new(std::env::current_exe().context("find this program's own file")?)
        .args(["privileged", "node-init", &cluster.name, &node.to_string()])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("duplicate the log's descriptor")?)
        .stderr(log)
        .spawn()
        .context("start the node's init")?;
    println!("{}", child.id());
    Ok(())
}

/// Pid 1 of a node.
pub(crate) fn init(cluster: &Cluster, node: u8) -> Result<()> {
    let name = node_name(node);
    let network = cluster.network()?.context("the cluster has no network")?;
    let dir = cluster.node_dir(&name);
    let sockets = sockets(&network, &name);
    mounts::build(&dir, &sockets, &cgroups::hierarchies()?)?;
    let text = std::fs::read_to_string(dir.join("services.json")).context("read the services")?;
    let services: Vec<Service> = serde_json::from_str(&text).context("read the services")?;
    supervise::run(services)
}

/// The group that holds all processes of a node, relative to each hierarchy's mount.
pub(crate) fn group(network: &Network, node: &str) -> String {
    format!("{}/{node}", network.index.host_link())
}

/// Where the machine finds a node's `/run/skep`: below a short path, since a socket's path is.
fn sockets(network: &Network, node: &str) -> PathBuf {
    Path::new("/run").join(network.index.host_link()).join(node)
}

/// Makes that directory. What root makes in it is also for the group of the user who called, so
/// that `skep` needs no more rights than `kubectl`.
fn prepare_sockets(dir: &Path) -> Result<()> {
    let caller = std::env::var("SUDO_GID").ok();
    let group = caller.and_then(|gid| gid.parse().ok());
    let group = group.map_or_else(nix::unistd::getgid, nix::unistd::Gid::from_raw);
    std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    nix::unistd::chown(dir, None, Some(group))
        .with_context(|| format!("give {} to group {group}", dir.display()))?;
    let inherited = std::fs::Permissions::from_mode(0o2750);
    std::fs::set_permissions(dir, inherited).with_context(|| format!("close {}", dir.display()))
}

/// Ends a node: killing its init ends all its processes.
pub(crate) fn end(node: &Node) -> Result<()> {
    node.process()
        .end(Group::Alone, Duration::ZERO)
        .with_context(|| format!("end {}", node.name))
}

/// Asks the inits to restart the agents.
pub(crate) fn reload(cluster: &Cluster) -> Result<()> {
    cluster
        .nodes()?
        .nodes
        .iter()
        .try_for_each(|node| node.process().signal(Signal::SIGHUP))
}

fn prepare_files(cluster: &Cluster, network: &Network, node: u8) -> Result<()> {
    let name = node_name(node);
    let dir = cluster.node_dir(&name);
    for part in ["containerd", "agent", "cni/bin", "cni/conf", "cni-cache"] {
        let path = dir.join(part);
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
    }
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(dir.join("agent"), private).context("close the agent's directory")?;
    prepare_sockets(&sockets(network, &name))?;
    let ip = network.index.node_ip(node);
    write(
        &dir.join("hosts"),
        &format!("127.0.0.1 localhost\n::1 localhost\n{ip} {name}\n"),
    )?;
    let servers = resolver::upstream();
    let lines: Vec<String> = servers
        .iter()
        .map(|ip| format!("nameserver {ip}\n"))
        .collect();
    write(&dir.join("resolv.conf"), &lines.concat())?;
    let config = containerd::config(&Settings {
        release: containerd::release(cluster)?,
        dir: &dir,
        oom_score: containerd::oom_score()?,
        shim: containerd::shim(cluster)?,
    });
    write(&dir.join("containerd.toml"), &config)?;
    let services = services(cluster, network, node)?;
    let text = serde_json::to_string_pretty(&services).context("serialise the services")?;
    write(&dir.join("services.json"), &text)
}

fn services(cluster: &Cluster, network: &Network, node: u8) -> Result<Vec<Service>> {
    let name = node_name(node);
    let dir = cluster.node_dir(&name);
    let containerd = Service {
        name: "containerd".to_owned(),
        program: containerd::program(cluster, "containerd")?,
        arguments: vec!["--config".to_owned(), text(&dir.join("containerd.toml"))],
        log: cluster.log(&format!("{name}-containerd")),
        after: None,
        on_reload: OnReload::Keep,
    };
    let running = cluster
        .control_plane()?
        .context("the cluster has no control plane")?;
    let agent = Service {
        name: "agent".to_owned(),
        program: Profile::of(running.release).binary("skep-node-agent"),
        arguments: agent_arguments(cluster, network, &running, node)?,
        log: cluster.log(&format!("{name}-agent")),
        after: Some(cluster.join_token()),
        on_reload: OnReload::Restart,
    };
    Ok(vec![containerd, agent])
}

fn agent_arguments(
    cluster: &Cluster,
    network: &Network,
    running: &ControlPlane,
    node: u8,
) -> Result<Vec<String>> {
    let name = node_name(node);
    let dir = cluster.node_dir(&name);
    let index = network.index;
    let unified = cgroups::hierarchies()?
        .into_iter()
        .find(|hierarchy| hierarchy.version == Version::V2)
        .context("this machine has no cgroup2 mount below /sys/fs/cgroup, which the agent needs")?;
    let mut arguments = vec![
        flag("node-name", &name),
        flag("node-ip", index.node_ip(node)),
        flag(
            "control-plane",
            control_plane::node_listeners(index, running.count),
        ),
        flag("join-token-file", text(&cluster.join_token())),
        flag("ca-file", text(&cluster.cluster_ca())),
        flag("data-dir", text(&dir.join("agent"))),
        flag("containerd-socket", CONTAINERD_SOCKET),
        flag("cni-bin-dir", text(&dir.join("cni/bin"))),
        flag("cni-conf-dir", text(&dir.join("cni/conf"))),
        flag("bpffs", BPFFS),
        flag("cgroup-root", text(&unified.mount)),
        flag("socket", AGENT_SOCKET),
        flag("dataplane-mode", running.mode.flag()),
        flag("underlay-dev", "eth0"),
        // Several nodes share this machine's memory.
        flag("map-profile", "small"),
    ];
    arguments.extend(
        resolver::upstream()
            .iter()
            .map(|server| flag("upstream-dns", server)),
    );
    Ok(arguments)
}

fn flag(name: &str, value: impl std::fmt::Display) -> String {
    format!("--{name}={value}")
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn write(path: &PathBuf, content: &str) -> Result<()> {
    std::fs::write(path, content).with_context(|| format!("write {}", path.display()))
}
