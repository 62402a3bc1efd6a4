//! The index: every item that a node may want, each at its newest change number.
//!
//! A change takes the next number and moves its key to it, so "what is new since number N" is one
//! range walk in which each key appears once: a slow node gets the newest versions of what changed,
//! not a queue, and costs no memory here. Removed keys stay as tombstones for a while; a node that was
//! away for longer gets a snapshot. Cluster-wide items have one list; items for one node (its pods
//! and what they refer to) have a list a node.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::Mutex;
use proto::agent::v1 as pb;
use tokio::sync::watch;

use crate::item::{Item, ItemKey, Source, references};

/// Removed cluster-wide keys that are remembered.
const TOMBSTONES_MAX: usize = 65_536;
/// Removed keys that are remembered for one node.
const NODE_TOMBSTONES_MAX: usize = 4_096;

/// Keys in the order of their newest change.
#[derive(Debug, Default)]
struct ChangeList {
    order: BTreeMap<u64, ItemKey>,
    at: HashMap<ItemKey, u64>,
    removed: BTreeSet<u64>,
    /// Changes at or below this number may have been forgotten.
    floor: u64,
}

impl ChangeList {
    fn touch(&mut self, number: u64, key: ItemKey, removed: bool, tombstones_max: usize) {
        if let Some(old) = self.at.insert(key.clone(), number) {
            self.order.remove(&old);
            self.removed.remove(&old);
        }
        self.order.insert(number, key);
        if removed {
            self.removed.insert(number);
        }
        while self.removed.len() > tombstones_max {
            let Some(oldest) = self.removed.pop_first() else {
                break;
            };
            if let Some(key) = self.order.remove(&oldest) {
                self.at.remove(&key);
            }
            self.floor = oldest;
        }
    }

    fn after(&self, number: u64) -> impl Iterator<Item = (u64, &ItemKey)> {
        let range = (Bound::Excluded(number), Bound::Unbounded);
        self.order.range(range).map(|(number, key)| (*number, key))
    }
}

/// What one node wants beside the cluster-wide items.
#[derive(Debug)]
struct NodeList {
    changes: ChangeList,
    pods: HashSet<ItemKey>,
    /// How many of the node's pods refer to a config map or secret.
    wanted: HashMap<ItemKey, usize>,
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    newest: u64,
    items: HashMap<ItemKey, Arc<Item>>,
    cluster: ChangeList,
    nodes: HashMap<Arc<str>, NodeList>,
    /// Nodes that want a config map or secret.
    wanting: HashMap<ItemKey, HashSet<Arc<str>>>,
    /// Where each pod is and what it refers to.
    pods: HashMap<ItemKey, (Arc<str>, BTreeSet<ItemKey>)>,
}

/// The index, shared by its feed and all streams.
#[derive(Debug, Default)]
pub struct Index {
    inner: Mutex<Inner>,
    cluster_newest: watch::Sender<u64>,
}

/// A part of what a node lacks.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    /// The node has everything up to this number once it applied the delta.
    pub(crate) upto: u64,
    /// Items to set.
    pub(crate) upserts: Vec<(ItemKey, Arc<Item>)>,
    /// Items to remove.
    pub(crate) removes: Vec<(ItemKey, u64)>,
    /// More is waiting after `upto`.
    pub(crate) more: bool,
}

/// What a stream waits on: a change for all nodes, or for its own.
#[derive(Debug)]
pub(crate) struct Wakers {
    pub(crate) cluster: watch::Receiver<u64>,
    pub(crate) node: watch::Receiver<u64>,
}

impl Inner {
    fn next(&mut self) -> u64 {
        self.newest += 1;
        self.newest
    }

    /// The list of `node`. A new list knows nothing of what was before it.
    fn list(&mut self, node: &Arc<str>) -> &mut NodeList {
        let floor = self.newest;
        self.nodes
            .entry(Arc::clone(node))
            .or_insert_with(|| NodeList {
                changes: ChangeList {
                    floor,
                    ..ChangeList::default()
                },
                pods: HashSet::new(),
                wanted: HashMap::new(),
                newest: watch::Sender::new(0),
            })
    }

    fn touch_node(&mut self, node: &Arc<str>, key: &ItemKey, removed: bool) {
        let number = self.next();
        let list = self.list(node);
        list.changes
            .touch(number, key.clone(), removed, NODE_TOMBSTONES_MAX);
        list.newest.send_replace(number);
    }

    fn want(&mut self, node: &Arc<str>, key: &ItemKey) {
        let list = self.list(node);
        let count = list.wanted.entry(key.clone()).or_insert(0);
        *count += 1;
        if *count == 1 {
            self.wanting
                .entry(key.clone())
                .or_default()
                .insert(Arc::clone(node));
            self.touch_node(node, key, false);
        }
    }

    fn unwant(&mut self, node: &Arc<str>, key: &ItemKey) {
        let Some(list) = self.nodes.get_mut(node) else {
            return;
        };
        let Some(count) = list.wanted.get_mut(key) else {
            return;
        };
        *count -= 1;
        if *count > 0 {
            return;
        }
        list.wanted.remove(key);
        if let Some(nodes) = self.wanting.get_mut(key) {
            nodes.remove(node);
            if nodes.is_empty() {
                self.wanting.remove(key);
            }
        }
        self.touch_node(node, key, true);
    }

    fn wants(&self, node: &str, key: &ItemKey) -> bool {
        let list = self.nodes.get(node);
        match key.kind {
            pb::Type::Pod => list.is_some_and(|list| list.pods.contains(key)),
            pb::Type::ConfigMap | pb::Type::Secret => {
                list.is_some_and(|list| list.wanted.contains_key(key))
            }
            pb::Type::Service
            | pb::Type::Endpoints
            | pb::Type::NodeRoute
            | pb::Type::Unspecified => true,
        }
    }
}

