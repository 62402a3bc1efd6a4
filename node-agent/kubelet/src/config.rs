//! What an operator may set for the kubelet part, with its defaults and bounds.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Settings of [`crate::Kubelet::start`].
#[derive(Debug, Clone)]
pub struct KubeletConfig {
    /// Name of this node: also the mark on everything that the agent creates.
    pub node_name: String,
    /// Addresses of this node, the primary one first. The first is also the pods' `hostIP`.
    pub node_ips: Vec<IpAddr>,
    /// containerd's socket (CRI and its own API).
    pub containerd_socket: PathBuf,
    /// Directory for pods' volumes and hosts files: private to the agent, survives restarts.
    pub root_dir: PathBuf,
    /// Directory for pods' logs, one subdirectory a pod.
    pub log_dir: PathBuf,
    /// Directory for pipes of exec sessions.
    pub run_dir: PathBuf,
    /// Parent of all pods' cgroups, a path inside every cgroup hierarchy.
    pub cgroup_parent: String,
    /// Where the cgroup hierarchies are mounted.
    pub cgroup_mount: PathBuf,
    /// The node's resolver configuration: upstream of pods that do not use the cluster's DNS.
    pub resolv_conf: PathBuf,
    /// Pods that the node takes at most.
    pub pods_max: u32,
    /// Longest pause before a crashed container starts again, 1..=300 s.
    pub crash_backoff_max: Duration,
    /// CPU, in thousandths, kept from pods.
    pub reserved_cpu_milli: u64,
    /// Memory, in bytes, kept from pods.
    pub reserved_memory_bytes: u64,
    /// Labels that the node is registered with, beside its own.
    pub node_labels: std::collections::BTreeMap<String, String>,
    /// A full look at the runtime, in case an event was missed.
    pub relist_period: Duration,
    /// The node's conditions are looked at this often.
    pub node_status_period: Duration,
    /// A log file longer than this is rotated.
    pub log_max_bytes: u64,
    /// Log files kept of one container, the current one included.
    pub log_files_max: usize,
}

impl KubeletConfig {
    /// Defaults for a node of that name, with everything below `/var/lib/skep`.
    #[must_use]
    pub fn new(node_name: impl Into<String>, node_ips: Vec<IpAddr>) -> Self {
        Self {
            node_name: node_name.into(),
            node_ips,
            containerd_socket: PathBuf::from("/run/containerd/containerd.sock"),
            root_dir: PathBuf::from("/var/lib/skep/kubelet"),
            log_dir: PathBuf::from("/var/log/pods"),
            run_dir: PathBuf::from("/run/skep/kubelet"),
            cgroup_parent: "/kubepods".to_owned(),
            cgroup_mount: PathBuf::from("/sys/fs/cgroup"),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            pods_max: 110,
            crash_backoff_max: Duration::from_secs(300),
            reserved_cpu_milli: 0,
            reserved_memory_bytes: 100 << 20,
            node_labels: std::collections::BTreeMap::new(),
            relist_period: Duration::from_secs(60),
            node_status_period: Duration::from_secs(10),
            log_max_bytes: 10 << 20,
            log_files_max: 5,
        }
    }

    /// Directory of one pod's volumes and files.
    #[must_use]
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root_dir.join("pods").join(uid)
    }

    /// Directory of one pod's logs.
    #[must_use]
    pub fn pod_log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.log_dir.join(format!("{namespace}_{name}_{uid}"))
    }
}
