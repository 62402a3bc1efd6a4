//! A pod as the scheduler sees it: what matters for placing it, read once.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use control_plane_client::{Cached, ObjectKey};
use proto_api::types::core::v1::{
    NodeSelectorTerm, Pod, PodSpec, PreferredSchedulingTerm, Toleration,
};
use serde_json::json;

use crate::pod_affinity_terms::PodTerms;
use crate::resources::{Resources, pod_requests, pod_requests_for_comparison};
use crate::selection::{Selection, nothing};

/// A port on the node itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Address; `0.0.0.0` is every address.
    pub ip: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Number.
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be on one node.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        let any = |ip: &str| ip == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (any(&self.ip) || any(&other.ip) || self.ip == other.ip)
    }
}

/// How far pods of a kind may be spread unevenly over a topology.
#[derive(Debug, Clone)]
pub struct SpreadConstraint {
    /// Node label whose values are the domains.
    pub topology_key: Arc<str>,
    /// Greatest difference to the emptiest domain.
    pub max_skew: i64,
    /// Domains below which the emptiest counts as empty.
    pub min_domains: i64,
    /// Whose pods are counted.
    pub(crate) selection: Selection,
    /// Nodes that the pod's affinity rules out are no domains.
    pub honors_affinity: bool,
    /// Nodes with taints the pod does not tolerate are no domains.
    pub honors_taints: bool,
}

/// What matters of a pod.
#[derive(Debug, Clone)]
pub struct PodInfo {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Uid.
    pub uid: Arc<str>,
    /// The pod itself.
    pub pod: Arc<Cached<Pod>>,
    /// Greater goes first.
    pub priority: i32,
    /// What it reserves.
    pub requests: Resources,
    /// CPU (thousandths) and memory (bytes) for comparing nodes.
    pub compared: (i64, i64),
    /// Ports on the node.
    pub host_ports: Vec<HostPort>,
    /// A hash of node selector and required node affinity; `None` without either.
    pub affinity_hash: Option<u64>,
    /// Constraints that must hold.
    pub spread_hard: Vec<SpreadConstraint>,
    /// Constraints that should hold.
    pub spread_soft: Vec<SpreadConstraint>,
    /// Which pods it must or should be near, or apart from.
    pub(crate) pod_terms: Option<Arc<PodTerms>>,
}

impl PodInfo {
    /// Reads a pod.
    #[must_use]
    pub fn of(pod: &Arc<Cached<Pod>>) -> Self {
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let namespace = &pod.key.namespace;
        let (spread_hard, spread_soft) = spread(pod, spec, namespace);
        Self {
            key: pod.key.clone(),
            uid: Arc::from(pod.metadata.uid.as_deref().unwrap_or_default()),
            pod: Arc::clone(pod),
            priority: spec.priority.unwrap_or(0),
            requests: pod_requests(spec),
            compared: pod_requests_for_comparison(spec),
            host_ports: host_ports(spec),
            affinity_hash: affinity_hash(spec),
            spread_hard,
            spread_soft,
            pod_terms: PodTerms::of(pod, spec, namespace),
        }
    }

    fn spec(&self) -> Option<&PodSpec> {
        self.pod.spec.as_ref()
    }

    /// The node the pod is on or insists on.
    #[must_use]
    pub fn node_name(&self) -> Option<&str> {
        self.spec()?
            .node_name
            .as_deref()
            .filter(|name| !name.is_empty())
    }

    /// Tolerations.
    #[must_use]
    pub fn tolerations(&self) -> &[Toleration] {
        self.spec().map_or(&[], |spec| &spec.tolerations)
    }

    /// Equalities a node's labels must meet.
    pub(crate) fn node_selector(&self) -> impl Iterator<Item = (&String, &String)> {
        self.spec().into_iter().flat_map(|spec| &spec.node_selector)
    }

    /// Alternatives of which a node must meet one; `None` when nothing is required.
    pub(crate) fn required_terms(&self) -> Option<&[NodeSelectorTerm]> {
        let affinity = self.spec()?.affinity.as_ref()?.node_affinity.as_ref()?;
        let required = affinity
            .required_during_scheduling_ignored_during_execution
            .as_ref()?;
        Some(&required.node_selector_terms)
    }

    /// Terms that count for a node that meets them.
    pub(crate) fn preferred_terms(&self) -> &[PreferredSchedulingTerm] {
        self.spec()
            .and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref())
            .map_or(&[], |affinity| {
                &affinity.preferred_during_scheduling_ignored_during_execution
            })
    }

    /// Names of the gates that hold the pod back.
    #[must_use]
    pub fn is_gated(&self) -> bool {
        self.spec()
            .is_some_and(|spec| !spec.scheduling_gates.is_empty())
    }
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec
        .init_containers
        .iter()
        .filter(|c| c.restart_policy.as_deref() == Some("Always"));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| &container.ports)
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            let ip = port
                .host_ip
                .clone()
                .filter(|ip| !ip.is_empty() && ip != "::");
            Some(HostPort {
                ip: ip.unwrap_or_else(|| "0.0.0.0".to_owned()),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port: number,
            })
        })
        .collect()
}

fn affinity_hash(spec: &PodSpec) -> Option<u64> {
    let required = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|node| {
            node.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
    if required.is_none() && spec.node_selector.is_empty() {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    json!([spec.node_selector, required])
        .to_string()
        .hash(&mut hasher);
    Some(hasher.finish())
}

fn spread(
    pod: &Pod,
    spec: &PodSpec,
    namespace: &Arc<str>,
) -> (Vec<SpreadConstraint>, Vec<SpreadConstraint>) {
    let (mut hard, mut soft) = (Vec::new(), Vec::new());
    for constraint in &spec.topology_spread_constraints {
        let mut selector = constraint.label_selector.clone().unwrap_or_else(nothing);
        for key in &constraint.match_label_keys {
            if let Some(value) = pod.metadata.labels.get(key) {
                selector.match_labels.insert(key.clone(), value.clone());
            }
        }
        let read = SpreadConstraint {
            topology_key: Arc::from(constraint.topology_key.as_str()),
            max_skew: i64::from(constraint.max_skew),
            min_domains: i64::from(constraint.min_domains.unwrap_or(1)),
            selection: Selection::within(namespace, selector),
            honors_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honors_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        };
        if constraint.when_unsatisfiable == "ScheduleAnyway" {
            soft.push(read);
        } else {
            hard.push(read);
        }
    }
    (hard, soft)
}
