//! Role-based access control: which role gives whom what.
//!
//! Owns: the index from subjects to roles, kept as an immutable snapshot that follows the cache.
//! A decision looks up the user and each group, never all bindings. Bindings and roles that were
//! written are in force when the write is answered: the index compares the cache's change counts
//! before it decides, and takes in what differs.

mod bootstrap;
mod controllers;
mod index;
mod policy;
mod rule;

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

pub(crate) use self::bootstrap::{follow, reconcile};
use self::index::{Index, Sources};
pub(super) use self::policy::node_rules;
pub use self::rule::PolicyRule;
pub(super) use self::rule::Role;
pub(crate) use self::rule::{compact, uncovered};
use super::{Attributes, Decision, User};
use crate::cache::WatchCache;
use crate::object::ObjKey;
use crate::registry::Registry;

/// Decides by roles.
#[derive(Debug)]
pub(crate) struct Rbac {
    sources: Sources,
    index: ArcSwap<Index>,
    /// Held by who brings the index up to date.
    updating: Mutex<()>,
}

impl Rbac {
    pub(super) fn new(cache: &WatchCache, registry: &Registry) -> Self {
        let sources = Sources::new(cache, registry);
        Self {
            sources,
            index: ArcSwap::from_pointee(Index::default()),
            updating: Mutex::new(()),
        }
    }

    /// The index as of now.
    fn current(&self) -> arc_swap::Guard<Arc<Index>> {
        let index = self.index.load();
        if index.is_current(&self.sources) {
            return index;
        }
        drop(index);
        let _updating = self.updating.lock();
        let index = self.index.load();
        if index.is_current(&self.sources) {
            return index;
        }
        self.index.store(Arc::new(index.updated(&self.sources)));
        self.index.load()
    }

    pub(super) fn authorize(&self, user: &User, attributes: &Attributes) -> Decision {
        let index = self.current();
        let found = index.grants_of(user, &attributes.namespace).find(|grant| {
            index
                .role(&grant.role)
                .is_some_and(|role| role.allows(attributes))
        });
        match found {
            Some(grant) => Decision::Allowed {
                reason: Arc::clone(&grant.reason),
            },
            None => Decision::denied(),
        }
    }

    pub(super) fn rules_of(&self, user: &User, namespace: &str) -> Vec<PolicyRule> {
        let index = self.current();
        let roles = index
            .grants_of(user, namespace)
            .filter_map(|grant| index.role(&grant.role));
        roles.flat_map(|role| role.rules().to_vec()).collect()
    }

    /// The rules of the role at `key` (no namespace: a ClusterRole); `None` when there is none.
    pub(crate) fn rules_of_role(&self, key: &ObjKey) -> Option<Vec<PolicyRule>> {
        let index = self.current();
        index.role(key).map(|role| role.rules().to_vec())
    }
}

#[cfg(test)]
mod matrix;
#[cfg(test)]
mod tests;
