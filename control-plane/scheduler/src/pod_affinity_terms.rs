//! What a pod says about being near other pods, read once.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use proto_api::types::core::v1::{Pod, PodAffinityTerm, PodSpec, WeightedPodAffinityTerm};
use proto_api::types::meta::v1::LabelSelectorRequirement;

use crate::selection::{Selection, nothing};

/// Identity of a term.
pub(crate) type TermKey = u64;

/// Near pods of a selection: in the same domain of a topology.
#[derive(Debug)]
pub(crate) struct PodTerm {
    pub(crate) key: TermKey,
    pub(crate) topology_key: Arc<str>,
    pub(crate) selection: Selection,
}

/// All terms of a pod.
#[derive(Debug, Default)]
pub(crate) struct PodTerms {
    /// Domains must have pods that all of these mean.
    pub(crate) required: Vec<Arc<PodTerm>>,
    /// Domains must not have a pod that one of these means.
    pub(crate) required_anti: Vec<Arc<PodTerm>>,
    /// Domains with such pods are better, or with a negative weight worse.
    pub(crate) preferred: Vec<(Arc<PodTerm>, i64)>,
}

impl PodTerms {
    /// `None` when the pod says nothing.
    pub(crate) fn of(pod: &Pod, spec: &PodSpec, namespace: &Arc<str>) -> Option<Arc<Self>> {
        let affinity = spec.affinity.as_ref()?;
        let read = |term: &PodAffinityTerm| Arc::new(PodTerm::of(term, pod, namespace));
        let weighted = |term: &WeightedPodAffinityTerm, sign: i64| {
            (read(&term.pod_affinity_term), sign * i64::from(term.weight))
        };
        let mut terms = Self::default();
        if let Some(near) = &affinity.pod_affinity {
            let required = &near.required_during_scheduling_ignored_during_execution;
            terms.required.extend(required.iter().map(read));
            let preferred = &near.preferred_during_scheduling_ignored_during_execution;
            let preferred = preferred.iter().map(|term| weighted(term, 1));
            terms.preferred.extend(preferred);
        }
        if let Some(apart) = &affinity.pod_anti_affinity {
            let required = &apart.required_during_scheduling_ignored_during_execution;
            terms.required_anti.extend(required.iter().map(read));
            let preferred = &apart.preferred_during_scheduling_ignored_during_execution;
            let preferred = preferred.iter().map(|term| weighted(term, -1));
            terms.preferred.extend(preferred);
        }
        let says = !terms.required.is_empty()
            || !terms.required_anti.is_empty()
            || !terms.preferred.is_empty();
        says.then(|| Arc::new(terms))
    }

    /// Every topology that a term names.
    pub(crate) fn topology_keys(&self) -> impl Iterator<Item = &Arc<str>> {
        self.required
            .iter()
            .chain(&self.required_anti)
            .chain(self.preferred.iter().map(|(term, _)| term))
            .map(|term| &term.topology_key)
    }
}

impl PodTerm {
    fn of(term: &PodAffinityTerm, pod: &Pod, namespace: &Arc<str>) -> Self {
        let mut labels = term.label_selector.clone().unwrap_or_else(nothing);
        // The values of the pod's own labels, as the API server writes them into the selector.
        for (keys, operator) in [
            (&term.match_label_keys, "In"),
            (&term.mismatch_label_keys, "NotIn"),
        ] {
            for key in keys {
                if let Some(value) = pod.metadata.labels.get(key) {
                    let own = LabelSelectorRequirement {
                        key: key.clone(),
                        operator: operator.to_owned(),
                        values: vec![value.clone()],
                    };
                    if !labels.match_expressions.contains(&own) {
                        labels.match_expressions.push(own);
                    }
                }
            }
        }
        let mut namespaces: Vec<Arc<str>> = term
            .namespaces
            .iter()
            .map(|name| name.as_str().into())
            .collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(Arc::clone(namespace));
        }
        let selection = Selection::across(namespaces, term.namespace_selector.clone(), labels);
        let mut hasher = DefaultHasher::new();
        (&term.topology_key, selection.identity()).hash(&mut hasher);
        Self {
            key: hasher.finish(),
            topology_key: Arc::from(term.topology_key.as_str()),
            selection,
        }
    }
}
