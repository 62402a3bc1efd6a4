//! The domains of each topology: for a node label, which nodes share a value. One column a label in use.

use std::collections::HashMap;
use std::sync::Arc;

use super::nodes::{Labels, NodeId, NodeTable};

/// Number of a value of a topology label; the same as the row for `kubernetes.io/hostname`-like labels
/// only by accident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Domain(u32);

impl Domain {
    const NONE: Self = Self(u32::MAX);

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// One topology.
#[derive(Debug, Default)]
pub(crate) struct Topology {
    of_node: Vec<Domain>,
    names: HashMap<String, Domain>,
    next: u32,
}

impl Topology {
    /// The domain of a node; `None` when it lacks the label.
    pub(crate) fn domain(&self, id: NodeId) -> Option<Domain> {
        self.of_node
            .get(id.index())
            .copied()
            .filter(|domain| *domain != Domain::NONE)
    }

    /// Length of an array by domain.
    pub(crate) fn len(&self) -> usize {
        self.next as usize
    }

    fn put(&mut self, id: NodeId, value: Option<&String>) {
        if self.of_node.len() <= id.index() {
            self.of_node.resize(id.index() + 1, Domain::NONE);
        }
        self.of_node[id.index()] = match value {
            None => Domain::NONE,
            Some(value) => match self.names.get(value) {
                Some(domain) => *domain,
                None => {
                    let domain = Domain(self.next);
                    self.next += 1;
                    self.names.insert(value.clone(), domain);
                    domain
                }
            },
        };
    }
}

/// The topologies that constraints have named so far.
#[derive(Debug, Default)]
pub(crate) struct Topologies {
    by_key: HashMap<Arc<str>, Topology>,
}

impl Topologies {
    /// Makes sure a topology is known. Must be called before [`Self::get`].
    pub(crate) fn ensure(&mut self, key: &Arc<str>, nodes: &NodeTable) {
        if self.by_key.contains_key(key) {
            return;
        }
        let mut topology = Topology::default();
        for id in nodes.iter() {
            topology.put(id, nodes.labels(id).get(&**key));
        }
        self.by_key.insert(Arc::clone(key), topology);
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Topology> {
        self.by_key.get(key)
    }

    pub(super) fn put(&mut self, id: NodeId, labels: &Labels) {
        for (key, topology) in &mut self.by_key {
            topology.put(id, labels.get(&**key));
        }
    }

    pub(super) fn remove(&mut self, id: NodeId) {
        for topology in self.by_key.values_mut() {
            topology.put(id, None);
        }
    }
}
