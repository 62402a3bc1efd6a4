//! A place of one's own in this kernel: namespaces, a BPF file system, a cgroup.

use std::fs;
use std::path::{Path, PathBuf};

use node_agent_datapath::DatapathConfig;
use node_agent_datapath::config::{CgroupRoot, MapProfile};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// The namespaces belong to the test's thread and go with it; the cgroup is removed on drop.
pub(crate) struct Sandbox {
    directory: tempfile::TempDir,
    cgroup: PathBuf,
}

fn cgroup2() -> PathBuf {
    let unified = Path::new("/sys/fs/cgroup/unified");
    if unified.exists() {
        unified.to_owned()
    } else {
        PathBuf::from("/sys/fs/cgroup")
    }
}

impl Sandbox {
    /// `None`, with a note, where the test cannot run.
    pub(crate) fn enter(name: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not run: needs root");
            return None;
        }
        if !node_agent_datapath::are_built() {
            eprintln!("not run: no BPF objects, `cargo xtask build-ebpf` makes them");
            return None;
        }
        let flags = UnshareFlags::NEWNS | UnshareFlags::NEWNET;
        #[expect(
            unsafe_code,
            reason = "the call is unsafe for what it may do to descriptors"
        )]
        // SAFETY: only CLONE_FILES would affect other threads' descriptors; it is not set.
        unsafe { unshare_unsafe(flags) }.unwrap();
        let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
        mount_change("/", private).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let bpffs = directory.path().join("bpf");
        fs::create_dir(&bpffs).unwrap();
        mount("bpf", &bpffs, "bpf", MountFlags::empty(), None).unwrap();
        let cgroup = cgroup2().join(format!("skep-datapath-test-{}-{name}", std::process::id()));
        fs::create_dir(&cgroup).unwrap();
        Some(Self { directory, cgroup })
    }

    pub(crate) fn config(&self) -> DatapathConfig {
        DatapathConfig {
            bpffs: self.directory.path().join("bpf"),
            run_directory: self.directory.path().join("run"),
            cgroup: CgroupRoot::At(self.cgroup.clone()),
            profile: MapProfile::Small,
            ..DatapathConfig::default()
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let bpffs = self.directory.path().join("bpf");
        if let Err(error) = rustix::mount::unmount(&bpffs, rustix::mount::UnmountFlags::DETACH) {
            eprintln!("{} stays mounted: {error}", bpffs.display());
        }
        if let Err(error) = fs::remove_dir(&self.cgroup) {
            eprintln!("{} stays: {error}", self.cgroup.display());
        }
    }
}
