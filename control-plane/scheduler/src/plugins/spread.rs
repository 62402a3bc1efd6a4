//! PodTopologySpread: pods of a kind evenly over the domains of a topology; must (filter) or should (score).

use std::sync::{Arc, LazyLock};

use proto_api::types::meta::v1::LabelSelector;

use super::affinity::Affinity;
use super::taints::Taints;
use super::{Filter, Plugin, Reason, Reasons, SCORE_MAX};
use crate::cache::{Cache, Counts, Leaving, NodeId, Topology, group_key};
use crate::pod_info::{PodInfo, SpreadConstraint};
use crate::selection::Selection;

static HOSTNAME: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("kubernetes.io/hostname"));
static ZONE: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("topology.kubernetes.io/zone"));

/// The spreading of pods that say nothing about it: over hosts and zones, among the pods that
/// `selector` (of their Services and their owner) selects.
pub(crate) fn defaults(namespace: &Arc<str>, selector: &LabelSelector) -> Vec<SpreadConstraint> {
    [(&*HOSTNAME, 3), (&*ZONE, 5)]
        .into_iter()
        .map(|(key, max_skew)| SpreadConstraint {
            topology_key: Arc::clone(key),
            max_skew,
            min_domains: 1,
            selection: Selection::within(namespace, selector.clone()),
            honors_affinity: true,
            honors_taints: false,
        })
        .collect()
}

/// Makes sure that everything a constraint asks about is counted.
pub(crate) fn ensure(cache: &mut Cache, constraints: &[SpreadConstraint]) {
    for constraint in constraints {
        cache
            .topologies
            .ensure(&constraint.topology_key, &cache.nodes);
        cache.ensure_group(&[&constraint.selection], Leaving::DoNotCount);
    }
}

fn parts<'a>(
    cache: &'a Cache,
    constraint: &SpreadConstraint,
) -> Option<(&'a Topology, &'a Counts)> {
    let topology = cache.topologies.get(&constraint.topology_key)?;
    let group = group_key([&constraint.selection], Leaving::DoNotCount);
    Some((topology, cache.groups.get(group)?))
}

/// Pods by domain, on the nodes that `is_domain` counts.
fn by_domain(topology: &Topology, counts: &Counts, is_domain: impl Fn(NodeId) -> bool) -> Vec<i64> {
    let mut pods = vec![0; topology.len()];
    for (node, count) in counts.iter() {
        if let Some(domain) = topology.domain(node)
            && is_domain(node)
        {
            pods[domain.index()] += count;
        }
    }
    pods
}

struct Hard<'a> {
    topology: &'a Topology,
    pods: Vec<i64>,
    fewest: i64,
    /// The pod itself counts where it goes.
    own: i64,
    max_skew: i64,
}

/// The filter for constraints that must hold.
pub(crate) struct HardSpread<'a> {
    constraints: Vec<Hard<'a>>,
}

impl<'a> HardSpread<'a> {
    /// `None` when nothing must hold. [`ensure`] must have been called.
    pub(crate) fn new(
        cache: &'a Cache,
        info: &PodInfo,
        affinity: Option<&Affinity>,
        taints: &Taints<'_>,
    ) -> Option<Self> {
        if info.spread_hard.is_empty() {
            return None;
        }
        let has_labels = |node: NodeId| {
            info.spread_hard.iter().all(|constraint| {
                let topology = cache.topologies.get(&constraint.topology_key);
                topology.is_some_and(|topology| topology.domain(node).is_some())
            })
        };
        let constraints = info
            .spread_hard
            .iter()
            .filter_map(|constraint| {
                let (topology, counts) = parts(cache, constraint)?;
                let is_domain = |node: NodeId| {
                    has_labels(node)
                        && (!constraint.honors_affinity
                            || affinity.is_none_or(|a| a.admits(node, &mut Reasons::new())))
                        && (!constraint.honors_taints || taints.admits_node(node))
                };
                let pods = by_domain(topology, counts, is_domain);
                let mut present = vec![false; topology.len()];
                for node in cache.nodes.iter().filter(|node| is_domain(*node)) {
                    if let Some(domain) = topology.domain(node) {
                        present[domain.index()] = true;
                    }
                }
                let domains = present.iter().filter(|present| **present).count();
                let fewest = pods
                    .iter()
                    .zip(&present)
                    .filter(|(_, p)| **p)
                    .map(|(n, _)| *n)
                    .min();
                let enough = i64::try_from(domains).unwrap_or(i64::MAX) >= constraint.min_domains;
                let own = constraint.selection.has(info, &cache.namespaces);
                Some(Hard {
                    topology,
                    pods,
                    fewest: if enough { fewest.unwrap_or(0) } else { 0 },
                    own: i64::from(own),
                    max_skew: constraint.max_skew,
                })
            })
            .collect();
        Some(Self { constraints })
    }
}

