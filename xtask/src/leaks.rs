//! What a run left on the machine: changes when a cluster makes something of a new kind.
//!
//! A snapshot is a set of lines, each one thing that outlives a process or is one. Two snapshots
//! are compared; what is new in the second was left behind. Read as root, which sees everything.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::cluster::{privileged, wait};
use crate::{process, workspace};

/// The kernel frees namespaces, links and BPF objects a moment after their last user ended.
const SETTLE: Duration = Duration::from_secs(15);

/// Where a named network namespace, a lock or a socket of ours would lie.
const DIRECTORIES: [&str; 4] = ["/run", "/run/netns", "/var/lib", "/sys/fs/bpf"];

/// What a cluster or a test starts of the system's programs.
const RUNTIME: [&str; 4] = ["containerd", "containerd-shim-runc-v2", "runc", "etcd"];

/// Prefix of the lines that other programs of the machine cause all the time.
const OURS_ONLY: [&str; 2] = ["skep", "cni"];

/// Everything that a run could leave.
pub(crate) type Snapshot = BTreeSet<String>;

/// A snapshot of now.
pub(crate) fn take() -> Result<Snapshot> {
    let said = process::capture(&mut privileged::command(&["leaks-list"])?)?;
    Ok(said.lines().map(str::to_owned).collect())
}

/// For a program that compares on its own.
pub(crate) fn print() -> Result<()> {
    take()?.iter().for_each(|line| println!("{line}"));
    Ok(())
}

/// # Errors
/// When there is something that `before` does not have, and it does not go away.
pub(crate) fn compare(before: &Snapshot) -> Result<()> {
    let mut left = Vec::new();
    let clean = wait::until(SETTLE, || {
        left = match take() {
            Ok(now) => now.difference(before).cloned().collect(),
            Err(error) => vec![format!("{error:#}")],
        };
        left.is_empty().then_some(())
    });
    match clean {
        Some(()) => Ok(()),
        None => bail!("left behind on this machine:\n  {}", left.join("\n  ")),
    }
}

/// As root: prints the snapshot.
pub(crate) fn list() -> Result<()> {
    let mut lines = Snapshot::new();
    processes(&mut lines)?;
    links(&mut lines)?;
    mounts(&mut lines)?;
    control_groups(Path::new("/sys/fs/cgroup"), 3, &mut lines);
    files(&mut lines);
    bpf_objects(&mut lines)?;
    packet_filter(&mut lines);
    let forwarding = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap_or_default();
    lines.insert(format!(
        "sysctl net.ipv4.ip_forward = {}",
        forwarding.trim()
    ));
    lines.iter().for_each(|line| println!("{line}"));
    Ok(())
}

/// Our programs, those of the runtime, whatever runs in a node's control groups, and the namespaces that processes of
/// root hold. A zombie is its parent's matter.
fn processes(lines: &mut Snapshot) -> Result<()> {
    let target = workspace::target();
    let ancestors = ancestors();
    for entry in std::fs::read_dir("/proc").context("list processes")? {
        let dir = entry.context("list processes")?.path();
        let Some(pid) = dir
            .file_name()
            .and_then(|name| name.to_str()?.parse::<u32>().ok())
        else {
            continue;
        };
        if ancestors.contains(&pid) {
            continue;
        }
        // A process that ends while it is looked at shows nothing.
        let Ok(exe) = std::fs::read_link(dir.join("exe")) else {
            continue;
        };
        let groups = std::fs::read_to_string(dir.join("cgroup")).unwrap_or_default();
        let name = exe.file_name().unwrap_or_default();
        let runtime = RUNTIME.iter().any(|known| name == *known);
        if runtime || exe.starts_with(&target) || groups.lines().any(in_a_node) {
            lines.insert(format!("process {pid} {}", exe.display()));
        }
        let of_root = std::fs::metadata(&dir).is_ok_and(|metadata| metadata.uid() == 0);
        for kind in ["net", "mnt", "pid", "cgroup"] {
            if of_root && let Ok(namespace) = std::fs::read_link(dir.join("ns").join(kind)) {
                lines.insert(format!("namespace {}", namespace.display()));
            }
        }
    }
    Ok(())
}

