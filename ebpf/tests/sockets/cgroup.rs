// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! A cgroup of one thread: the hooks see this test's sockets and no other's.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// A threaded cgroup below the process's own, with the calling thread in it.
pub(crate) struct ThreadCgroup {
    dir: PathBuf,
    home: PathBuf,
}

impl ThreadCgroup {
    pub(crate) fn enter() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let home = own();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = home.join(format!("skep-ebpf-test-{}-{number}", std::process::id()));
        fs::create_dir(&dir)
            .unwrap_or_else(|error| panic!("create {}: {error} (root?)", dir.display()));
        let cgroup = Self { dir, home };
        write(&cgroup.dir.join("cgroup.type"), "threaded");
        write(&cgroup.dir.join("cgroup.threads"), "0");
        cgroup
    }

    pub(crate) fn open(&self) -> File {
        File::open(&self.dir).unwrap()
    }
}

impl Drop for ThreadCgroup {
    fn drop(&mut self) {
        write(&self.home.join("cgroup.threads"), "0");
        fs::remove_dir(&self.dir).unwrap();
    }
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
}

/// The process's directory in the cgroup2 hierarchy.
fn own() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&"cgroup2"))
        .expect("a cgroup2 mount")[1]
        .to_owned();
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
    let path = groups
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .expect("a cgroup2 path");
    Path::new(&mount).join(path)
}
