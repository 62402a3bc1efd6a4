//! Which pods a rule is about: namespaces and labels. What spreading and pod affinity count by.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use control_plane_client::selector;
use proto_api::types::meta::v1::{LabelSelector, LabelSelectorRequirement};

use crate::pod_info::PodInfo;

/// Values of one `In` by which a selection is found; with more it is found by its namespace alone.
const VALUES_MAX: usize = 8;

/// Labels of the namespaces.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    labels: HashMap<Arc<str>, BTreeMap<String, String>>,
}

impl Namespaces {
    /// Takes a namespace in. Whether its labels are new.
    pub(crate) fn put(&mut self, name: &Arc<str>, labels: &BTreeMap<String, String>) -> bool {
        if self.labels.get(name) == Some(labels) {
            return false;
        }
        self.labels.insert(Arc::clone(name), labels.clone());
        true
    }

    /// Forgets a namespace. Whether it was known.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        self.labels.remove(name).is_some()
    }

    /// A namespace that is not known yet has no labels.
    fn select(&self, wanted: &LabelSelector, name: &str) -> bool {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        selector::matches(wanted, self.labels.get(name).unwrap_or(&NONE))
    }
}

/// Pods with these labels in these namespaces.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    namespaces: Vec<Arc<str>>,
    namespace_selector: Option<LabelSelector>,
    labels: LabelSelector,
    identity: u64,
}

/// Where a selection is looked for: a namespace and a label that all its pods have, as far as it
/// has such.
pub(crate) type Anchor = u64;

fn hash(parts: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

fn selector_hash(selector: &LabelSelector) -> u64 {
    let expressions = selector.match_expressions.iter();
    let expressions = expressions.map(|e| (&e.key, &e.operator, &e.values));
    hash((&selector.match_labels, expressions.collect::<Vec<_>>()))
}

/// The anchors under which selections of this pod are found.
pub(crate) fn anchors_of(info: &PodInfo) -> impl Iterator<Item = Anchor> + '_ {
    let namespaces = [Some(&*info.key.namespace), None];
    namespaces.into_iter().flat_map(move |namespace| {
        let labels = info.pod.metadata.labels.iter();
        let labels = labels.map(|(key, value)| Some((key.as_str(), value.as_str())));
        labels
            .chain([None])
            .map(move |label| hash((namespace, label)))
    })
}

impl Selection {
    /// Pods of one namespace.
    pub(crate) fn within(namespace: &Arc<str>, labels: LabelSelector) -> Self {
        Self::across(vec![Arc::clone(namespace)], None, labels)
    }

    /// Pods of these namespaces, and of those that a selector chooses.
    pub(crate) fn across(
        mut namespaces: Vec<Arc<str>>,
        namespace_selector: Option<LabelSelector>,
        labels: LabelSelector,
    ) -> Self {
        namespaces.sort();
        namespaces.dedup();
        let chosen = namespace_selector.as_ref().map(selector_hash);
        let identity = hash((&namespaces, chosen, selector_hash(&labels)));
        Self {
            namespaces,
            namespace_selector,
            labels,
            identity,
        }
    }

    /// Whether a pod is meant.
    pub(crate) fn has(&self, info: &PodInfo, namespaces: &Namespaces) -> bool {
        let namespace = &info.key.namespace;
        let within = self.namespaces.contains(namespace)
            || self
                .namespace_selector
                .as_ref()
                .is_some_and(|wanted| namespaces.select(wanted, namespace));
        within && selector::matches(&self.labels, &info.pod.metadata.labels)
    }

    /// Whether it means other pods when a namespace's labels change.
    pub(crate) fn follows_namespaces(&self) -> bool {
        self.namespace_selector.is_some()
    }

    /// Equal selections have equal identities.
    pub(crate) fn identity(&self) -> u64 {
        self.identity
    }

    /// Where it is kept: every pod that it means has one of these among [`anchors_of`], and only one.
    pub(crate) fn anchors(&self) -> Vec<Anchor> {
        let namespace = match (&self.namespaces[..], &self.namespace_selector) {
            ([only], None) => Some(&**only),
            _ => None,
        };
        if let Some((key, value)) = self.labels.match_labels.iter().next() {
            return vec![hash((namespace, Some((key.as_str(), value.as_str()))))];
        }
        let one_of = |e: &&LabelSelectorRequirement| {
            e.operator == "In" && (1..=VALUES_MAX).contains(&e.values.len())
        };
        match self.labels.match_expressions.iter().find(one_of) {
            Some(e) => {
                let mut values: Vec<&str> = e.values.iter().map(String::as_str).collect();
                values.sort_unstable();
                values.dedup();
                let anchor = |value| hash((namespace, Some((e.key.as_str(), value))));
                values.into_iter().map(anchor).collect()
            }
            None => vec![hash((namespace, None::<(&str, &str)>))],
        }
    }
}

/// A selector of no pod at all: what a rule without a selector has.
pub(crate) fn nothing() -> LabelSelector {
    let none = LabelSelectorRequirement {
        key: "none".to_owned(),
        operator: "In".to_owned(),
        values: Vec::new(),
    };
    LabelSelector {
        match_expressions: vec![none],
        ..LabelSelector::default()
    }
}
