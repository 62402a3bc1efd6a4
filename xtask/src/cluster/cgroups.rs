//! The control groups of a node: changes when the kernel's cgroup interface does.
//!
//! Each node gets the group `/skepN/NODE` in every hierarchy of the machine: all v1 hierarchies
//! and cgroup2 on a hybrid machine, the one tree on a pure cgroup2 machine. The node's cgroup
//! namespace is rooted there. A node sees the same paths as a machine of its own would.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// One mounted hierarchy of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    pub(crate) mount: PathBuf,
    pub(crate) version: Version,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Version {
    /// `options` as mount(2) takes them, say `cpu,cpuacct` or `none,name=systemd`.
    V1 {
        options: String,
    },
    V2,
}

/// Processes of a node that belong to no pod live in this child of the node's group: cgroup2
/// allows no processes in a group that hands controllers to its children.
pub(crate) const INIT_GROUP: &str = "init";

/// Mount options that are not part of a v1 hierarchy's identity.
const GENERIC_OPTIONS: [&str; 12] = [
    "rw",
    "ro",
    "xattr",
    "noprefix",
    "clone_children",
    "cpuset_v2_mode",
    "nsdelegate",
    "memory_recursiveprot",
    "nosuid",
    "nodev",
    "noexec",
    "relatime",
];

/// All hierarchies mounted below `/sys/fs/cgroup`.
pub(crate) fn hierarchies() -> Result<Vec<Hierarchy>> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").context("read the mount table")?;
    let found = parse_mountinfo(&text);
    anyhow::ensure!(
        !found.is_empty(),
        "no cgroup hierarchy is mounted below /sys/fs/cgroup"
    );
    Ok(found)
}

fn parse_mountinfo(text: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in text.lines() {
        let Some((mount, kind)) = line.split_once(" - ") else {
            continue;
        };
        let Some(point) = mount.split_whitespace().nth(4) else {
            continue;
        };
        let mut kind = kind.split_whitespace();
        let (Some(fs), Some(_), Some(options)) = (kind.next(), kind.next(), kind.next()) else {
            continue;
        };
        let version = match fs {
            "cgroup" => Version::V1 {
                options: identity(options),
            },
            "cgroup2" => Version::V2,
            _ => continue,
        };
        let below = Path::new(point).starts_with("/sys/fs/cgroup");
        if below && !found.iter().any(|known| known.version == version) {
            found.push(Hierarchy {
                mount: PathBuf::from(point),
                version,
            });
        }
    }
    found
}

/// Of a superblock's options those that say which hierarchy it is.
fn identity(options: &str) -> String {
    let own: Vec<&str> = options
        .split(',')
        .filter(|o| !GENERIC_OPTIONS.contains(o) && !o.starts_with("release_agent="))
        .collect();
    let named_only = own.iter().all(|o| o.starts_with("name="));
    let prefix = if named_only { "none," } else { "" };
    format!("{prefix}{}", own.join(","))
}

/// Creates `path` (say `skep0/node-1`) in every hierarchy and moves this process into it.
pub(crate) fn enter(path: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let group = create(&hierarchy, path)?;
        join(&group)?;
    }
    Ok(())
}

/// Moves this process into an existing group of every hierarchy.
pub(crate) fn join_existing(path: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        join(&hierarchy.mount.join(path))?;
    }
    Ok(())
}

/// Ends every process in `path` and below, however it got there.
pub(crate) fn end_processes(path: &str) -> Result<()> {
    let limit = std::time::Duration::from_secs(10);
    let mut left = Vec::new();
    for hierarchy in hierarchies()? {
        let group = hierarchy.mount.join(path);
        let gone = super::wait::until(limit, || {
            left = processes(&group);
            left.iter()
                .for_each(|pid| drop_error(kill(Pid::from_raw(*pid), Signal::SIGKILL)));
            left.is_empty().then_some(())
        });
        anyhow::ensure!(
            gone.is_some(),
            "processes {left:?} of {} do not end",
            group.display()
        );
    }
    Ok(())
}

/// The process may have ended since it was listed.
fn drop_error(_: nix::Result<()>) {}

/// A zombie stays listed on v1 until its parent reaps it, and cannot be ended again.
fn processes(group: &Path) -> Vec<i32> {
    let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let own = text.lines().filter_map(|line| line.parse().ok());
    let mut all: Vec<i32> = own
        .filter(|pid| super::daemon::ProcessId::of(*pid).is_ok())
        .collect();
    let Ok(entries) = std::fs::read_dir(group) else {
        return all;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.extend(processes(&entry.path()));
        }
    }
    all
}

