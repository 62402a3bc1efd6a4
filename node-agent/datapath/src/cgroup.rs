//! Where the cgroup2 hierarchy is mounted, as this process sees it.
//!
//! A pure cgroup2 machine has it at /sys/fs/cgroup, a hybrid one at /sys/fs/cgroup/unified; in a
//! cgroup namespace the mount shows the namespace's own subtree, which is what we attach to.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::config::CgroupRoot;

/// The place to attach socket programs to.
#[derive(Debug)]
pub(crate) struct CgroupDirectory {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    /// The kernel's id of the cgroup, as links report it.
    pub(crate) id: u64,
}

/// No cgroup2 directory to attach to.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error(
        "no cgroup2 hierarchy is mounted: mount one, or name its directory in the configuration"
    )]
    NotMounted,
    #[error("open {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Finds the first mount of type cgroup2 in the text of `/proc/self/mountinfo`; the one nearest to
/// the root of the tree wins.
fn find_mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let kind = after.split(' ').next()?;
            let path = before.split(' ').nth(4)?;
            (kind == "cgroup2").then(|| PathBuf::from(path))
        })
        .min_by_key(|path| path.components().count())
}

impl CgroupDirectory {
    /// Opens the configured or detected directory.
    /// # Errors
    /// [`CgroupError`].
    pub(crate) fn open(root: &CgroupRoot) -> Result<Self, CgroupError> {
        let path = match root {
            CgroupRoot::At(path) => path.clone(),
            CgroupRoot::Detect => {
                let path = Path::new("/proc/self/mountinfo");
                let mounts = fs::read_to_string(path).map_err(|source| CgroupError::Open {
                    path: path.to_owned(),
                    source,
                })?;
                find_mount(&mounts).ok_or(CgroupError::NotMounted)?
            }
        };
        let open = || -> io::Result<(File, u64)> {
            let file = File::open(&path)?;
            let id = file.metadata()?.ino();
            Ok((file, id))
        };
        match open() {
            Ok((file, id)) => Ok(Self { path, file, id }),
            Err(source) => Err(CgroupError::Open { path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_on_pure_and_hybrid_machines() {
        let pure = "24 1 0:22 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n\
                    30 1 0:30 / /run/cilium/cgroupv2 rw - cgroup2 none rw\n";
        let hybrid = "24 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      25 24 0:23 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      26 24 0:24 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(find_mount(pure), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(
            find_mount(hybrid),
            Some(PathBuf::from("/sys/fs/cgroup/unified"))
        );
        assert_eq!(find_mount("1 1 0:1 / / rw - ext4 /dev/vda rw\n"), None);
    }
}
