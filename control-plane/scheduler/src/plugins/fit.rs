//! NodeResourcesFit: the node has room for what the pod reserves.

use std::sync::{Arc, LazyLock};

use super::{Filter, Plugin, Reason, Reasons};
use crate::cache::{NodeId, NodeTable};
use crate::resources::Resources;

static CPU: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("cpu"));
static MEMORY: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("memory"));
static EPHEMERAL: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("ephemeral-storage"));

pub(crate) struct Fit<'a> {
    nodes: &'a NodeTable,
    wanted: &'a Resources,
}

impl<'a> Fit<'a> {
    pub(crate) fn new(nodes: &'a NodeTable, wanted: &'a Resources) -> Self {
        Self { nodes, wanted }
    }
}

/// Whether `wanted` more exceeds what is left. Asking for nothing never does.
fn exceeds(wanted: i64, requested: i64, allocatable: i64) -> bool {
    wanted > 0 && wanted > allocatable - requested
}

impl Filter for Fit<'_> {
    fn plugin(&self) -> Plugin {
        Plugin::NodeResourcesFit
    }

    fn admits(&self, node: NodeId, why: &mut Reasons) -> bool {
        let (nodes, wanted, row) = (self.nodes, self.wanted, node.index());
        let before = why.len();
        if nodes.pods[row] + 1 > nodes.pods_max[row] {
            why.push(Reason::TooManyPods);
        }
        if exceeds(
            wanted.cpu_milli,
            nodes.requested_cpu[row],
            nodes.allocatable_cpu[row],
        ) {
            why.push(Reason::Insufficient(Arc::clone(&CPU)));
        }
        if exceeds(
            wanted.memory,
            nodes.requested_memory[row],
            nodes.allocatable_memory[row],
        ) {
            why.push(Reason::Insufficient(Arc::clone(&MEMORY)));
        }
        if wanted.ephemeral_storage > 0 || !wanted.others.is_empty() {
            let (requested, allocatable) = (&nodes.requested[row], &nodes.allocatable[row]);
            if exceeds(
                wanted.ephemeral_storage,
                requested.ephemeral_storage,
                allocatable.ephemeral_storage,
            ) {
                why.push(Reason::Insufficient(Arc::clone(&EPHEMERAL)));
            }
            for (name, amount) in &wanted.others {
                if exceeds(*amount, requested.other(name), allocatable.other(name)) {
                    why.push(Reason::Insufficient(Arc::clone(name)));
                }
            }
        }
        why.len() == before
    }
}
