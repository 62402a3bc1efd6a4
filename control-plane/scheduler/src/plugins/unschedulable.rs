//! NodeUnschedulable: cordoned nodes take no pods, but those that tolerate it.

use proto_api::types::core::v1::{Taint, Toleration};

use super::taints::tolerates;
use super::{Filter, Plugin, Reason, Reasons};
use crate::cache::{NodeId, NodeTable};

pub(crate) struct Unschedulable<'a> {
    nodes: &'a NodeTable,
}

impl<'a> Unschedulable<'a> {
    /// `None` for a pod that tolerates cordoned nodes.
    pub(crate) fn new(nodes: &'a NodeTable, tolerations: &[Toleration]) -> Option<Self> {
        let cordoned = Taint {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        };
        let tolerated = tolerations
            .iter()
            .any(|toleration| tolerates(toleration, &cordoned));
        (!tolerated).then_some(Self { nodes })
    }
}

impl Filter for Unschedulable<'_> {
    fn plugin(&self) -> Plugin {
        Plugin::NodeUnschedulable
    }

    fn admits(&self, node: NodeId, why: &mut Reasons) -> bool {
        let cordoned = self.nodes.unschedulable[node.index()];
        if cordoned {
            why.push(Reason::Unschedulable);
        }
        !cordoned
    }
}
