//! The network under a cluster: changes when nodes are wired to each other or to the host
//! differently.
//!
//! A bridge in a network namespace of its own (a machine's packet filters do not see it), one
//! veth a node, one to the host. The namespace lives as long as a holder process. On the host:
//! routes to services and pods, and address translation for what leaves the machine, so that
//! nodes reach a registry or a name server as the host does.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, unshare};

use super::addresses::{CLUSTERS_MAX, CONTROL_PLANES_MAX, ClusterIndex};
use super::daemon::{self, Group, ProcessId};
use super::files::{Cluster, DEFAULT_NAME, Network};
use super::wait;
use crate::{process, workspace};

/// Keeps what the machine's forwarding switch was before the first cluster came up.
const FORWARDING_BEFORE: &str = "/run/skep-dev-ip-forward";
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// Makes the network unless it is there; writes which index it got.
pub(crate) fn up(cluster: &Cluster) -> Result<()> {
    let before = cluster.network()?;
    if before
        .as_ref()
        .is_some_and(|network| network.holder.is_alive())
    {
        return Ok(());
    }
    let holder = daemon::start(&["privileged", "network-hold"], &cluster.log("network"))?;
    let wanted = before.map(|network| network.index);
    let claimed = wait_for_namespace(holder).and_then(|()| claim(&order(cluster, wanted), holder));
    let network = match claimed {
        Ok(index) => Network { index, holder },
        Err(error) => {
            holder.end(Group::Alone, Duration::ZERO)?;
            return Err(error);
        }
    };
    // Before the rest: a half-made network must be found by `down`.
    cluster.write_network(&network)?;
    configure(&network).inspect_err(|_| {
        if let Err(error) = down(&network) {
            eprintln!("take the network away again: {error:#}");
        }
    })
}

fn configure(network: &Network) -> Result<()> {
    let Network { index, holder } = *network;
    ip_inside(
        holder,
        "link add br0 type bridge forward_delay 0\nlink set lo up\nlink set br0 up\n\
         link set host master br0\nlink set host up\n",
    )?;
    let (link, host, first_node) = (index.host_link(), index.host_ip(), index.node_ip(1));
    let own: String = (1..=CONTROL_PLANES_MAX)
        .map(|number| {
            format!(
                "address add {}/24 dev {link}\n",
                index.control_plane_ip(number)
            )
        })
        .collect();
    ip(&format!(
        "address add {host}/24 dev {link}\n{own}link set {link} up\n\
         route add {} via {first_node} dev {link}\n",
        index.service_cidr()
    ))?;
    translate(index)
}

/// The holder has left our namespace when its own differs.
fn wait_for_namespace(holder: ProcessId) -> Result<()> {
    let ours = std::fs::read_link("/proc/self/ns/net").context("own network namespace")?;
    let path = format!("/proc/{}/ns/net", holder.pid);
    wait::until(Duration::from_secs(5), || {
        std::fs::read_link(&path)
            .is_ok_and(|theirs| theirs != ours)
            .then_some(())
    })
    .context("the process that holds the underlay's namespace did not start")
}

/// The addresses of the README belong to the default cluster; others take them last.
fn order(cluster: &Cluster, wanted: Option<ClusterIndex>) -> Vec<ClusterIndex> {
    let mut all: Vec<ClusterIndex> = (0..CLUSTERS_MAX).map(ClusterIndex).collect();
    if cluster.name != DEFAULT_NAME {
        all.rotate_left(1);
    }
    wanted.into_iter().chain(all).collect()
}

