//! The file system a node sees: changes when a node gets another private directory.
//!
//! A node shares the machine's root file system, so that it runs the machine's own containerd
//! and runc, and has its own proc, sysfs, cgroup hierarchies, bpffs, `/run` and the few files and
//! directories in which two nodes would meet. All in the node's own mount namespace.

use std::os::fd::AsRawFd as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};

use super::cgroups::{self, Hierarchy, Version};

/// libcni keeps its results here, and no runtime lets us choose another place.
pub(crate) const CNI_CACHE: &str = "/var/lib/cni";

/// Cuts the node's mounts off from the machine's, and makes the root shared within the node: a
/// pod's `Bidirectional` mount needs that, and nothing leaks to the machine.
pub(crate) fn isolate() -> Result<()> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("make all mounts private")?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none)
        .context("make the node's mounts shared among its pods")
}

/// Builds the node's view. Called by the node's init, in all of its namespaces.
/// `dir`: the node's own directory, holding `cni-cache/`, `hosts` and `resolv.conf`; `sockets`:
/// where the machine finds what the node's agent has in `/run/skep`.
pub(crate) fn build(dir: &Path, sockets: &Path, hierarchies: &[Hierarchy]) -> Result<()> {
    let strict = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // Opened before /run is covered: /etc/resolv.conf is often a link into it.
    let resolv = std::fs::canonicalize("/etc/resolv.conf").context("find /etc/resolv.conf")?;
    let sockets =
        std::fs::File::open(sockets).with_context(|| format!("open {}", sockets.display()))?;
    fs("proc", "/proc", strict, None)?;
    fs("sysfs", "/sys", strict, None)?;
    mount_cgroups(hierarchies)?;
    fs("bpf", "/sys/fs/bpf", strict, Some("mode=700"))?;
    fs(
        "tmpfs",
        "/run",
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some("mode=755"),
    )?;
    for directory in ["/run/skep", "/run/lock", "/run/containerd"] {
        create(Path::new(directory))?;
    }
    let sockets = format!("/proc/self/fd/{}", sockets.as_raw_fd());
    bind(Path::new(&sockets), Path::new("/run/skep"))?;
    bind(&dir.join("cni-cache"), Path::new(CNI_CACHE))?;
    bind(&dir.join("hosts"), Path::new("/etc/hosts"))?;
    if resolv.starts_with("/run") {
        let parent = resolv.parent().unwrap_or(Path::new("/run"));
        create(parent)?;
        std::fs::write(&resolv, "").with_context(|| format!("create {}", resolv.display()))?;
    }
    bind(&dir.join("resolv.conf"), &resolv)
}

fn mount_cgroups(hierarchies: &[Hierarchy]) -> Result<()> {
    let top = Path::new("/sys/fs/cgroup");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if hierarchies.iter().any(|hierarchy| hierarchy.mount != top) {
        fs("tmpfs", "/sys/fs/cgroup", flags, Some("mode=755"))?;
    }
    for hierarchy in hierarchies {
        let point = hierarchy.mount.to_string_lossy().into_owned();
        create(&hierarchy.mount)?;
        match &hierarchy.version {
            Version::V2 => {
                fs("cgroup2", &point, flags, None)?;
                split_root(&hierarchy.mount)?;
            }
            Version::V1 { options } => {
                fs("cgroup", &point, flags, Some(options))?;
                single_names(&hierarchy.mount, options)?;
                enter_init(&hierarchy.mount)?;
            }
        }
    }
    Ok(())
}

/// `cpu,cpuacct` is also found as `cpu` and as `cpuacct`.
fn single_names(point: &Path, options: &str) -> Result<()> {
    let Some(name) = point.file_name().and_then(|name| name.to_str()) else {
        return Ok(());
    };
    let several = options.contains(',') && !options.starts_with("none,");
    for controller in options.split(',').filter(|one| several && *one != name) {
        let link = point.with_file_name(controller);
        std::os::unix::fs::symlink(name, &link)
            .with_context(|| format!("link {}", link.display()))?;
    }
    Ok(())
}

/// Leaves the node's root group, so that it can hand its controllers to the pods' groups.
fn split_root(root: &Path) -> Result<()> {
    enter_init(root)?;
    cgroups::delegate(root);
    Ok(())
}

fn enter_init(root: &Path) -> Result<()> {
    let group = root.join(cgroups::INIT_GROUP);
    create(&group)?;
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let Ok(value) = std::fs::read_to_string(root.join(file))
            && root.join("cgroup.clone_children").exists()
        {
            std::fs::write(group.join(file), value.trim())
                .with_context(|| format!("give {} its {file}", group.display()))?;
        }
    }
    std::fs::write(group.join("cgroup.procs"), "0")
        .with_context(|| format!("enter {}", group.display()))
}

fn fs(kind: &str, point: &str, flags: MsFlags, data: Option<&str>) -> Result<()> {
    mount(Some(kind), point, Some(kind), flags, data)
        .with_context(|| format!("mount {kind} on {point}"))
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    let none: Option<&str> = None;
    mount(Some(from), to, none, MsFlags::MS_BIND, none)
        .with_context(|| format!("bind {} on {}", from.display(), to.display()))
}

fn create(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))
}
