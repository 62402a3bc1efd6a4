//! The cluster as the scheduler sees it, its own decisions included before anybody else knows of them.
//!
//! Owns: which pod is where and what each node has left. Nodes are rows of a table ([`NodeTable`]), so that a
//! decision reads a few flat arrays; pods and counts are changed one at a time, never recomputed. An
//! *assumed* pod has been placed by us and not confirmed by the API yet; it weighs like any other.

mod carried;
mod counts;
mod groups;
mod nodes;
mod topology;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use control_plane_client::ObjectKey;
use proto_api::types::core::v1::Node;

pub(crate) use self::carried::CarriedTerms;
pub(crate) use self::counts::{Counts, Sums};
use self::groups::Counted;
pub(crate) use self::groups::{GroupKey, Groups, Leaving, group_key};
pub use self::nodes::{NodeId, NodeTable};
pub(crate) use self::topology::{Topologies, Topology};
use crate::pod_info::PodInfo;
use crate::selection::{Namespaces, Selection};

/// How strongly a pod draws those that it must be near to, against the weights of preferences.
const REQUIRED_WEIGHT: i64 = 1;

/// Whether the API has confirmed a pod's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placed {
    Assumed,
    Confirmed,
}

#[derive(Debug)]
struct PlacedPod {
    info: Arc<PodInfo>,
    node: Arc<str>,
    state: Placed,
    /// Pods that are being deleted take room and keep others apart, but no longer count for spreading.
    counts: bool,
}

/// What changed in favour of pods that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freed {
    /// A pod's room, ports and count are free.
    pub room: bool,
    /// Labels of a node.
    pub labels: bool,
    /// Taints of a node, or its being schedulable.
    pub taints: bool,
    /// A pod has come to a node, or a pod or a namespace has other labels: others may be near it.
    pub pods: bool,
}

impl Freed {
    pub(crate) fn room_if(room: bool) -> Self {
        Self {
            room,
            ..Self::default()
        }
    }

    /// Takes over what `other` freed.
    pub(crate) fn add(&mut self, other: Self) {
        let Self {
            room,
            labels,
            taints,
            pods,
        } = other;
        self.room |= room;
        self.labels |= labels;
        self.taints |= taints;
        self.pods |= pods;
    }
}

/// Nodes and the pods on them.
#[derive(Debug, Default)]
pub struct Cache {
    pub(crate) nodes: NodeTable,
    pub(crate) topologies: Topologies,
    pub(crate) groups: Groups,
    pub(crate) namespaces: Namespaces,
    /// Pods that placed pods must be apart from, by the number of those.
    pub(crate) apart: CarriedTerms,
    /// Pods that placed pods draw or push away, by weight.
    pub(crate) drawn: CarriedTerms,
    pods: HashMap<ObjectKey, PlacedPod>,
    /// Pods whose node is not known yet, by node: they are counted when it appears.
    strays: HashMap<Arc<str>, Vec<ObjectKey>>,
}

