//! InterPodAffinity: near some pods and apart from others, by the domains of topologies; must (filter) or
//! should (score). What placed pods say about the pod counts as what it says itself.

use crate::cache::{Cache, CarriedTerms, GroupKey, Leaving, NodeId, Sums, Topology};
use crate::pod_affinity_terms::{PodTerm, PodTerms, TermKey};
use crate::pod_info::PodInfo;

use super::{Filter, Plugin, Reason, Reasons, SCORE_MAX};

/// What is known about a pod and the terms that concern it. Everything it names is counted.
#[derive(Debug, Default)]
pub(crate) struct Concerned {
    /// Pods that all required terms mean.
    required: Option<GroupKey>,
    required_anti: Vec<GroupKey>,
    preferred: Vec<GroupKey>,
    /// Terms of placed pods that mean this one: it must be apart from those pods, or they draw it.
    apart: Vec<TermKey>,
    drawn: Vec<TermKey>,
}

impl Concerned {
    /// Makes sure that everything that concerns the pod is counted.
    pub(crate) fn ensure(cache: &mut Cache, info: &PodInfo) -> Self {
        let mut concerned = Self {
            apart: cache.apart.about(info, &cache.namespaces),
            drawn: cache.drawn.about(info, &cache.namespaces),
            ..Self::default()
        };
        for (terms, keys) in [
            (&mut cache.apart, &concerned.apart),
            (&mut cache.drawn, &concerned.drawn),
        ] {
            for key in keys {
                terms.ensure_sums(*key, &cache.topologies);
            }
        }
        if let Some(terms) = info.pod_terms.as_deref() {
            concerned.ensure_own(cache, terms);
        }
        concerned
    }

    fn ensure_own(&mut self, cache: &mut Cache, terms: &PodTerms) {
        for key in terms.topology_keys() {
            cache.topologies.ensure(key, &cache.nodes);
        }
        if !terms.required.is_empty() {
            let selections: Vec<_> = terms.required.iter().map(|term| &term.selection).collect();
            let group = cache.ensure_group(&selections, Leaving::Count);
            for term in &terms.required {
                let groups = &mut cache.groups;
                groups.ensure_sums(group, &term.topology_key, &cache.topologies);
            }
            self.required = Some(group);
        }
        let mut alone = |term: &PodTerm| {
            let group = cache.ensure_group(&[&term.selection], Leaving::Count);
            let groups = &mut cache.groups;
            groups.ensure_sums(group, &term.topology_key, &cache.topologies);
            group
        };
        self.required_anti = terms.required_anti.iter().map(|term| alone(term)).collect();
        self.preferred = terms
            .preferred
            .iter()
            .map(|(term, _)| alone(term))
            .collect();
    }
}

/// Pods by domain of one topology.
struct Placed<'a> {
    topology: &'a Topology,
    sums: &'a Sums,
}

impl<'a> Placed<'a> {
    fn of_group(cache: &'a Cache, group: GroupKey, term: &PodTerm) -> Option<Self> {
        Some(Self {
            topology: cache.topologies.get(&term.topology_key)?,
            sums: cache.groups.get(group)?.sums(&term.topology_key)?,
        })
    }

    fn of_term(cache: &'a Cache, terms: &'a CarriedTerms, key: TermKey) -> Option<Self> {
        let (term, counts) = terms.get(key)?;
        Some(Self {
            topology: cache.topologies.get(&term.topology_key)?,
            sums: counts.sums(&term.topology_key)?,
        })
    }

    /// `None`: the node lacks the label.
    fn at(&self, node: NodeId) -> Option<i64> {
        self.sums.at(self.topology, node)
    }
}

/// The filter for what must hold.
pub(crate) struct PodAffinity<'a> {
    near: Vec<Placed<'a>>,
    /// There is no pod yet that it must be near, and it is such a pod itself.
    is_first: bool,
    apart: Vec<Placed<'a>>,
    others_apart: Vec<Placed<'a>>,
}

impl<'a> PodAffinity<'a> {
    /// `None` when nothing must hold.
    pub(crate) fn new(cache: &'a Cache, info: &PodInfo, concerned: &Concerned) -> Option<Self> {
        let none = PodTerms::default();
        let terms = info.pod_terms.as_deref().unwrap_or(&none);
        let group = concerned.required.iter();
        let near: Vec<_> = group
            .flat_map(|group| terms.required.iter().map(move |term| (*group, term)))
            .filter_map(|(group, term)| Placed::of_group(cache, group, term))
            .collect();
        let apart: Vec<_> = concerned
            .required_anti
            .iter()
            .zip(&terms.required_anti)
            .filter_map(|(group, term)| Placed::of_group(cache, *group, term))
            .collect();
        let others_apart: Vec<_> = concerned
            .apart
            .iter()
            .filter_map(|key| Placed::of_term(cache, &cache.apart, *key))
            .collect();
        if near.is_empty() && apart.is_empty() && others_apart.is_empty() {
            return None;
        }
        let is_first = near.iter().all(|placed| placed.sums.is_zero())
            && terms
                .required
                .iter()
                .all(|term| term.selection.has(info, &cache.namespaces));
        Some(Self {
            near,
            is_first,
            apart,
            others_apart,
        })
    }
}

impl Filter for PodAffinity<'_> {
    fn plugin(&self) -> Plugin {
        Plugin::InterPodAffinity
    }

    fn admits(&self, node: NodeId, why: &mut Reasons) -> bool {
        let near = |placed: &Placed<'_>| match placed.at(node) {
            Some(pods) => pods > 0 || self.is_first,
            None => false,
        };
        let some = |placed: &Placed<'_>| placed.at(node).is_some_and(|pods| pods > 0);
        let reason = if !self.near.iter().all(near) {
            Reason::PodAffinity
        } else if self.apart.iter().any(some) {
            Reason::PodAntiAffinity
        } else if self.others_apart.iter().any(some) {
            Reason::AntiAffinityOfOthers
        } else {
            return true;
        };
        why.push(reason);
        false
    }
}

/// Scores of `among` by what should hold: from 0 for the worst of them to 100 for the best. `None` when all
/// are equal.
pub(crate) fn scores(
    cache: &Cache,
    info: &PodInfo,
    concerned: &Concerned,
    among: &[NodeId],
) -> Option<Vec<i64>> {
    let none = PodTerms::default();
    let terms = info.pod_terms.as_deref().unwrap_or(&none);
    let own = concerned.preferred.iter().zip(&terms.preferred);
    let own = own.filter_map(|(group, (term, weight))| {
        Some((Placed::of_group(cache, *group, term)?, *weight))
    });
    let others = concerned.drawn.iter();
    let others = others.filter_map(|key| Some((Placed::of_term(cache, &cache.drawn, *key)?, 1)));
    let mut raw = vec![0_i64; among.len()];
    for (placed, weight) in own.chain(others) {
        for (sum, node) in raw.iter_mut().zip(among) {
            *sum += weight * placed.at(*node).unwrap_or(0);
        }
    }
    let (least, most) = (*raw.iter().min()?, *raw.iter().max()?);
    if least == most {
        return None;
    }
    let scaled = raw
        .into_iter()
        .map(|sum| SCORE_MAX * (sum - least) / (most - least));
    Some(scaled.collect())
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
