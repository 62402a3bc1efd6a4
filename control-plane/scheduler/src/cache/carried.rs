//! What placed pods say about others: their affinity terms, counted by node and domain.
//!
//! Pods of one template say the same, so a term is kept once, with a number for each node. A pod that
//! comes finds the terms that mean it by its labels. Bounded by the distinct terms of placed pods.

use std::collections::HashMap;
use std::sync::Arc;

use super::counts::Counts;
use super::nodes::NodeId;
use super::topology::Topologies;
use crate::pod_affinity_terms::{PodTerm, TermKey};
use crate::pod_info::PodInfo;
use crate::selection::{Anchor, Namespaces, anchors_of};

#[derive(Debug)]
struct Carried {
    term: Arc<PodTerm>,
    counts: Counts,
}

/// Terms of one meaning.
#[derive(Debug, Default)]
pub(crate) struct CarriedTerms {
    terms: HashMap<TermKey, Carried>,
    by_anchor: HashMap<Anchor, Vec<TermKey>>,
}

impl CarriedTerms {
    /// A pod on `node` says `term`, `number` strong; negative when it leaves.
    pub(super) fn add(
        &mut self,
        term: &Arc<PodTerm>,
        node: NodeId,
        number: i64,
        topologies: &Topologies,
    ) {
        let by_anchor = &mut self.by_anchor;
        let carried = self.terms.entry(term.key).or_insert_with(|| {
            for anchor in term.selection.anchors() {
                by_anchor.entry(anchor).or_default().push(term.key);
            }
            Carried {
                term: Arc::clone(term),
                counts: Counts::default(),
            }
        });
        carried.counts.add(node, number, topologies);
        if carried.counts.is_empty() {
            self.remove(term.key);
        }
    }

    /// The terms that mean a pod.
    pub(crate) fn about(&self, info: &PodInfo, namespaces: &Namespaces) -> Vec<TermKey> {
        if self.terms.is_empty() {
            return Vec::new();
        }
        anchors_of(info)
            .filter_map(|anchor| self.by_anchor.get(&anchor))
            .flatten()
            .filter(|key| {
                self.terms
                    .get(key)
                    .is_some_and(|carried| carried.term.selection.has(info, namespaces))
            })
            .copied()
            .collect()
    }

    /// Makes sure that a term has its sums.
    pub(crate) fn ensure_sums(&mut self, key: TermKey, topologies: &Topologies) {
        if let Some(carried) = self.terms.get_mut(&key) {
            let topology = Arc::clone(&carried.term.topology_key);
            carried.counts.ensure(&topology, topologies);
        }
    }

    /// A term and its numbers.
    pub(crate) fn get(&self, key: TermKey) -> Option<(&PodTerm, &Counts)> {
        let carried = self.terms.get(&key)?;
        Some((&carried.term, &carried.counts))
    }

    pub(super) fn remove_node(&mut self, node: NodeId) {
        let mut empty = Vec::new();
        for (key, carried) in &mut self.terms {
            carried.counts.remove_node(node);
            if carried.counts.is_empty() {
                empty.push(*key);
            }
        }
        for key in empty {
            self.remove(key);
        }
    }

    pub(super) fn relabeled(&mut self, node: NodeId) {
        for carried in self.terms.values_mut() {
            carried.counts.relabeled(node);
        }
    }

    fn remove(&mut self, key: TermKey) {
        let Some(carried) = self.terms.remove(&key) else {
            return;
        };
        for anchor in carried.term.selection.anchors() {
            if let Some(keys) = self.by_anchor.get_mut(&anchor) {
                keys.retain(|other| *other != key);
                if keys.is_empty() {
                    self.by_anchor.remove(&anchor);
                }
            }
        }
    }
}