impl Index {
    /// Sets a pod, or removes it with `None`. A pod that is not bound to a node is nobody's.
    pub(crate) fn set_pod(&self, key: &ItemKey, pod: Option<Item>) {
        let mut inner = self.inner.lock();
        let now = pod.as_ref().and_then(|item| match item.source() {
            Source::Pod(pod) => {
                let node = pod
                    .spec
                    .as_ref()?
                    .node_name
                    .as_deref()
                    .filter(|name| !name.is_empty())?;
                Some((Arc::<str>::from(node), references(pod)))
            }
            Source::ConfigMap(_) | Source::Secret(_) | Source::Encoded(_) => None,
        });
        let before = inner.pods.get(key).cloned();
        // What the pod refers to goes first, so that it is there when the pod is.
        if let Some((node, wanted)) = &now {
            for reference in wanted {
                inner.want(node, reference);
            }
        }
        match pod {
            Some(item) if now.is_some() => inner.items.insert(key.clone(), Arc::new(item)),
            Some(_) | None => inner.items.remove(key),
        };
        if let Some((node, _)) = &now {
            inner.list(node).pods.insert(key.clone());
            inner.touch_node(node, key, false);
        }
        if let Some((node, wanted)) = before {
            if now.as_ref().is_none_or(|(there, _)| *there != node) {
                if let Some(list) = inner.nodes.get_mut(&node) {
                    list.pods.remove(key);
                }
                inner.touch_node(&node, key, true);
            }
            for reference in &wanted {
                inner.unwant(&node, reference);
            }
        }
        match now {
            Some(place) => inner.pods.insert(key.clone(), place),
            None => inner.pods.remove(key),
        };
    }

    /// Sets a config map or secret, or removes it with `None`; nodes that want it learn of it.
    pub(crate) fn set_configuration(&self, key: &ItemKey, item: Option<Item>) {
        let mut inner = self.inner.lock();
        let removed = item.is_none();
        match item {
            Some(item) => inner.items.insert(key.clone(), Arc::new(item)),
            None => inner.items.remove(key),
        };
        let nodes: Vec<Arc<str>> = inner
            .wanting
            .get(key)
            .into_iter()
            .flatten()
            .map(Arc::clone)
            .collect();
        for node in nodes {
            inner.touch_node(&node, key, removed);
        }
    }

    /// Sets a cluster-wide item, or removes it with `None`.
    pub(crate) fn set_cluster(&self, key: &ItemKey, item: Option<Item>) {
        let number = {
            let mut inner = self.inner.lock();
            let removed = item.is_none();
            match item {
                Some(item) => inner.items.insert(key.clone(), Arc::new(item)),
                None => inner.items.remove(key),
            };
            let number = inner.next();
            inner
                .cluster
                .touch(number, key.clone(), removed, TOMBSTONES_MAX);
            number
        };
        self.cluster_newest.send_replace(number);
    }

    /// Whether a node that has everything up to `number` can go on from there.
    pub(crate) fn can_resume(&self, node: &str, number: u64) -> bool {
        let inner = self.inner.lock();
        inner.nodes.get(node).is_some_and(|list| {
            number != 0
                && number <= inner.newest
                && number >= inner.cluster.floor.max(list.changes.floor)
        })
    }

    /// What `node` lacks after `number`, oldest change first, about `bytes_max` of bodies at most
    /// and one item at least.
    pub(crate) fn since(&self, node: &str, number: u64, bytes_max: usize) -> Delta {
        let inner = self.inner.lock();
        let empty = ChangeList::default();
        let own = inner.nodes.get(node).map_or(&empty, |list| &list.changes);
        let mut cluster = inner.cluster.after(number).peekable();
        let mut own = own.after(number).peekable();
        let mut delta = Delta {
            upto: inner.newest.max(number),
            ..Delta::default()
        };
        let mut bytes = 0;
        loop {
            let first_is_own = match (cluster.peek(), own.peek()) {
                (Some((a, _)), Some((b, _))) => b < a,
                (None, Some(_)) => true,
                (Some(_), None) => false,
                (None, None) => break,
            };
            let next = if first_is_own {
                own.peek()
            } else {
                cluster.peek()
            };
            let Some((at, key)) = next.map(|(at, key)| (*at, *key)) else {
                break;
            };
            match inner.items.get(key).filter(|_| inner.wants(node, key)) {
                Some(item) => {
                    let size = item.body().len();
                    if bytes + size > bytes_max && bytes > 0 {
                        delta.upto = at - 1;
                        delta.more = true;
                        break;
                    }
                    bytes += size;
                    delta.upserts.push((key.clone(), Arc::clone(item)));
                }
                None => delta.removes.push((key.clone(), at)),
            }
            if first_is_own {
                own.next()
            } else {
                cluster.next()
            };
        }
        delta
    }

    /// What the stream of `node` waits on.
    pub(crate) fn wakers(&self, node: &str) -> Wakers {
        let mut inner = self.inner.lock();
        let list = inner.list(&node.into());
        Wakers {
            cluster: self.cluster_newest.subscribe(),
            node: list.newest.subscribe(),
        }
    }

    /// Forgets a node that left the cluster.
    pub(crate) fn forget_node(&self, node: &str) {
        let mut inner = self.inner.lock();
        if inner
            .nodes
            .get(node)
            .is_some_and(|list| list.pods.is_empty())
        {
            inner.nodes.remove(node);
        }
    }
}

#[cfg(test)]
mod tests;