/// `7:pids:/skep0/node-1/init`
fn in_a_node(line: &str) -> bool {
    line.splitn(3, ':')
        .nth(2)
        .is_some_and(|path| path.starts_with("/skep"))
}

/// This process and all that wait for it.
fn ancestors() -> Vec<u32> {
    let mut all = vec![std::process::id()];
    while let Some(last) = all.last()
        && let Ok(status) = std::fs::read_to_string(format!("/proc/{last}/status"))
        && let Some(parent) = status.lines().find_map(|line| line.strip_prefix("PPid:"))
        && let Ok(parent) = parent.trim().parse()
        && parent > 0
    {
        all.push(parent);
    }
    all
}

fn links(lines: &mut Snapshot) -> Result<()> {
    for entry in std::fs::read_dir("/sys/class/net").context("list links")? {
        let name = entry.context("list links")?.file_name();
        lines.insert(format!("link {}", name.display()));
    }
    Ok(())
}

fn mounts(lines: &mut Snapshot) -> Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").context("read the mount table")?;
    let points = table
        .lines()
        .filter_map(|line| line.split_whitespace().nth(4));
    lines.extend(points.map(|point| format!("mount {point}")));
    Ok(())
}

fn control_groups(dir: &Path, depth: u8, lines: &mut Snapshot) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_symlink() || !path.is_dir() {
            continue;
        }
        if is_ours(&path) {
            lines.insert(format!("control group {}", path.display()));
        }
        if depth > 0 {
            control_groups(&path, depth - 1, lines);
        }
    }
}

fn files(lines: &mut Snapshot) {
    for dir in DIRECTORIES {
        let Ok(entries) = std::fs::read_dir(dir) else {
            continue;
        };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let all = dir == "/run/netns" || dir == "/sys/fs/bpf";
        lines.extend(
            paths
                .filter(|path| all || is_ours(path))
                .map(|path| format!("file {}", path.display())),
        );
    }
}

fn is_ours(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    OURS_ONLY.iter().any(|prefix| name.starts_with(prefix))
}

/// Programs, maps and links are known by number in the whole kernel, pinned or not.
fn bpf_objects(lines: &mut Snapshot) -> Result<()> {
    let bpftool = workspace::find_program("bpftool")
        .context("bpftool is not installed: run `cargo xtask setup`")?;
    for kind in ["prog", "map", "link"] {
        let said = process::capture(Command::new(&bpftool).args(["-j", kind, "show"]))?;
        let list: Value = serde_json::from_str(&said).with_context(|| format!("bpftool {kind}"))?;
        for object in list.as_array().into_iter().flatten() {
            let name = object["name"]
                .as_str()
                .or(object["type"].as_str())
                .unwrap_or_default();
            lines.insert(format!("BPF {kind} {} {name}", object["id"]));
        }
    }
    Ok(())
}

fn packet_filter(lines: &mut Snapshot) {
    let nft: Option<PathBuf> = workspace::find_program("nft");
    let tables =
        nft.and_then(|nft| process::capture(Command::new(nft).args(["list", "tables"])).ok());
    let tables = tables.unwrap_or_default();
    lines.extend(tables.lines().map(|table| format!("packet filter {table}")));
}

#[cfg(test)]
mod tests {
    use super::in_a_node;

    #[test]
    fn a_process_of_a_node_is_known_by_its_groups() {
        assert!(in_a_node("7:pids:/skep0/node-1/kubepods/x"));
        assert!(in_a_node("0::/skep0/node-1/init"));
        assert!(!in_a_node("0::/user.slice/skep0"));
    }
}