/// Claims the first free index by creating its host link, which the kernel lets only one do.
fn claim(order: &[ClusterIndex], holder: ProcessId) -> Result<ClusterIndex> {
    for &index in order {
        let mut command = Command::new(tool("ip")?);
        command.args(["link", "add", &index.host_link(), "type", "veth"]);
        command.args(["peer", "name", "host", "netns", &holder.pid.to_string()]);
        let output = process::output(&mut command)?;
        if output.status.success() {
            return Ok(index);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        if !said.contains("File exists") {
            bail!("`{}`: {}", process::display(&command), said.trim());
        }
    }
    bail!("{CLUSTERS_MAX} clusters run on this machine: take one down first")
}

/// Leaves the machine's own address on packets from nodes that leave through another link.
fn translate(index: ClusterIndex) -> Result<()> {
    let Some(nft) = workspace::find_program("nft") else {
        println!("no nft: nodes reach this machine only");
        return Ok(());
    };
    let link = index.host_link();
    let rules = format!(
        "table ip {link} {{\n chain postrouting {{\n  type nat hook postrouting priority srcnat;\n  \
         ip saddr {} oifname != \"{link}\" masquerade\n }}\n}}\n",
        index.underlay()
    );
    feed(Command::new(nft).args(["-f", "-"]), &rules)?;
    let now = std::fs::read_to_string(FORWARDING).context("read ip_forward")?;
    let before = Path::new(FORWARDING_BEFORE);
    if !before.exists() {
        std::fs::write(before, now.trim()).with_context(|| format!("write {before:?}"))?;
    }
    std::fs::write(FORWARDING, "1").context("let the host forward for its nodes")
}

/// Runs until it is killed: a namespace needs a process.
pub(crate) fn hold() -> Result<()> {
    daemon::detach()?;
    unshare(CloneFlags::CLONE_NEWNET).context("make the underlay's namespace")?;
    super::supervise::run(Vec::new())
}

/// Puts the calling process's namespace on the bridge: `eth0` here, `name` there.
pub(crate) fn connect(network: &Network, name: &str, node_ip: &str) -> Result<()> {
    let holder = network.holder;
    let gateway = network.index.host_ip();
    // The link of a node that has just died is still there for a moment.
    if ip_inside(holder, &format!("link show dev {name}\n")).is_ok() {
        ip_inside(holder, &format!("link delete {name}\n")).or_else(|error| {
            match ip_inside(holder, &format!("link show dev {name}\n")) {
                Ok(()) => Err(error),
                Err(_) => Ok(()),
            }
        })?;
    }
    ip(&format!(
        "link set lo up\n\
         link add eth0 type veth peer name {name} netns {}\n\
         address add {node_ip}/24 dev eth0\nlink set eth0 up\n\
         route add default via {gateway} dev eth0\n",
        holder.pid
    ))?;
    ip_inside(
        holder,
        &format!("link set {name} master br0\nlink set {name} up\n"),
    )
}

/// Routes each node's pods through the node. `routes`: `NODE=CIDR`.
pub(crate) fn route_pods(cluster: &Cluster, routes: &[String]) -> Result<()> {
    let network = cluster.network()?.context("the cluster has no network")?;
    let mut batch = String::new();
    for route in routes {
        let (node, cidr) = route.split_once('=').context("a route is NODE=CIDR")?;
        let via = cluster.node(node)?.ip;
        let link = network.index.host_link();
        batch.push_str(&format!("route replace {cidr} via {via} dev {link}\n"));
    }
    ip(&batch)
}

/// Takes everything away; fine when nothing is there.
pub(crate) fn down(network: &Network) -> Result<()> {
    let link = network.index.host_link();
    if link_exists(&link) {
        process::quiet(Command::new(tool("ip")?).args(["link", "delete", &link]))?;
    }
    network.holder.end(Group::Alone, Duration::ZERO)?;
    if let Some(nft) = workspace::find_program("nft") {
        let table = ["table", "ip", link.as_str()];
        if process::succeeds(Command::new(&nft).arg("list").args(table)) {
            process::quiet(Command::new(&nft).arg("delete").args(table))?;
        }
    }
    let others = (0..CLUSTERS_MAX).any(|n| link_exists(&ClusterIndex(n).host_link()));
    let before = Path::new(FORWARDING_BEFORE);
    if !others && let Ok(value) = std::fs::read_to_string(before) {
        std::fs::write(FORWARDING, value).context("restore ip_forward")?;
        std::fs::remove_file(before).with_context(|| format!("remove {before:?}"))?;
    }
    Ok(())
}

/// Whether any cluster runs on this machine.
pub(crate) fn any_cluster() -> bool {
    (0..CLUSTERS_MAX).any(|n| link_exists(&ClusterIndex(n).host_link()))
}

fn link_exists(link: &str) -> bool {
    Path::new("/sys/class/net").join(link).exists()
}

fn ip(batch: &str) -> Result<()> {
    feed(Command::new(tool("ip")?).args(["-batch", "-"]), batch)
}

fn ip_inside(holder: ProcessId, batch: &str) -> Result<()> {
    let mut command = Command::new(tool("nsenter")?);
    command
        .arg(format!("--net=/proc/{}/ns/net", holder.pid))
        .arg(tool("ip")?);
    feed(command.args(["-batch", "-"]), batch)
}

fn tool(name: &str) -> Result<std::path::PathBuf> {
    workspace::find_program(name)
        .with_context(|| format!("{name} is not installed: run `cargo xtask setup`"))
}

/// Runs a program that reads its orders from standard input.
fn feed(command: &mut Command, input: &str) -> Result<()> {
    let line = process::display(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("start `{line}`"))?;
    let mut pipe = child.stdin.take().context("standard input of the child")?;
    pipe.write_all(input.as_bytes())
        .with_context(|| format!("write to `{line}`"))?;
    drop(pipe);
    let output = child
        .wait_with_output()
        .with_context(|| format!("wait for `{line}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{line}`: {}\nits orders were:\n{}",
            said.trim(),
            process::tail(input)
        );
    }
    Ok(())
}
