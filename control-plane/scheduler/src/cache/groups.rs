//! Pods counted for each selection that spreading and pod affinity ask about, kept up to date pod by pod.
//!
//! A group is the pods that all of a few selections mean. It is counted once, when first asked for, and
//! then follows every pod that comes or goes. A pod finds its groups by its labels, not by trying every
//! selector.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use super::counts::Counts;
use super::nodes::NodeId;
use super::topology::Topologies;
use crate::pod_info::PodInfo;
use crate::selection::{Anchor, Namespaces, Selection, anchors_of};

/// Groups kept at most; the longest unused is dropped and counted anew when asked for again.
pub(crate) const GROUPS_MAX: usize = 4096;

/// The identity of a group.
pub(crate) type GroupKey = u64;

/// Whether pods that are being deleted count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Leaving {
    Count,
    DoNotCount,
}

#[derive(Debug)]
struct Group {
    selections: Vec<Selection>,
    leaving: Leaving,
    counts: Counts,
    used: u64,
}

impl Group {
    fn has(&self, info: &PodInfo, namespaces: &Namespaces) -> bool {
        self.selections
            .iter()
            .all(|selection| selection.has(info, namespaces))
    }

    fn anchors(&self) -> Vec<Anchor> {
        self.selections
            .first()
            .map(Selection::anchors)
            .unwrap_or_default()
    }
}

/// A pod and whether it is being deleted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted<'a> {
    pub(crate) info: &'a PodInfo,
    pub(crate) leaving: bool,
}

/// All groups.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    groups: HashMap<GroupKey, Group>,
    by_anchor: HashMap<Anchor, Vec<GroupKey>>,
    clock: u64,
}

/// The identity of the group of the pods that all `selections` mean.
pub(crate) fn group_key<'a>(
    selections: impl IntoIterator<Item = &'a Selection>,
    leaving: Leaving,
) -> GroupKey {
    let mut hasher = DefaultHasher::new();
    leaving.hash(&mut hasher);
    for selection in selections {
        selection.identity().hash(&mut hasher);
    }
    hasher.finish()
}

impl Groups {
    /// The counts of a group that is known.
    pub(crate) fn get(&self, key: GroupKey) -> Option<&Counts> {
        self.groups.get(&key).map(|group| &group.counts)
    }

    /// Makes sure that a known group has sums over the domains of a topology.
    pub(crate) fn ensure_sums(
        &mut self,
        key: GroupKey,
        topology: &Arc<str>,
        topologies: &Topologies,
    ) {
        if let Some(group) = self.groups.get_mut(&key) {
            group.counts.ensure(topology, topologies);
        }
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

    /// Adds a group with the nodes of its pods so far.
    pub(crate) fn insert(
        &mut self,
        key: GroupKey,
        selections: Vec<Selection>,
        leaving: Leaving,
        nodes: &[NodeId],
    ) {
        if self.groups.len() >= GROUPS_MAX {
            self.drop_oldest();
        }
        let mut counts = Counts::default();
        for node in nodes {
            counts.add(*node, 1, &Topologies::default());
        }
        self.clock += 1;
        let group = Group {
            selections,
            leaving,
            counts,
            used: self.clock,
        };
        for anchor in group.anchors() {
            self.by_anchor.entry(anchor).or_default().push(key);
        }
        self.groups.insert(key, group);
    }

    pub(super) fn account(
        &mut self,
        pod: Counted<'_>,
        node: NodeId,
        sign: i64,
        namespaces: &Namespaces,
        topologies: &Topologies,
    ) {
        if self.groups.is_empty() {
            return;
        }
        for anchor in anchors_of(pod.info) {
            for key in self.by_anchor.get(&anchor).into_iter().flatten() {
                let Some(group) = self.groups.get_mut(key) else {
                    continue;
                };
                let counts = !pod.leaving || group.leaving == Leaving::Count;
                if counts && group.has(pod.info, namespaces) {
                    group.counts.add(node, sign, topologies);
                }
            }
        }
    }

    pub(super) fn remove_node(&mut self, node: NodeId) {
        for group in self.groups.values_mut() {
            group.counts.remove_node(node);
        }
    }

    pub(super) fn relabeled(&mut self, node: NodeId) {
        for group in self.groups.values_mut() {
            group.counts.relabeled(node);
        }
    }

    /// Labels of a namespace have changed: groups that depend on them are counted anew.
    pub(super) fn namespaces_changed(&mut self) {
        let follows = |group: &Group| group.selections.iter().any(Selection::follows_namespaces);
        let outdated: Vec<GroupKey> = self
            .groups
            .iter()
            .filter(|(_, group)| follows(group))
            .map(|(key, _)| *key)
            .collect();
        for key in outdated {
            self.remove(key);
        }
    }

    fn drop_oldest(&mut self) {
        let oldest = self
            .groups
            .iter()
            .min_by_key(|(_, group)| group.used)
            .map(|(key, _)| *key);
        if let Some(key) = oldest {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: GroupKey) {
        let Some(group) = self.groups.remove(&key) else {
            return;
        };
        for anchor in group.anchors() {
            if let Some(keys) = self.by_anchor.get_mut(&anchor) {
                keys.retain(|other| *other != key);
                if keys.is_empty() {
                    self.by_anchor.remove(&anchor);
                }
            }
        }
    }
}