impl Cache {
    /// An empty cluster.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &NodeTable {
        &self.nodes
    }

    /// Number of pods that have a place.
    #[must_use]
    pub fn pod_count(&self) -> usize {
        self.pods.len()
    }

    /// Makes sure that the pods which all `selections` mean are counted.
    pub(crate) fn ensure_group(&mut self, selections: &[&Selection], leaving: Leaving) -> GroupKey {
        let key = group_key(selections.iter().copied(), leaving);
        if self.groups.touch(key) {
            return key;
        }
        let means = |placed: &&PlacedPod| {
            (placed.counts || leaving == Leaving::Count)
                && selections
                    .iter()
                    .all(|selection| selection.has(&placed.info, &self.namespaces))
        };
        let nodes: Vec<NodeId> = self
            .pods
            .values()
            .filter(means)
            .filter_map(|placed| self.nodes.id(&placed.node))
            .collect();
        let selections = selections.iter().copied().cloned().collect();
        self.groups.insert(key, selections, leaving, &nodes);
        key
    }

    /// Takes a namespace's labels in. What pods that wait may gain by it.
    pub fn put_namespace(&mut self, name: &Arc<str>, labels: &BTreeMap<String, String>) -> Freed {
        let changed = self.namespaces.put(name, labels);
        if changed {
            self.groups.namespaces_changed();
        }
        Freed {
            pods: changed,
            ..Freed::default()
        }
    }

    /// Forgets a namespace.
    pub fn remove_namespace(&mut self, name: &str) {
        if self.namespaces.remove(name) {
            self.groups.namespaces_changed();
        }
    }

    /// Takes a node in, or its new state. Says what pods that wait may gain by it.
    pub fn put_node(&mut self, node: &Node) -> Freed {
        let (id, freed) = self.nodes.put(node);
        if freed.labels {
            self.topologies.put(id, self.nodes.labels(id));
            self.groups.relabeled(id);
            self.apart.relabeled(id);
            self.drawn.relabeled(id);
        }
        let name = Arc::clone(self.nodes.name(id));
        for key in self.strays.remove(&name).unwrap_or_default() {
            if let Some(placed) = self.pods.get(&key) {
                let (info, counts) = (Arc::clone(&placed.info), placed.counts);
                self.account(&info, id, 1, counts);
            }
        }
        freed
    }

    /// Forgets a node. Its pods stay known, in case it comes back.
    pub fn remove_node(&mut self, name: &str) {
        let Some(id) = self.nodes.id(name) else {
            return;
        };
        let here: Vec<ObjectKey> = self
            .pods
            .iter()
            .filter(|(_, placed)| &*placed.node == name)
            .map(|(key, _)| key.clone())
            .collect();
        self.groups.remove_node(id);
        self.apart.remove_node(id);
        self.drawn.remove_node(id);
        self.topologies.remove(id);
        self.nodes.remove(id);
        if !here.is_empty() {
            self.strays.insert(Arc::from(name), here);
        }
    }

    /// Places a pod by our own decision.
    pub fn assume(&mut self, info: &Arc<PodInfo>, node: NodeId) {
        let name = Arc::clone(self.nodes.name(node));
        self.place(info, &name, Placed::Assumed, true);
    }

    /// Takes back a decision that did not come about. A pod that the API has confirmed stays.
    pub fn forget(&mut self, key: &ObjectKey) {
        if self
            .pods
            .get(key)
            .is_some_and(|placed| placed.state == Placed::Assumed)
        {
            self.remove_pod(key);
        }
    }

    /// Whether a decision about this pod waits for the API.
    #[must_use]
    pub fn is_assumed(&self, key: &ObjectKey) -> bool {
        self.pods
            .get(key)
            .is_some_and(|placed| placed.state == Placed::Assumed)
    }

    /// A pod is on a node, says the API. `counts`: it is not being deleted. Says what pods that wait
    /// may gain by it.
    pub fn put_pod(&mut self, info: &Arc<PodInfo>, node: &Arc<str>, counts: bool) -> Freed {
        if let Some(placed) = self.pods.get_mut(&info.key)
            && placed.node == *node
            && placed.info.uid == info.uid
            && placed.counts == counts
            && placed.info.requests == info.requests
            && placed.info.pod.metadata.labels == info.pod.metadata.labels
        {
            placed.state = Placed::Confirmed;
            placed.info = Arc::clone(info);
            return Freed::default();
        }
        self.place(info, node, Placed::Confirmed, counts);
        Freed {
            pods: true,
            ..Freed::default()
        }
    }

    /// A pod is gone, or has ended. Whether it had a place.
    pub fn remove_pod(&mut self, key: &ObjectKey) -> bool {
        let Some(placed) = self.pods.remove(key) else {
            return false;
        };
        match self.nodes.id(&placed.node) {
            Some(id) => self.account(&placed.info, id, -1, placed.counts),
            None => {
                if let Some(strays) = self.strays.get_mut(&placed.node) {
                    strays.retain(|stray| stray != key);
                    if strays.is_empty() {
                        self.strays.remove(&placed.node);
                    }
                }
            }
        }
        true
    }

    fn place(&mut self, info: &Arc<PodInfo>, node: &Arc<str>, state: Placed, counts: bool) {
        self.remove_pod(&info.key);
        match self.nodes.id(node) {
            Some(id) => self.account(info, id, 1, counts),
            None => self
                .strays
                .entry(Arc::clone(node))
                .or_default()
                .push(info.key.clone()),
        }
        let placed = PlacedPod {
            info: Arc::clone(info),
            node: Arc::clone(node),
            state,
            counts,
        };
        self.pods.insert(info.key.clone(), placed);
    }

    fn account(&mut self, info: &PodInfo, node: NodeId, sign: i64, counts: bool) {
        self.nodes.account(node, info, sign);
        let pod = Counted {
            info,
            leaving: !counts,
        };
        self.groups
            .account(pod, node, sign, &self.namespaces, &self.topologies);
        let Some(terms) = &info.pod_terms else {
            return;
        };
        for key in terms.topology_keys() {
            self.topologies.ensure(key, &self.nodes);
        }
        let topologies = &self.topologies;
        for term in &terms.required_anti {
            self.apart.add(term, node, sign, topologies);
        }
        for term in &terms.required {
            self.drawn
                .add(term, node, sign * REQUIRED_WEIGHT, topologies);
        }
        for (term, weight) in &terms.preferred {
            self.drawn.add(term, node, sign * weight, topologies);
        }
    }
}

#[cfg(test)]
mod tests;
