//! NodePorts: no two pods of a node share a port of the node.

use super::{Filter, Plugin, Reason, Reasons};
use crate::cache::{NodeId, NodeTable};
use crate::pod_info::HostPort;

pub(crate) struct Ports<'a> {
    nodes: &'a NodeTable,
    wanted: &'a [HostPort],
}

impl<'a> Ports<'a> {
    /// `None` for a pod without host ports.
    pub(crate) fn new(nodes: &'a NodeTable, wanted: &'a [HostPort]) -> Option<Self> {
        (!wanted.is_empty()).then_some(Self { nodes, wanted })
    }
}

impl Filter for Ports<'_> {
    fn plugin(&self) -> Plugin {
        Plugin::NodePorts
    }

    fn admits(&self, node: NodeId, why: &mut Reasons) -> bool {
        let taken = self.nodes.has_conflicting_port(node, self.wanted);
        if taken {
            why.push(Reason::Ports);
        }
        !taken
    }
}
