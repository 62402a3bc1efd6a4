//! A number for each node, and its sums over the domains of the topologies that are asked about.
//!
//! Sums follow each change, so that a decision reads them and adds nothing up. They are made when
//! first asked for, and anew after a node's labels have changed.

use std::collections::HashMap;
use std::sync::Arc;

use super::nodes::NodeId;
use super::topology::{Topologies, Topology};

/// Numbers by node and by domain.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    by_node: HashMap<NodeId, i64>,
    by_domain: Vec<(Arc<str>, Sums)>,
}

/// Sums by domain of one topology. Domains beyond the end are zero.
#[derive(Debug, Default)]
pub(crate) struct Sums(Vec<i64>);

impl Sums {
    /// The sum of a node's domain; `None` for a node that is in no domain.
    pub(crate) fn at(&self, topology: &Topology, node: NodeId) -> Option<i64> {
        let domain = topology.domain(node)?;
        Some(self.0.get(domain.index()).copied().unwrap_or(0))
    }

    /// Whether every domain's sum is zero.
    pub(crate) fn is_zero(&self) -> bool {
        self.0.iter().all(|sum| *sum == 0)
    }

    fn add(&mut self, topology: &Topology, node: NodeId, number: i64) {
        if let Some(domain) = topology.domain(node) {
            if self.0.len() <= domain.index() {
                self.0.resize(topology.len(), 0);
            }
            self.0[domain.index()] += number;
        }
    }
}

impl Counts {
    /// Adds to a node's number.
    pub(crate) fn add(&mut self, node: NodeId, number: i64, topologies: &Topologies) {
        let here = self.by_node.entry(node).or_insert(0);
        *here += number;
        if *here == 0 {
            self.by_node.remove(&node);
        }
        for (key, sums) in &mut self.by_domain {
            if let Some(topology) = topologies.get(key) {
                sums.add(topology, node, number);
            }
        }
    }

    /// Makes sure that [`Self::sums`] has a topology.
    pub(crate) fn ensure(&mut self, key: &Arc<str>, topologies: &Topologies) {
        if self.sums(key).is_some() {
            return;
        }
        let mut sums = Sums::default();
        if let Some(topology) = topologies.get(key) {
            for (node, number) in &self.by_node {
                sums.add(topology, *node, *number);
            }
        }
        self.by_domain.push((Arc::clone(key), sums));
    }

    /// Sums over the domains of a topology.
    pub(crate) fn sums(&self, key: &str) -> Option<&Sums> {
        self.by_domain
            .iter()
            .find(|(known, _)| **known == *key)
            .map(|(_, sums)| sums)
    }

    /// Nodes whose number is not zero.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, i64)> {
        self.by_node.iter().map(|(node, number)| (*node, *number))
    }

    /// Whether every node's number is zero.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_node.is_empty()
    }

    /// A node is gone.
    pub(super) fn remove_node(&mut self, node: NodeId) {
        if self.by_node.remove(&node).is_some() {
            self.by_domain.clear();
        }
    }

    /// A node's labels have changed: it may be in other domains.
    pub(super) fn relabeled(&mut self, node: NodeId) {
        if self.by_node.contains_key(&node) {
            self.by_domain.clear();
        }
    }
}
