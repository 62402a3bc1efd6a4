//! What a node may configure about its datapath.

use std::path::PathBuf;

use ebpf_abi::config::Config;
use ebpf_abi::map::MapSpec;

/// Sizes of the maps at their first creation; pinned ones keep theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MapProfile {
    /// 65,536 services, about 115 MiB.
    #[default]
    Normal,
    /// 8,192 services, about 16 MiB.
    Small,
}

impl MapProfile {
    /// Elements of a map.
    #[must_use]
    pub fn entries(self, spec: &MapSpec) -> u32 {
        match self {
            Self::Normal => spec.entries,
            Self::Small => spec.entries_small,
        }
    }
}

/// Where the socket programs are attached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CgroupRoot {
    /// The cgroup2 hierarchy as this process sees it mounted.
    #[default]
    Detect,
    At(PathBuf),
}

/// How the packet programs are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceHook {
    /// TCX where the kernel has it (6.6), otherwise a clsact qdisc.
    #[default]
    Probe,
    /// A clsact qdisc and a filter.
    Clsact,
}

/// Configuration of the datapath of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatapathConfig {
    /// Where a BPF file system is mounted.
    pub bpffs: PathBuf,
    /// Directory of the lock and of the names file; made if absent.
    pub run_directory: PathBuf,
    pub cgroup: CgroupRoot,
    pub device_hook: DeviceHook,
    pub profile: MapProfile,
    /// The programs' own tunables.
    pub programs: Config,
}

impl Default for DatapathConfig {
    fn default() -> Self {
        Self {
            bpffs: PathBuf::from("/sys/fs/bpf"),
            run_directory: PathBuf::from("/run/skep"),
            cgroup: CgroupRoot::Detect,
            device_hook: DeviceHook::Probe,
            profile: MapProfile::Normal,
            programs: Config::DEFAULT,
        }
    }
}