/// Removes `path` and all groups below it in every hierarchy. The groups must have no processes.
pub(crate) fn remove(path: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        remove_tree(&hierarchy.mount.join(path))?;
    }
    Ok(())
}

fn create(hierarchy: &Hierarchy, path: &str) -> Result<PathBuf> {
    let mut group = hierarchy.mount.clone();
    for part in Path::new(path) {
        let parent = group.clone();
        group.push(part);
        match std::fs::create_dir(&group) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(error).with_context(|| format!("create {}", group.display()));
            }
        }
        match hierarchy.version {
            Version::V1 { .. } => inherit_cpuset(&parent, &group)?,
            Version::V2 => delegate(&parent),
        }
    }
    Ok(group)
}

/// A new v1 cpuset group has no processors, and no process can join it before it has.
fn inherit_cpuset(parent: &Path, group: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let to = group.join(file);
        if !to.exists() {
            continue;
        }
        let old = std::fs::read_to_string(&to).with_context(|| format!("read {}", to.display()))?;
        if old.trim().is_empty() {
            let from = parent.join(file);
            let value = std::fs::read_to_string(&from)
                .with_context(|| format!("read {}", from.display()))?;
            std::fs::write(&to, value.trim()).with_context(|| format!("write {}", to.display()))?;
        }
    }
    Ok(())
}

/// Hands every controller that the parent may hand on to its children. A controller that cannot
/// be handed on (held by a v1 hierarchy, or the parent has processes) is left: limits of that
/// kind then do not work in the node, as on a machine without the controller.
pub(crate) fn delegate(parent: &Path) {
    let Ok(controllers) = std::fs::read_to_string(parent.join("cgroup.controllers")) else {
        return;
    };
    for controller in controllers.split_whitespace() {
        drop(std::fs::write(
            parent.join("cgroup.subtree_control"),
            format!("+{controller}"),
        ));
    }
}

fn join(group: &Path) -> Result<()> {
    let procs = group.join("cgroup.procs");
    std::fs::write(&procs, "0").with_context(|| format!("join {}", group.display()))
}

/// Children first; a directory that is already gone is fine.
fn remove_tree(group: &Path) -> Result<()> {
    let entries = match std::fs::read_dir(group) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("list {}", group.display())),
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("list {}", group.display()))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    // The kernel lets go of a group a moment after its last process has ended.
    let limit = std::time::Duration::from_secs(5);
    let mut last = None;
    super::wait::until(limit, || match std::fs::remove_dir(group) {
        Ok(()) => Some(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(()),
        Err(error) => {
            last = Some(error);
            None
        }
    })
    .ok_or_else(|| match last {
        Some(error) => anyhow::Error::new(error),
        None => anyhow::anyhow!("not tried"),
    })
    .with_context(|| format!("remove {}", group.display()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{Hierarchy, Version, identity, parse_mountinfo};

    const HYBRID: &str = "\
30 25 0:25 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:27 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
33 30 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
34 30 0:28 / /mnt/other rw,relatime - cgroup2 cgroup2 rw
";

    fn v1(mount: &str, options: &str) -> Hierarchy {
        let version = Version::V1 {
            options: options.to_owned(),
        };
        Hierarchy {
            mount: PathBuf::from(mount),
            version,
        }
    }

    #[test]
    fn a_hybrid_machine_has_v1_hierarchies_and_the_unified_one() {
        let unified = PathBuf::from("/sys/fs/cgroup/unified");
        assert_eq!(
            parse_mountinfo(HYBRID),
            [
                v1("/sys/fs/cgroup/cpu,cpuacct", "cpu,cpuacct"),
                v1("/sys/fs/cgroup/systemd", "none,name=systemd"),
                Hierarchy {
                    mount: unified,
                    version: Version::V2
                },
            ]
        );
    }

    #[test]
    fn a_pure_machine_has_one_tree() {
        let text = "35 24 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let mount = PathBuf::from("/sys/fs/cgroup");
        assert_eq!(
            parse_mountinfo(text),
            [Hierarchy {
                mount,
                version: Version::V2
            }]
        );
    }

    #[test]
    fn only_what_names_a_hierarchy_is_kept_of_its_options() {
        assert_eq!(identity("rw,memory"), "memory");
        assert_eq!(
            identity("rw,xattr,release_agent=/x,name=systemd"),
            "none,name=systemd"
        );
    }
}
