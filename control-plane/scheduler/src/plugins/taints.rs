//! TaintToleration: taints keep pods away (NoSchedule, NoExecute) or make a node less liked
//! (PreferNoSchedule). Judged once a set of taints, not once a node.

use proto_api::types::core::v1::{Taint, Toleration};

use super::{Filter, Plugin, Reason, Reasons, SCORE_MAX};
use crate::cache::{NodeId, NodeTable};

/// Whether a toleration covers a taint (API page "Taints and Tolerations").
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if !(effect.is_empty() || effect == taint.effect) || !(key.is_empty() || key == taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "Exists" => true,
        "" | "Equal" => {
            toleration.value.as_deref().unwrap_or_default()
                == taint.value.as_deref().unwrap_or_default()
        }
        _ => false,
    }
}

/// What a pod makes of each set of taints.
pub(crate) struct Taints<'a> {
    nodes: &'a NodeTable,
    /// By number of the set: the first taint that keeps the pod away.
    hard: Vec<Option<&'a Taint>>,
    /// By number of the set: taints that make the node less liked.
    soft: Vec<i64>,
}

impl<'a> Taints<'a> {
    pub(crate) fn new(nodes: &'a NodeTable, tolerations: &[Toleration]) -> Self {
        let bears = |taint: &Taint| tolerations.iter().any(|t| tolerates(t, taint));
        let sets = nodes.taint_sets();
        let repels = |taint: &&Taint| {
            matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute") && !bears(taint)
        };
        let dislikes = |taint: &&Taint| taint.effect == "PreferNoSchedule" && !bears(taint);
        Self {
            nodes,
            hard: sets.iter().map(|set| set.iter().find(repels)).collect(),
            soft: sets
                .iter()
                .map(|set| i64::try_from(set.iter().filter(dislikes).count()).unwrap_or(0))
                .collect(),
        }
    }

    fn set(&self, node: NodeId) -> usize {
        self.nodes.taints[node.index()].0 as usize
    }

    /// Whether some node's taints keep the pod away; otherwise the filter need not run.
    pub(crate) fn filters(&self) -> bool {
        self.hard.iter().any(Option::is_some)
    }

    pub(crate) fn admits_node(&self, node: NodeId) -> bool {
        self.hard.get(self.set(node)).is_none_or(Option::is_none)
    }

    /// Scores of `nodes`; `None` when all are equal.
    pub(crate) fn scores(&self, nodes: &[NodeId]) -> Option<Vec<i64>> {
        let counts: Vec<i64> = nodes
            .iter()
            .map(|node| self.soft.get(self.set(*node)).copied().unwrap_or(0))
            .collect();
        let most = counts.iter().copied().max().filter(|most| *most > 0)?;
        Some(
            counts
                .into_iter()
                .map(|count| SCORE_MAX - count * SCORE_MAX / most)
                .collect(),
        )
    }
}

impl Filter for Taints<'_> {
    fn plugin(&self) -> Plugin {
        Plugin::TaintToleration
    }

    fn admits(&self, node: NodeId, why: &mut Reasons) -> bool {
        let Some(Some(taint)) = self.hard.get(self.set(node)) else {
            return true;
        };
        why.push(Reason::Taint {
            key: taint.key.clone(),
            value: taint.value.clone().unwrap_or_default(),
        });
        false
    }
}
