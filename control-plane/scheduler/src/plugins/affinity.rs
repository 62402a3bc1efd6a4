//! NodeAffinity: node selector, required and preferred node affinity.
//!
//! What a selector makes of the nodes is kept until a label changes: pods of one template share it.

use std::collections::HashMap;
use std::sync::Arc;

use proto_api::types::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};

use super::{Filter, Plugin, Reason, Reasons, SCORE_MAX};
use crate::cache::{NodeId, NodeTable};
use crate::pod_info::PodInfo;

/// Selectors whose answers are kept.
const KEPT_MAX: usize = 512;

/// By row: whether the selector admits the node.
type Admitted = Arc<Vec<bool>>;

/// Answers by selector, for one state of the nodes' labels.
#[derive(Debug, Default)]
pub(crate) struct AffinityMemory {
    generation: u64,
    answers: HashMap<u64, Admitted>,
}

impl AffinityMemory {
    /// The rows that `info`'s selector admits; `None` when it has none.
    pub(crate) fn admitted(&mut self, nodes: &NodeTable, info: &PodInfo) -> Option<Admitted> {
        let hash = info.affinity_hash?;
        if self.generation != nodes.labels_generation() || self.answers.len() >= KEPT_MAX {
            self.generation = nodes.labels_generation();
            self.answers.clear();
        }
        let answer = self.answers.entry(hash).or_insert_with(|| {
            let rows = 0..nodes.rows();
            Arc::new(
                rows.map(|row| nodes.at(row).is_some_and(|id| meets(nodes, id, info)))
                    .collect(),
            )
        });
        Some(Arc::clone(answer))
    }
}

fn meets(nodes: &NodeTable, id: NodeId, info: &PodInfo) -> bool {
    let labels = nodes.labels(id);
    info.node_selector()
        .all(|(key, value)| labels.get(key) == Some(value))
        && info
            .required_terms()
            .is_none_or(|terms| terms.iter().any(|term| meets_term(nodes, id, term)))
}

/// Whether a node meets every requirement of a term. An empty term meets nothing.
fn meets_term(nodes: &NodeTable, id: NodeId, term: &NodeSelectorTerm) -> bool {
    if term.match_expressions.is_empty() && term.match_fields.is_empty() {
        return false;
    }
    let labels = nodes.labels(id);
    let name = nodes.name(id);
    term.match_expressions.iter().all(|requirement| {
        holds(
            requirement,
            labels.get(&requirement.key).map(String::as_str),
        )
    }) && term
        .match_fields
        .iter()
        .all(|requirement| requirement.key == "metadata.name" && holds(requirement, Some(name)))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let listed = |value: &str| requirement.values.iter().any(|listed| listed == value);
    let number = || {
        let value: i64 = value?.parse().ok()?;
        let bound: i64 = requirement.values.first()?.parse().ok()?;
        Some(value.cmp(&bound))
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number().is_some_and(std::cmp::Ordering::is_gt),
        "Lt" => number().is_some_and(std::cmp::Ordering::is_lt),
        _ => false,
    }
}

/// The filter.
pub(crate) struct Affinity {
    admitted: Admitted,
}

impl Affinity {
    pub(crate) fn new(admitted: Admitted) -> Self {
        Self { admitted }
    }
}

impl Filter for Affinity {
    fn plugin(&self) -> Plugin {
        Plugin::NodeAffinity
    }

    fn admits(&self, node: NodeId, why: &mut Reasons) -> bool {
        let admitted = self.admitted.get(node.index()).copied().unwrap_or(false);
        if !admitted {
            why.push(Reason::Affinity);
        }
        admitted
    }
}

/// Scores of `among` by preferred terms; `None` when all are equal.
pub(crate) fn scores(nodes: &NodeTable, info: &PodInfo, among: &[NodeId]) -> Option<Vec<i64>> {
    let terms = info.preferred_terms();
    if terms.is_empty() {
        return None;
    }
    let sums: Vec<i64> = among
        .iter()
        .map(|id| {
            let met = terms
                .iter()
                .filter(|term| meets_term(nodes, *id, &term.preference));
            met.map(|term| i64::from(term.weight)).sum()
        })
        .collect();
    let most = sums.iter().copied().max().filter(|most| *most > 0)?;
    Some(sums.into_iter().map(|sum| sum * SCORE_MAX / most).collect())
}
