//! Pods counted by node for each selector that spreading asks about, kept up to date pod by pod.
//!
//! A group is a namespace and a selector. It is counted once, when first asked for, and then follows every
//! pod that comes or goes. A pod finds its groups by its labels, not by trying every selector.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use control_plane_client::selector;
use proto_api::types::meta::v1::LabelSelector;

use super::nodes::NodeId;
use crate::pod_info::PodInfo;

/// Groups kept at most; the longest unused is dropped and counted anew when asked for again.
pub(crate) const GROUPS_MAX: usize = 4096;

/// Pods of a group by node row.
pub(crate) type GroupCounts = HashMap<NodeId, i64>;

type GroupKey = u64;
type Anchor = u64;

#[derive(Debug)]
struct Group {
    namespace: Arc<str>,
    selector: LabelSelector,
    anchor: Anchor,
    counts: GroupCounts,
    used: u64,
}

impl Group {
    fn has(&self, info: &PodInfo) -> bool {
        self.namespace == info.key.namespace
            && selector::matches(&self.selector, &info.pod.metadata.labels)
    }
}

/// All groups.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    groups: HashMap<GroupKey, Group>,
    /// Groups by a label that every pod of theirs carries; groups without an equality under their
    /// namespace alone.
    by_anchor: HashMap<Anchor, Vec<GroupKey>>,
    clock: u64,
}

fn hash(parts: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

/// The identity of a group.
pub(crate) fn group_key(namespace: &str, selector: &LabelSelector) -> GroupKey {
    let expressions: Vec<_> = selector
        .match_expressions
        .iter()
        .map(|e| (&e.key, &e.operator, &e.values))
        .collect();
    hash((namespace, &selector.match_labels, expressions))
}

fn anchor(namespace: &str, label: Option<(&String, &String)>) -> Anchor {
    hash((namespace, label))
}

impl Groups {
    /// The counts of a group that is known.
    pub(crate) fn get(&self, key: GroupKey) -> Option<&GroupCounts> {
        self.groups.get(&key).map(|group| &group.counts)
    }

    /// Marks a group as used; false when it must be counted first.
    pub(crate) fn touch(&mut self, key: GroupKey) -> bool {
        self.clock += 1;
        let clock = self.clock;
        self.groups
            .get_mut(&key)
            .map(|group| group.used = clock)
            .is_some()
    }

    /// Adds a group with its counts so far.
    pub(crate) fn insert(
        &mut self,
        key: GroupKey,
        namespace: &Arc<str>,
        selector: LabelSelector,
        nodes: &[NodeId],
    ) {
        if self.groups.len() >= GROUPS_MAX {
            self.drop_oldest();
        }
        let mut counts = GroupCounts::new();
        for node in nodes {
            *counts.entry(*node).or_insert(0) += 1;
        }
        let anchor = anchor(namespace, selector.match_labels.iter().next());
        self.by_anchor.entry(anchor).or_default().push(key);
        self.clock += 1;
        let group = Group {
            namespace: Arc::clone(namespace),
            selector,
            anchor,
            counts,
            used: self.clock,
        };
        self.groups.insert(key, group);
    }

    pub(super) fn account(&mut self, info: &PodInfo, node: NodeId, sign: i64) {
        if self.groups.is_empty() {
            return;
        }
        let namespace = &info.key.namespace;
        let labels = info.pod.metadata.labels.iter().map(Some).chain([None]);
        for label in labels {
            let Some(keys) = self.by_anchor.get(&anchor(namespace, label)) else {
                continue;
            };
            for key in keys {
                let Some(group) = self.groups.get_mut(key) else {
                    continue;
                };
                if !group.has(info) {
                    continue;
                }
                let count = group.counts.entry(node).or_insert(0);
                *count += sign;
                if *count <= 0 {
                    group.counts.remove(&node);
                }
            }
        }
    }

    pub(super) fn clear_node(&mut self, node: NodeId) {
        for group in self.groups.values_mut() {
            group.counts.remove(&node);
        }
    }

    fn drop_oldest(&mut self) {
        let oldest = self
            .groups
            .iter()
            .min_by_key(|(_, group)| group.used)
            .map(|(key, _)| *key);
        let Some(group) = oldest.and_then(|key| self.groups.remove(&key)) else {
            return;
        };
        if let (Some(keys), Some(oldest)) = (self.by_anchor.get_mut(&group.anchor), oldest) {
            keys.retain(|key| *key != oldest);
            if keys.is_empty() {
                self.by_anchor.remove(&group.anchor);
            }
        }
    }
}
