//! The ownership graph: of every served kind, the objects that have owners or wait for dependents.
//!
//! Other objects are not held: whether an owner exists is asked of the API. One writer a kind
//! (`follow.rs`). Whatever a change may concern is put in the queue after the graph has it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use control_plane_client::{ObjectKey, Resource, Scope, WorkQueue};
use parking_lot::RwLock;
use proto_api::types::meta::v1::OwnerReference;

use super::plan::{FOREGROUND, Item, ORPHAN};

/// What the collector works on.
pub(super) type Key = (Resource, ObjectKey);

/// All kinds together. Clones share.
#[derive(Debug, Clone)]
pub(super) struct Graph {
    state: Arc<RwLock<State>>,
    queue: WorkQueue<Key>,
}

#[derive(Debug, Default)]
struct State {
    items: HashMap<Key, Item>,
    /// Objects by the uid of an owner.
    dependents: HashMap<String, HashSet<Key>>,
    /// The kinds that are served.
    resources: Vec<Resource>,
}

impl State {
    /// Holds `item` if it matters; returns what was held of it.
    fn put(&mut self, item: Item) -> Option<Item> {
        let key = (item.resource, item.key.clone());
        let before = self.take(&key);
        if item.owners.is_empty() && !waits(&item) {
            return before;
        }
        for owner in &item.owners {
            self.dependents
                .entry(owner.uid.clone())
                .or_default()
                .insert(key.clone());
        }
        self.items.insert(key, item);
        before
    }

    fn take(&mut self, key: &Key) -> Option<Item> {
        let item = self.items.remove(key)?;
        for owner in &item.owners {
            if let Some(keys) = self.dependents.get_mut(&owner.uid) {
                keys.remove(key);
                if keys.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
        Some(item)
    }

    fn dependents(&self, uid: &str) -> Vec<Key> {
        let keys = self.dependents.get(uid).filter(|_| !uid.is_empty());
        keys.into_iter().flatten().cloned().collect()
    }

    fn find(&self, group: &str, kind: &str) -> Option<Resource> {
        self.resources
            .iter()
            .copied()
            .find(|resource| resource.group == group && resource.kind == kind)
    }

    fn owner_key(&self, owner: &OwnerReference, namespace: &Arc<str>) -> Option<Key> {
        let group = owner
            .api_version
            .split_once('/')
            .map_or("", |(group, _)| group);
        let resource = self.find(group, &owner.kind)?;
        let namespace = match resource.scope {
            Scope::Namespaced => Arc::clone(namespace),
            Scope::Cluster => Arc::from(""),
        };
        Some((resource, ObjectKey::new(namespace, owner.name.as_str())))
    }
}

impl Graph {
    pub(super) fn new(queue: WorkQueue<Key>) -> Self {
        Self {
            state: Arc::default(),
            queue,
        }
    }

    pub(super) fn get(&self, resource: Resource, key: &ObjectKey) -> Option<Item> {
        self.state
            .read()
            .items
            .get(&(resource, key.clone()))
            .cloned()
    }

    pub(super) fn dependents(&self, uid: &str) -> Vec<Item> {
        let state = self.state.read();
        let keys = state.dependents(uid);
        keys.iter()
            .filter_map(|key| state.items.get(key).cloned())
            .collect()
    }

    /// Everything that has an owner, or waits.
    pub(super) fn held(&self) -> Vec<Key> {
        self.state.read().items.keys().cloned().collect()
    }

    /// Where an owner is found; `None` for kinds that are not served.
    pub(super) fn owner_key(&self, owner: &OwnerReference, namespace: &Arc<str>) -> Option<Key> {
        self.state.read().owner_key(owner, namespace)
    }

    /// The kinds that are served from now on; what was held of others is forgotten, without a
    /// judgement on what depends on it.
    pub(super) fn serve(&self, resources: Vec<Resource>) {
        let mut state = self.state.write();
        let gone: Vec<Key> = state
            .items
            .keys()
            .filter(|(resource, _)| !resources.contains(resource))
            .cloned()
            .collect();
        for key in gone {
            state.take(&key);
        }
        state.resources = resources;
    }

    /// All objects of a kind, as listed.
    pub(super) fn replace(&self, resource: Resource, items: Vec<Item>) {
        let gone: Vec<Item> = {
            let mut state = self.state.write();
            let listed: HashSet<&ObjectKey> = items.iter().map(|item| &item.key).collect();
            let gone: Vec<Key> = state
                .items
                .keys()
                .filter(|(of, key)| *of == resource && !listed.contains(key))
                .cloned()
                .collect();
            gone.iter().filter_map(|key| state.take(key)).collect()
        };
        for item in gone {
            self.wake_gone(&item);
        }
        for item in items {
            self.put(item);
        }
    }

    /// An object is new or has changed.
    pub(super) fn put(&self, item: Item) {
        let key = (item.resource, item.key.clone());
        let (owners, waiting) = (item.owners.clone(), waits(&item));
        let uid = item.uid.clone();
        let before = self.state.write().put(item);
        let new_owners = before
            .as_ref()
            .map_or(!owners.is_empty(), |old| old.owners != owners);
        let waits_now = waiting && !before.as_ref().is_some_and(waits);
        // Before the queue is told, so that who works on it finds the change.
        if new_owners && !owners.is_empty() || waits_now {
            self.queue.add(key);
        }
        if waits_now {
            self.wake_dependents(&uid);
        }
    }

    /// An object is gone; its last state.
    pub(super) fn remove(&self, item: &Item) {
        self.state.write().take(&(item.resource, item.key.clone()));
        self.wake_gone(item);
    }

    fn wake_gone(&self, item: &Item) {
        self.wake_dependents(&item.uid);
        // An owner may have waited for just this one.
        for owner in &item.owners {
            if let Some((resource, key)) = self.owner_key(owner, &item.key.namespace)
                && self.get(resource, &key).is_some()
            {
                self.queue.add((resource, key));
            }
        }
    }

    fn wake_dependents(&self, uid: &str) {
        let dependents = self.state.read().dependents(uid);
        for key in dependents {
            self.queue.add(key);
        }
    }
}

/// Whether the object's deletion waits for the collector.
fn waits(item: &Item) -> bool {
    item.holds(FOREGROUND) || item.holds(ORPHAN)
}
