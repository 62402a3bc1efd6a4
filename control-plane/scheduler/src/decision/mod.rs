//! One decision: the best node for a pod, or why there is none. Reads the cache, writes nothing.
//!
//! Owns: the order of filters and scores, sampling, the choice among equals. Costs about the nodes
//! looked at times the filters in use; see `benches/decisions.rs`.

use std::collections::HashMap;

use proto_api::types::meta::v1::LabelSelector;
use rand::Rng;

use crate::cache::{Cache, NodeId};
use crate::plugins::affinity::{self, Affinity, AffinityMemory};
use crate::plugins::fit::Fit;
use crate::plugins::node_name::NodeName;
use crate::plugins::pod_affinity::{self, Concerned, PodAffinity};
use crate::plugins::ports::Ports;
use crate::plugins::spread::{self, HardSpread};
use crate::plugins::taints::Taints;
use crate::plugins::unschedulable::Unschedulable as Cordon;
use crate::plugins::{Filter, PluginSet, Reason, Reasons, allocation};
use crate::pod_info::{PodInfo, SpreadConstraint};

/// Nodes below which all are looked at.
const SAMPLE_MIN: usize = 100;
const WEIGHT_TAINTS: i64 = 3;
const WEIGHT_AFFINITY: i64 = 2;
const WEIGHT_SPREAD: i64 = 2;
const WEIGHT_POD_AFFINITY: i64 = 2;

/// Why no node will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unschedulable {
    /// For the pod's condition and event.
    pub message: String,
    /// Which plugins turned nodes down.
    pub plugins: PluginSet,
}

/// What is kept from one decision to the next.
#[derive(Debug, Default)]
pub struct Decider {
    affinity: AffinityMemory,
    /// Where the next search starts, so that samples differ.
    start_row: usize,
}

/// How many fitting nodes are enough to choose among: all up to 100, then a share that falls from 50 % to
/// 5 % with the size of the cluster.
fn sample_size(nodes: usize) -> usize {
    if nodes < SAMPLE_MIN {
        return nodes;
    }
    let percent = 50_usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(SAMPLE_MIN)
}

impl Decider {
    /// A decider that remembers nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Chooses a node. `by_default` selects the pods among which a pod without constraints of its own is
    /// spread (its Services and its owner). `cache` is changed only in what it counts for the answer.
    ///
    /// # Errors
    /// No node will do.
    pub fn choose(
        &mut self,
        cache: &mut Cache,
        info: &PodInfo,
        by_default: Option<&LabelSelector>,
        rng: &mut impl Rng,
    ) -> Result<NodeId, Unschedulable> {
        let own = !info.spread_hard.is_empty() || !info.spread_soft.is_empty();
        let soft: Vec<SpreadConstraint> = match by_default {
            Some(selector) if !own => spread::defaults(&info.key.namespace, selector),
            Some(_) | None => info.spread_soft.clone(),
        };
        spread::ensure(cache, &info.spread_hard);
        spread::ensure(cache, &soft);
        let concerned = Concerned::ensure(cache, info);

        let affinity = self
            .affinity
            .admitted(&cache.nodes, info)
            .map(Affinity::new);
        let cache = &*cache;
        let taints = Taints::new(&cache.nodes, info.tolerations());
        let feasible = self.feasible(cache, info, affinity.as_ref(), &taints, &concerned)?;
        if let [only] = feasible[..] {
            return Ok(only);
        }
        let scores = scores(
            cache,
            info,
            affinity.as_ref(),
            &taints,
            (&soft, own),
            &concerned,
            &feasible,
        );
        Ok(best(&feasible, &scores, rng))
    }

