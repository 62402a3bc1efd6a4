//! The acting side of pods: one worker a pod, and the table of workers.
//!
//! A worker observes, decides with [`crate::pod::advance`], starts actions as tasks of its own and
//! reports the status. Workers share nothing that can block one by another but bounded lanes for
//! starts and for exec calls.

mod admission;
mod execute;
mod hooks;
mod observe;
mod pod_worker;
mod start;
mod table;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use node_agent_state::{StateHub, Upstream};
use proto_api::types::Quantity;
use tokio::sync::Semaphore;

use crate::clock::{Chance, Clock};
use crate::config::KubeletConfig;
use crate::container::cgroup::Hierarchies;
use crate::container::dns::{DnsContext, parse};
use crate::event::EventRecorder;
use crate::image::ImagePuller;
use crate::runtime::Runtime;
use crate::volume::Volumes;

pub(crate) use self::table::{PodDirectory, PodSummary, WorkerTable};

/// What all workers share.
pub(crate) struct Context {
    pub(crate) config: KubeletConfig,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) upstream: Arc<dyn Upstream>,
    pub(crate) hub: StateHub,
    pub(crate) events: EventRecorder,
    pub(crate) images: ImagePuller,
    pub(crate) volumes: Volumes,
    pub(crate) cgroups: Hierarchies,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) chance: Arc<dyn Chance>,
    /// Sandboxes and containers being started at once.
    pub(crate) starts: Semaphore,
    /// Commands being run in containers at once, for probes and hooks.
    pub(crate) execs: Semaphore,
    pub(crate) allocatable: BTreeMap<String, Quantity>,
    pub(crate) memory_capacity: i64,
    pub(crate) http: crate::probe::HttpClient,
}

impl Context {
    pub(crate) fn host_ips(&self) -> &[IpAddr] {
        &self.config.node_ips
    }

    pub(crate) fn host_ip_texts(&self) -> Vec<String> {
        self.config
            .node_ips
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    /// The cluster's zone; a default before the control plane has told.
    pub(crate) fn cluster_domain(&self) -> String {
        let snapshot = self.hub.snapshot();
        let domain = &snapshot.cluster.cluster_domain;
        if domain.is_empty() {
            "cluster.local".to_owned()
        } else {
            domain.clone()
        }
    }

    /// The cluster's and the node's resolvers.
    pub(crate) async fn dns(&self) -> DnsContext {
        let text = tokio::fs::read_to_string(&self.config.resolv_conf)
            .await
            .unwrap_or_default();
        DnsContext {
            cluster_dns: self.hub.snapshot().cluster.cluster_dns.clone(),
            cluster_domain: self.cluster_domain(),
            node: parse(&text),
        }
    }
}
