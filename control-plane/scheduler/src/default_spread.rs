//! Among which pods a pod is spread that says nothing about it: those of its Services and of its owner.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use control_plane_client::{Informer, Informers, ObjectKey, selector};
use proto_api::types::Object as _;
use proto_api::types::apps::v1::ReplicaSet;
use proto_api::types::core::v1::{Pod, Service};
use proto_api::types::meta::v1::LabelSelector;

use crate::pod_info::PodInfo;

/// Answers kept; pods of one template share one.
const KEPT_MAX: usize = 4096;

/// Answers by namespace, owner and labels, for one state of the Services.
pub(crate) struct DefaultSpread {
    services: Arc<Informer<Service>>,
    sets: Arc<Informer<ReplicaSet>>,
    revision: u64,
    answers: HashMap<u64, Option<LabelSelector>>,
}

impl DefaultSpread {
    pub(crate) async fn open(informers: &Informers) -> Self {
        let services = informers.of::<Service>();
        let sets = informers.of::<ReplicaSet>();
        services.synced().await;
        sets.synced().await;
        Self {
            services,
            sets,
            revision: 0,
            answers: HashMap::new(),
        }
    }

    /// The selector for a pod; `None` when it has neither Service nor owner.
    pub(crate) fn selector(&mut self, info: &PodInfo) -> Option<LabelSelector> {
        let revision = self.services.revision();
        if revision != self.revision || self.answers.len() >= KEPT_MAX {
            self.revision = revision;
            self.answers.clear();
        }
        let pod = &info.pod.value;
        let key = identity(info, pod);
        if let Some(known) = self.answers.get(&key) {
            return known.clone();
        }
        let (selector, is_final) = self.build(info, pod);
        if is_final {
            self.answers.insert(key, selector.clone());
        }
        selector
    }

    /// The selector, and whether it stays true while the Services do.
    fn build(&self, info: &PodInfo, pod: &Pod) -> (Option<LabelSelector>, bool) {
        let namespace = &info.key.namespace;
        let mut merged = LabelSelector::default();
        for service in self.services.snapshot().in_namespace(namespace) {
            let Some(spec) = &service.spec else { continue };
            if !spec.selector.is_empty()
                && selector::matches_map(&spec.selector, &pod.metadata.labels)
            {
                let own = spec.selector.clone();
                merged.match_labels.extend(own);
            }
        }
        let mut is_final = true;
        let owner = pod
            .metadata
            .owner_references
            .iter()
            .find(|o| o.controller == Some(true));
        if let Some(owner) = owner.filter(|owner| owner.kind == ReplicaSet::KIND) {
            let key = ObjectKey::new(Arc::clone(namespace), owner.name.as_str());
            match self
                .sets
                .get(&key)
                .filter(|set| set.value.uid() == owner.uid)
            {
                Some(set) => {
                    let own = set.spec.selector.clone();
                    merged.match_labels.extend(own.match_labels);
                    merged.match_expressions.extend(own.match_expressions);
                }
                None => is_final = false,
            }
        }
        ((!selector::is_empty(&merged)).then_some(merged), is_final)
    }
}

fn identity(info: &PodInfo, pod: &Pod) -> u64 {
    let mut hasher = DefaultHasher::new();
    info.key.namespace.hash(&mut hasher);
    pod.metadata.labels.hash(&mut hasher);
    for owner in &pod.metadata.owner_references {
        owner.uid.hash(&mut hasher);
    }
    hasher.finish()
}