    /// Enough nodes that every filter admits.
    fn feasible(
        &mut self,
        cache: &Cache,
        info: &PodInfo,
        affinity: Option<&Affinity>,
        taints: &Taints<'_>,
        concerned: &Concerned,
    ) -> Result<Vec<NodeId>, Unschedulable> {
        let nodes = &cache.nodes;
        if nodes.is_empty() {
            let message = "no nodes available to schedule pods".to_owned();
            return Err(Unschedulable {
                message,
                plugins: PluginSet::default(),
            });
        }
        let cordon = Cordon::new(nodes, info.tolerations());
        let named = info.node_name().map(|name| NodeName::new(nodes.id(name)));
        let ports = Ports::new(nodes, &info.host_ports);
        let fit = Fit::new(nodes, &info.requests);
        let hard = HardSpread::new(cache, info, affinity, taints);
        let pods = PodAffinity::new(cache, info, concerned);
        let filters: Vec<&dyn Filter> = [
            cordon.as_ref().map(as_filter),
            named.as_ref().map(as_filter),
            taints.filters().then_some(taints as &dyn Filter),
            affinity.map(as_filter),
            ports.as_ref().map(as_filter),
            Some(&fit as &dyn Filter),
            hard.as_ref().map(as_filter),
            pods.as_ref().map(as_filter),
        ]
        .into_iter()
        .flatten()
        .collect();

        let enough = sample_size(nodes.len());
        let rows = nodes.rows();
        let mut feasible = Vec::with_capacity(enough);
        let mut turned_down = TurnedDown::default();
        let mut looked_at = 0;
        for offset in 0..rows {
            looked_at = offset + 1;
            let Some(node) = nodes.at((self.start_row + offset) % rows) else {
                continue;
            };
            let mut why = Reasons::new();
            match filters.iter().find(|filter| !filter.admits(node, &mut why)) {
                None => feasible.push(node),
                Some(filter) => turned_down.note(*filter, why),
            }
            if feasible.len() >= enough {
                break;
            }
        }
        self.start_row = (self.start_row + looked_at) % rows;
        if feasible.is_empty() {
            return Err(turned_down.into_error(nodes.len()));
        }
        Ok(feasible)
    }
}

fn as_filter<F: Filter>(filter: &F) -> &dyn Filter {
    filter
}

/// Reasons with the number of nodes each holds for.
#[derive(Default)]
struct TurnedDown {
    plugins: PluginSet,
    reasons: HashMap<Reason, usize>,
}

impl TurnedDown {
    fn note(&mut self, filter: &dyn Filter, why: Reasons) {
        self.plugins.insert(filter.plugin());
        for reason in why {
            *self.reasons.entry(reason).or_insert(0) += 1;
        }
    }

    fn into_error(self, nodes: usize) -> Unschedulable {
        let mut parts: Vec<String> = self
            .reasons
            .into_iter()
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        parts.sort();
        let message = format!("0/{nodes} nodes are available: {}.", parts.join(", "));
        Unschedulable {
            message,
            plugins: self.plugins,
        }
    }
}

fn scores(
    cache: &Cache,
    info: &PodInfo,
    affinity: Option<&Affinity>,
    taints: &Taints<'_>,
    (soft, own): (&[SpreadConstraint], bool),
    concerned: &Concerned,
    feasible: &[NodeId],
) -> Vec<i64> {
    let nodes = &cache.nodes;
    let mut total: Vec<i64> = feasible
        .iter()
        .map(|node| {
            allocation::least_allocated(nodes, info, *node)
                + allocation::balanced(nodes, info, *node)
        })
        .collect();
    let weighted = [
        (taints.scores(feasible), WEIGHT_TAINTS),
        (affinity::scores(nodes, info, feasible), WEIGHT_AFFINITY),
        (
            spread::scores(cache, soft, own, affinity, feasible),
            WEIGHT_SPREAD,
        ),
        (
            pod_affinity::scores(cache, info, concerned, feasible),
            WEIGHT_POD_AFFINITY,
        ),
    ];
    for (scores, weight) in weighted {
        for (sum, score) in total.iter_mut().zip(scores.into_iter().flatten()) {
            *sum += score * weight;
        }
    }
    total
}

/// The node with the highest score; among equals each is as likely.
fn best(feasible: &[NodeId], scores: &[i64], rng: &mut impl Rng) -> NodeId {
    let mut chosen = feasible[0];
    let mut highest = i64::MIN;
    let mut equals = 0_u32;
    for (node, score) in feasible.iter().zip(scores) {
        if *score > highest {
            (chosen, highest, equals) = (*node, *score, 1);
        } else if *score == highest {
            equals += 1;
            if rng.random_ratio(1, equals) {
                chosen = *node;
            }
        }
    }
    chosen
}

#[cfg(test)]
mod tests;
