//! Inter-pod affinity the slow way, for comparison: every pod, every term, every time, read from the pods
//! themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use control_plane_client::selector;
use proto_api::types::core::v1::{Affinity, PodAffinityTerm};

use crate::pod_info::PodInfo;

pub(super) type Labels = BTreeMap<String, String>;

/// A cluster as lists.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) nodes: BTreeMap<String, Labels>,
    pub(super) namespaces: BTreeMap<String, Labels>,
    /// Pods with the name of their node.
    pub(super) pods: Vec<(Arc<PodInfo>, String)>,
}

fn affinity(pod: &PodInfo) -> Affinity {
    let spec = pod.pod.spec.clone().unwrap_or_default();
    serde_json::to_value(spec.affinity)
        .ok()
        .and_then(|value| serde_json::from_value(value).ok())
        .unwrap_or_default()
}

fn required(pod: &PodInfo) -> Vec<PodAffinityTerm> {
    affinity(pod)
        .pod_affinity
        .map(|near| near.required_during_scheduling_ignored_during_execution)
        .unwrap_or_default()
}

fn required_anti(pod: &PodInfo) -> Vec<PodAffinityTerm> {
    affinity(pod)
        .pod_anti_affinity
        .map(|apart| apart.required_during_scheduling_ignored_during_execution)
        .unwrap_or_default()
}

/// Preferred terms, those to be apart from with negative weights.
fn preferred(pod: &PodInfo) -> Vec<(PodAffinityTerm, i64)> {
    let affinity = affinity(pod);
    let near = affinity
        .pod_affinity
        .map(|near| near.preferred_during_scheduling_ignored_during_execution);
    let apart = affinity
        .pod_anti_affinity
        .map(|apart| apart.preferred_during_scheduling_ignored_during_execution);
    let near = near.into_iter().flatten().map(|term| (term, 1));
    let apart = apart.into_iter().flatten().map(|term| (term, -1));
    near.chain(apart)
        .map(|(term, sign)| (term.pod_affinity_term, sign * i64::from(term.weight)))
        .collect()
}

impl World {
    /// Whether `term`, said by `owner`, means `other`.
    fn means(&self, term: &PodAffinityTerm, owner: &PodInfo, other: &PodInfo) -> bool {
        let namespace = other.key.namespace.to_string();
        let own = term.namespaces.is_empty() && term.namespace_selector.is_none();
        let none = Labels::new();
        let labels = self.namespaces.get(&namespace).unwrap_or(&none);
        let within = term.namespaces.contains(&namespace)
            || (own && owner.key.namespace == other.key.namespace)
            || term
                .namespace_selector
                .as_ref()
                .is_some_and(|wanted| selector::matches(wanted, labels));
        let wanted = term.label_selector.as_ref();
        let own_labels = &owner.pod.metadata.labels;
        let other_labels = &other.pod.metadata.labels;
        let keys = |keys: &[String], equal: bool| {
            keys.iter().all(|key| match own_labels.get(key) {
                None => true,
                Some(value) => (other_labels.get(key) == Some(value)) == equal,
            })
        };
        within
            && wanted.is_some_and(|wanted| selector::matches(wanted, other_labels))
            && keys(&term.match_label_keys, true)
            && keys(&term.mismatch_label_keys, false)
    }

    /// Whether both nodes have the label, with the same value.
    fn together(&self, key: &str, a: &str, b: &str) -> bool {
        let value = |node: &str| self.nodes.get(node).and_then(|labels| labels.get(key));
        value(a).is_some() && value(a) == value(b)
    }

    /// Why the pod may not be on a node; `None` when it may.
    pub(super) fn refusal(&self, pod: &PodInfo, node: &str) -> Option<&'static str> {
        let terms = required(pod);
        let meant_by_all = |other: &PodInfo| terms.iter().all(|t| self.means(t, pod, other));
        let near: Vec<&String> = self
            .pods
            .iter()
            .filter(|(other, _)| meant_by_all(other))
            .map(|(_, on)| on)
            .collect();
        let labeled = |term: &PodAffinityTerm| self.nodes[node].contains_key(&term.topology_key);
        let met = |term: &PodAffinityTerm| {
            near.iter()
                .any(|on| self.together(&term.topology_key, on, node))
        };
        let anywhere = near.iter().any(|on| {
            terms
                .iter()
                .any(|term| self.nodes[*on].contains_key(&term.topology_key))
        });
        let first = !anywhere && meant_by_all(pod);
        if !terms
            .iter()
            .all(|term| labeled(term) && (met(term) || first))
        {
            return Some("node(s) didn't match pod affinity rules");
        }
        let beside = |term: &PodAffinityTerm, owner: &PodInfo, meant: &PodInfo, on: &str| {
            self.means(term, owner, meant) && self.together(&term.topology_key, on, node)
        };
        for (other, on) in &self.pods {
            if required_anti(pod)
                .iter()
                .any(|term| beside(term, pod, other, on))
            {
                return Some("node(s) didn't match pod anti-affinity rules");
            }
        }
        for (other, on) in &self.pods {
            if required_anti(other)
                .iter()
                .any(|term| beside(term, other, pod, on))
            {
                return Some("node(s) didn't satisfy existing pods anti-affinity rules");
            }
        }
        None
    }

    /// How much a node is to be preferred, before scores are brought to 0..=100.
    pub(super) fn preference(&self, pod: &PodInfo, node: &str) -> i64 {
        let mut sum = 0;
        for (other, on) in &self.pods {
            let mut add =
                |term: &PodAffinityTerm, owner: &PodInfo, meant: &PodInfo, weight: i64| {
                    if self.means(term, owner, meant) && self.together(&term.topology_key, on, node)
                    {
                        sum += weight;
                    }
                };
            for (term, weight) in preferred(pod) {
                add(&term, pod, other, weight);
            }
            for (term, weight) in preferred(other) {
                add(&term, other, pod, weight);
            }
            for term in required(other) {
                add(&term, other, pod, 1);
            }
        }
        sum
    }
}
