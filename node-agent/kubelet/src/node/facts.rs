//! What the machine is: read once at start from /proc and /etc. Parsers are pure.

use std::collections::BTreeMap;
use std::path::Path;

use proto_api::types::Quantity;
use proto_api::types::core::v1::NodeSystemInfo;

use crate::config::KubeletConfig;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MachineFacts {
    pub(crate) cpus: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) storage_bytes: u64,
    pub(crate) machine_id: String,
    pub(crate) system_uuid: String,
    pub(crate) boot_id: String,
    pub(crate) kernel_version: String,
    pub(crate) os_image: String,
}

impl MachineFacts {
    /// Reads this machine. What cannot be read stays empty. Blocking.
    pub(crate) fn read(storage: &Path) -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let line = |path: &str| text(path).trim().to_owned();
        let blocks = nix::sys::statvfs::statvfs(storage)
            .map(|stat| stat.blocks().saturating_mul(stat.fragment_size()))
            .unwrap_or(0);
        Self {
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
            memory_bytes: memory_total(&text("/proc/meminfo")),
            storage_bytes: blocks,
            machine_id: line("/etc/machine-id"),
            system_uuid: line("/sys/class/dmi/id/product_uuid"),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            kernel_version: line("/proc/sys/kernel/osrelease"),
            os_image: pretty_name(&text("/etc/os-release")),
        }
    }

    /// `status.nodeInfo`.
    pub(crate) fn node_info(&self, runtime_version: &str) -> NodeSystemInfo {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        NodeSystemInfo {
            architecture: architecture.to_owned(),
            boot_id: self.boot_id.clone(),
            container_runtime_version: runtime_version.to_owned(),
            kernel_version: self.kernel_version.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: concat!("v1.37.0+skep-", env!("CARGO_PKG_VERSION")).to_owned(),
            machine_id: self.machine_id.clone(),
            operating_system: "linux".to_owned(),
            os_image: self.os_image.clone(),
            system_uuid: self.system_uuid.clone(),
            ..NodeSystemInfo::default()
        }
    }

    /// `status.capacity`.
    pub(crate) fn capacity(&self, pods: u32) -> BTreeMap<String, Quantity> {
        BTreeMap::from([
            ("cpu".to_owned(), Quantity(self.cpus.to_string())),
            ("memory".to_owned(), kibibytes(self.memory_bytes)),
            (
                "ephemeral-storage".to_owned(),
                kibibytes(self.storage_bytes),
            ),
            ("pods".to_owned(), Quantity(pods.to_string())),
        ])
    }
}

/// `status.allocatable`: capacity without what is kept for the system.
pub(crate) fn allocatable(
    facts: &MachineFacts,
    config: &KubeletConfig,
) -> BTreeMap<String, Quantity> {
    let milli = facts
        .cpus
        .saturating_mul(1000)
        .saturating_sub(config.reserved_cpu_milli);
    let cpu = if milli.is_multiple_of(1000) {
        (milli / 1000).to_string()
    } else {
        format!("{milli}m")
    };
    let memory = facts
        .memory_bytes
        .saturating_sub(config.reserved_memory_bytes);
    let mut map = facts.capacity(config.pods_max);
    map.insert("cpu".to_owned(), Quantity(cpu));
    map.insert("memory".to_owned(), kibibytes(memory));
    map
}

fn kibibytes(bytes: u64) -> Quantity {
    Quantity(format!("{}Ki", bytes / 1024))
}

fn memory_total(meminfo: &str) -> u64 {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|n| n.parse().ok());
    kib.unwrap_or(0_u64).saturating_mul(1024)
}

fn pretty_name(os_release: &str) -> String {
    let line = os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.unwrap_or("Linux").trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_and_allocatable_are_quantities_of_the_usual_form() {
        let facts = MachineFacts {
            cpus: 2,
            memory_bytes: memory_total("MemTotal:       24000000 kB\nMemFree: 1 kB\n"),
            storage_bytes: 4096,
            ..MachineFacts::default()
        };
        let mut config = KubeletConfig::new("n", Vec::new());
        config.reserved_cpu_milli = 250;
        config.reserved_memory_bytes = 1024 * 1000;
        let capacity = facts.capacity(110);
        assert_eq!(capacity["memory"].0, "24000000Ki");
        assert_eq!(capacity["ephemeral-storage"].0, "4Ki");
        let allocatable = allocatable(&facts, &config);
        assert_eq!(
            (
                allocatable["cpu"].0.as_str(),
                allocatable["pods"].0.as_str()
            ),
            ("1750m", "110")
        );
        assert_eq!(allocatable["memory"].0, "23999000Ki");
    }

    #[test]
    fn the_system_names_itself() {
        assert_eq!(
            pretty_name("ID=x\nPRETTY_NAME=\"Debian 12\"\n"),
            "Debian 12"
        );
        assert_eq!(pretty_name(""), "Linux");
    }
}
