//! Makes and removes pod cgroups on v1, hybrid and v2 hierarchies.
//!
//! The runtime creates container cgroups below the pod's but writes no pod-level limits: they are
//! written here before the sandbox starts. Blocking file access: call from a blocking task.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::resources::CgroupLimits;

/// How the kernel's cgroups are mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hierarchies {
    /// One tree for everything.
    Unified(PathBuf),
    /// One tree a controller; on a hybrid system a cgroup2 tree stands beside them.
    Legacy { controllers: Vec<(String, PathBuf)> },
}

/// Why a pod's cgroup could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}: {source}", path.display())]
pub(crate) struct CgroupError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Hierarchies {
    /// Looks at what is mounted below `root`.
    pub(crate) fn detect(root: &Path) -> Self {
        if root.join("cgroup.controllers").exists() {
            return Self::Unified(root.to_owned());
        }
        let controllers = ["cpu", "memory", "pids", "cpuset"]
            .into_iter()
            .map(|name| (name.to_owned(), root.join(name)))
            .filter(|(_, path)| path.is_dir())
            .collect();
        Self::Legacy { controllers }
    }

    /// Makes the pod's cgroup and writes its limits. Idempotent.
    pub(crate) fn apply(&self, path: &str, limits: CgroupLimits) -> Result<(), CgroupError> {
        let relative = path.trim_start_matches('/');
        match self {
            Self::Unified(root) => {
                enable_controllers(root, relative)?;
                let directory = root.join(relative);
                write_unified(&directory, limits)
            }
            Self::Legacy { controllers } => {
                for (name, root) in controllers {
                    let directory = make(&root.join(relative))?;
                    if name == "cpuset" {
                        fill_cpusets(root, relative)?;
                    }
                    write_legacy(name, &directory, limits)?;
                }
                Ok(())
            }
        }
    }

    /// Removes the pod's cgroups with what containers left in them. Idempotent. Every v1 hierarchy
    /// is looked at, since runtimes also use those that hold no limits of ours.
    pub(crate) fn remove(&self, mount: &Path, path: &str) -> Result<(), CgroupError> {
        let relative = path.trim_start_matches('/');
        let roots: Vec<PathBuf> = match self {
            Self::Unified(root) => vec![root.clone()],
            Self::Legacy { .. } => fs::read_dir(mount)
                .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
                .unwrap_or_default(),
        };
        for root in roots {
            remove_tree(&root.join(relative))?;
        }
        Ok(())
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    move |source| CgroupError {
        action,
        path: path.to_owned(),
        source,
    }
}

fn make(directory: &Path) -> Result<PathBuf, CgroupError> {
    fs::create_dir_all(directory).map_err(failed("create cgroup", directory))?;
    Ok(directory.to_owned())
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    fs::write(path, value).map_err(failed("write cgroup setting", path))
}

/// On v2 a controller must be enabled in every ancestor before a child can use it.
fn enable_controllers(root: &Path, relative: &str) -> Result<(), CgroupError> {
    let wanted = ["cpu", "memory", "pids"];
    let mut directory = root.to_owned();
    for part in Path::new(relative).components() {
        let available =
            fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
        for controller in wanted
            .iter()
            .filter(|name| available.split_whitespace().any(|a| a == **name))
        {
            write(
                &directory.join("cgroup.subtree_control"),
                &format!("+{controller}"),
            )?;
        }
        directory.push(part);
        make(&directory)?;
    }
    Ok(())
}

fn write_unified(directory: &Path, limits: CgroupLimits) -> Result<(), CgroupError> {
    // The weight that stands for the same share on v2: [2, 262144] -> [1, 10000].
    let weight = 1 + (limits.cpu_shares - 2) * 9999 / 262_142;
    let quota = limits
        .cpu_quota_us
        .map_or_else(|| "max".to_owned(), |quota| quota.to_string());
    let or_max = |value: Option<i64>| value.map_or_else(|| "max".to_owned(), |v| v.to_string());
    let settings = [
        ("cpu.weight", weight.to_string()),
        ("cpu.max", format!("{quota} 100000")),
        ("memory.max", or_max(limits.memory_bytes)),
        ("pids.max", or_max(limits.pids)),
    ];
    for (file, value) in settings {
        let path = directory.join(file);
        if path.exists() {
            write(&path, &value)?;
        }
    }
    Ok(())
}

fn write_legacy(
    controller: &str,
    directory: &Path,
    limits: CgroupLimits,
) -> Result<(), CgroupError> {
    match controller {
        "cpu" => {
            write(
                &directory.join("cpu.shares"),
                &limits.cpu_shares.to_string(),
            )?;
            let quota = limits.cpu_quota_us.unwrap_or(-1);
            let path = directory.join("cpu.cfs_quota_us");
            if path.exists() {
                write(&path, &quota.to_string())
            } else {
                Ok(())
            }
        }
        "memory" => {
            let bytes = limits.memory_bytes.unwrap_or(-1);
            write(&directory.join("memory.limit_in_bytes"), &bytes.to_string())
        }
        "pids" => {
            let most = limits
                .pids
                .map_or_else(|| "max".to_owned(), |pids| pids.to_string());
            write(&directory.join("pids.max"), &most)
        }
        _ => Ok(()),
    }
}

/// An empty cpuset takes no process: each level gets what its parent has.
fn fill_cpusets(root: &Path, relative: &str) -> Result<(), CgroupError> {
    let mut parent = root.to_owned();
    for part in Path::new(relative).components() {
        let directory = parent.join(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let current = fs::read_to_string(directory.join(file)).unwrap_or_default();
            if current.trim().is_empty() {
                let inherited = fs::read_to_string(parent.join(file)).unwrap_or_default();
                write(&directory.join(file), inherited.trim())?;
            }
        }
        parent = directory;
    }
    Ok(())
}

fn remove_tree(directory: &Path) -> Result<(), CgroupError> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        // Files of a cgroup cannot be removed and need not be.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("remove cgroup", directory)(error))
        }
        _ => Ok(()),
    }
}
