//! NodeName: a pod that names its node is on no other.

use super::{Filter, Plugin, Reason, Reasons};
use crate::cache::NodeId;

pub(crate) struct NodeName {
    /// The node named; `None` when there is no such node.
    wanted: Option<NodeId>,
}

impl NodeName {
    pub(crate) fn new(wanted: Option<NodeId>) -> Self {
        Self { wanted }
    }
}

impl Filter for NodeName {
    fn plugin(&self) -> Plugin {
        Plugin::NodeName
    }

    fn admits(&self, node: NodeId, why: &mut Reasons) -> bool {
        let admitted = self.wanted == Some(node);
        if !admitted {
            why.push(Reason::NodeName);
        }
        admitted
    }
}
