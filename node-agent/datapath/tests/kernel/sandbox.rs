//! A place of one's own in this kernel: namespaces, a BPF file system, a cgroup.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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

    /// Runs a command in the sandbox; it must succeed.
    pub(crate) fn run(&self, command: &[&str]) -> String {
        let output = Command::new(command[0])
            .args(&command[1..])
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{command:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A veth pair whose one side has this name; returns that side's index.
    pub(crate) fn veth(&self, name: &str) -> u32 {
        let peer = format!("{name}-peer");
        self.run(&[
            "ip", "link", "add", name, "type", "veth", "peer", "name", &peer,
        ]);
        let shown = self.run(&["ip", "-o", "link", "show", name]);
        shown.split(':').next().unwrap().trim().parse().unwrap()
    }

    pub(crate) fn delete_link(&self, name: &str) {
        self.run(&["ip", "link", "delete", name]);
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
