//! The shared store of one resource: what the watch has shown so far, decoded once.
//!
//! Owns: a persistent map of objects and one ordered set of index terms beside it. One writer (the
//! reflector) changes it; a reader clones a snapshot, which costs two pointers and never changes under
//! it. Index terms are 64-bit hashes, and every query checks its hits against the object, so an
//! equal hash of another term costs a comparison, never a wrong answer.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::{Bound, Deref};
use std::sync::{Arc, LazyLock};

use imbl::{OrdMap, OrdSet};

use crate::api::ObjectKey;
use crate::kind::Kind;

#[cfg(test)]
mod tests;

/// An object in the store: its identity, its revision and the decoded value.
#[derive(Debug)]
pub struct Cached<K> {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The object's resourceVersion.
    pub revision: u64,
    /// The typed object.
    pub value: K,
}

impl<K> Deref for Cached<K> {
    type Target = K;
    fn deref(&self) -> &K {
        &self.value
    }
}

/// A consistent state of one resource.
#[derive(Debug)]
pub struct Snapshot<K> {
    objects: OrdMap<ObjectKey, Arc<Cached<K>>>,
    terms: OrdSet<(u64, ObjectKey)>,
    revision: u64,
}

impl<K> Clone for Snapshot<K> {
    fn clone(&self) -> Self {
        Self {
            objects: self.objects.clone(),
            terms: self.terms.clone(),
            revision: self.revision,
        }
    }
}

impl<K> Default for Snapshot<K> {
    fn default() -> Self {
        Self {
            objects: OrdMap::new(),
            terms: OrdSet::new(),
            revision: 0,
        }
    }
}

static EMPTY: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(""));

#[derive(Hash)]
enum Term<'a> {
    Owner(&'a str),
    Node(&'a str),
    Label(&'a str, &'a str, &'a str),
}

impl Term<'_> {
    fn hash64(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

impl<K: Kind> Snapshot<K> {
    /// Revision up to which nothing is missing.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Number of objects.
    #[must_use]
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is no object.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// The object of this key. O(log n).
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<&Arc<Cached<K>>> {
        self.objects.get(key)
    }

    /// Every object in key order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Cached<K>>> {
        self.objects.values()
    }

    /// The objects of one namespace in name order. O(log n + hits).
    pub fn in_namespace<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Cached<K>>> {
        let from = ObjectKey {
            namespace: Arc::from(namespace),
            name: Arc::clone(&EMPTY),
        };
        self.objects
            .range((Bound::Included(from), Bound::Unbounded))
            .take_while(move |(key, _)| &*key.namespace == namespace)
            .map(|(_, cached)| cached)
    }

    /// The objects with an owner reference to `uid`. O(log n + hits).
    pub fn owned_by<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Arc<Cached<K>>> {
        self.by_term(Term::Owner(uid).hash64())
            .filter(move |cached| {
                cached
                    .metadata()
                    .owner_references
                    .iter()
                    .any(|owner| owner.uid == uid)
            })
    }

    /// The objects on `node` (pods by `spec.nodeName`). O(log n + hits).
    pub fn on_node<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Arc<Cached<K>>> {
        self.by_term(Term::Node(node).hash64())
            .filter(move |cached| cached.value.node() == Some(node))
    }

    /// The objects of `namespace` that carry every one of these labels; all of them when there is no
    /// label. Only kinds with [`Kind::LABEL_INDEX`] answer from the index, at the cost of the rarest
    /// label; the others scan their namespace.
    pub fn with_labels<'a>(
        &'a self,
        namespace: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> Box<dyn Iterator<Item = &'a Arc<Cached<K>>> + 'a> {
        let carries = move |cached: &&Arc<Cached<K>>| {
            let own = &cached.metadata().labels;
            labels
                .iter()
                .all(|(key, value)| own.get(*key).is_some_and(|own| own == value))
        };
        let rarest = if K::LABEL_INDEX {
            self.rarest(namespace, labels)
        } else {
            None
        };
        match rarest {
            Some((key, value)) => Box::new(
                self.by_term(Term::Label(namespace, key, value).hash64())
                    .filter(move |cached| &*cached.key.namespace == namespace)
                    .filter(carries),
            ),
            None => Box::new(self.in_namespace(namespace).filter(carries)),
        }
    }

    /// The label with the fewest hits, counting no further than the best so far.
    fn rarest<'a>(
        &self,
        namespace: &str,
        labels: &'a [(&'a str, &'a str)],
    ) -> Option<(&'a str, &'a str)> {
        let mut best = None;
        let mut fewest = usize::MAX;
        for (key, value) in labels {
            let term = Term::Label(namespace, key, value).hash64();
            let hits = self.by_term(term).take(fewest).count();
            if hits < fewest {
                fewest = hits;
                best = Some((*key, *value));
            }
        }
        best
    }

    fn by_term(&self, hash: u64) -> impl Iterator<Item = &Arc<Cached<K>>> {
        let first = ObjectKey {
            namespace: Arc::clone(&EMPTY),
            name: Arc::clone(&EMPTY),
        };
        self.terms
            .range((Bound::Included((hash, first)), Bound::Unbounded))
            .take_while(move |(term, _)| *term == hash)
            .filter_map(|(_, key)| self.objects.get(key))
    }

    /// Puts an object in, and gives back what it replaced. An older revision than the present one is
    /// refused (`Err` holds it back): watches and lists may overlap.
    pub(crate) fn put(&mut self, cached: Arc<Cached<K>>) -> Put<K> {
        let old = self.objects.get(&cached.key).cloned();
        if let Some(old) = &old {
            if old.revision >= cached.revision {
                return Put::Stale;
            }
            self.remove_terms(old);
        }
        self.insert_terms(&cached);
        self.revision = self.revision.max(cached.revision);
        self.objects.insert(cached.key.clone(), cached);
        old.map_or(Put::Added, Put::Replaced)
    }

    /// Takes an object out.
    pub(crate) fn remove(&mut self, key: &ObjectKey, revision: u64) -> Option<Arc<Cached<K>>> {
        self.revision = self.revision.max(revision);
        let old = self.objects.remove(key)?;
        self.remove_terms(&old);
        Some(old)
    }

    /// Nothing before `revision` is missing.
    pub(crate) fn advance(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    fn insert_terms(&mut self, cached: &Cached<K>) {
        for term in terms(cached) {
            self.terms.insert((term, cached.key.clone()));
        }
    }

    fn remove_terms(&mut self, cached: &Cached<K>) {
        for term in terms(cached) {
            self.terms.remove(&(term, cached.key.clone()));
        }
    }
}

/// What [`Snapshot::put`] did.
pub(crate) enum Put<K> {
    Added,
    Replaced(Arc<Cached<K>>),
    Stale,
}

fn terms<K: Kind>(cached: &Cached<K>) -> Vec<u64> {
    let metadata = cached.metadata();
    let owners = metadata
        .owner_references
        .iter()
        .map(|owner| Term::Owner(&owner.uid).hash64());
    let node = cached.value.node().map(|node| Term::Node(node).hash64());
    let mut all: Vec<u64> = owners.chain(node).collect();
    if K::LABEL_INDEX {
        let namespace = &cached.key.namespace;
        all.extend(
            metadata
                .labels
                .iter()
                .map(|(key, value)| Term::Label(namespace, key, value).hash64()),
        );
    }
    all
}