impl Filter for HardSpread<'_> {
    fn plugin(&self) -> Plugin {
        Plugin::PodTopologySpread
    }

    fn admits(&self, node: NodeId, why: &mut Reasons) -> bool {
        for hard in &self.constraints {
            let Some(domain) = hard.topology.domain(node) else {
                why.push(Reason::SpreadLabel);
                return false;
            };
            if hard.pods[domain.index()] + hard.own - hard.fewest > hard.max_skew {
                why.push(Reason::Spread);
                return false;
            }
        }
        true
    }
}

/// Scores of `among` by constraints that should hold. `every_label`: a node that lacks a label of a
/// constraint gets nothing (not so for the defaults). `None` when all are equal.
pub(crate) fn scores(
    cache: &Cache,
    constraints: &[SpreadConstraint],
    every_label: bool,
    affinity: Option<&Affinity>,
    among: &[NodeId],
) -> Option<Vec<i64>> {
    if constraints.is_empty() || among.len() < 2 {
        return None;
    }
    let mut raw = vec![0.0_f64; among.len()];
    let mut left_out = vec![false; among.len()];
    for constraint in constraints {
        let (topology, counts) = parts(cache, constraint)?;
        let counted = |node: NodeId| {
            !constraint.honors_affinity
                || affinity.is_none_or(|a| a.admits(node, &mut Reasons::new()))
        };
        let pods = by_domain(topology, counts, counted);
        let mut seen = vec![false; topology.len()];
        let mut domains = 0_u32;
        for (at, node) in among.iter().enumerate() {
            match topology.domain(*node) {
                Some(domain) if !seen[domain.index()] => {
                    seen[domain.index()] = true;
                    domains += 1;
                }
                Some(_) => {}
                None => left_out[at] |= every_label,
            }
        }
        let weight = f64::from(domains + 2).ln();
        for (at, node) in among.iter().enumerate() {
            if let Some(domain) = topology.domain(*node) {
                let count = i32::try_from(pods[domain.index()]).unwrap_or(i32::MAX);
                let skew = i32::try_from(constraint.max_skew - 1).unwrap_or(i32::MAX);
                raw[at] += f64::from(count) * weight + f64::from(skew);
            }
        }
    }
    Some(normalized(&raw, &left_out))
}

fn normalized(raw: &[f64], left_out: &[bool]) -> Vec<i64> {
    let kept = || {
        raw.iter()
            .zip(left_out)
            .filter(|(_, out)| !**out)
            .map(|(score, _)| score.round())
    };
    let most = kept().fold(0.0, f64::max);
    let least = kept().fold(f64::INFINITY, f64::min);
    raw.iter()
        .zip(left_out)
        .map(|(score, out)| {
            if *out {
                0
            } else if most == 0.0 {
                SCORE_MAX
            } else {
                percent((most + least - score.round()) / most)
            }
        })
        .collect()
}

/// 0.0..=1.0 as 0..=100.
fn percent(share: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "clamped to 0..=100")]
    let whole = (share * 100.0).clamp(0.0, 100.0) as i64;
    whole
}
