//! From a subject to the roles it holds, as an immutable snapshot of the cache.
//!
//! An update costs what changed, not what there is: the maps are persistent, and two snapshots of
//! the cache are compared by the parts they do not share.

use std::sync::Arc;

use imbl::HashMap;
use imbl::ordmap::DiffItem;
use serde_json::Value;

use super::rule::{PolicyRule, Role};
use crate::auth::User;
use crate::cache::{ObjMap, ResourceCache, WatchCache};
use crate::object::{Obj, ObjKey};
use crate::registry::Registry;
use crate::registry::rbac::GROUP;
use crate::tree;

/// Where roles and bindings come from; roles first.
const PLURALS: [&str; 4] = [
    "clusterroles",
    "roles",
    "clusterrolebindings",
    "rolebindings",
];

/// The cached resources that the index is made of.
#[derive(Debug)]
pub(super) struct Sources(Vec<Arc<ResourceCache>>);

impl Sources {
    pub(super) fn new(cache: &WatchCache, registry: &Registry) -> Self {
        let kinds = PLURALS
            .iter()
            .filter_map(|plural| registry.by_plural(GROUP, "v1", plural));
        Self(kinds.map(|kind| cache.of(&kind)).collect())
    }
}

/// One role held through one binding.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    binding: ObjKey,
    /// The role; without a namespace a cluster role.
    pub(super) role: ObjKey,
    /// Upstream's sentence for a decision that rests on it.
    pub(super) reason: Arc<str>,
}

/// What one subject holds.
#[derive(Debug, Clone, Default)]
struct Grants {
    cluster: Vec<Grant>,
    namespaces: HashMap<Arc<str>, Vec<Grant>>,
}

/// What is held, by the holder's name.
type Holders = HashMap<Arc<str>, Arc<Grants>>;

/// The snapshot.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Change count and content of each source that this is made of.
    seen: Vec<(u64, ObjMap)>,
    roles: HashMap<ObjKey, Arc<Role>>,
    users: Holders,
    groups: Holders,
}

impl Index {
    pub(super) fn is_current(&self, sources: &Sources) -> bool {
        self.seen.len() == sources.0.len()
            && self
                .seen
                .iter()
                .zip(&sources.0)
                .all(|((seen, _), source)| *seen == source.version())
    }

    /// This index with everything that changed since.
    pub(super) fn updated(&self, sources: &Sources) -> Self {
        let mut next = Self {
            seen: Vec::with_capacity(sources.0.len()),
            roles: self.roles.clone(),
            users: self.users.clone(),
            groups: self.groups.clone(),
        };
        let nothing = ObjMap::new();
        for (at, source) in sources.0.iter().enumerate() {
            // The count first: a change between the two is seen again, never missed.
            let version = source.version();
            let objects = source.snapshot();
            let before = self.seen.get(at).map_or(&nothing, |(_, objects)| objects);
            for change in before.diff(&objects) {
                let (old, new) = match change {
                    DiffItem::Add(_, new) => (None, Some(new)),
                    DiffItem::Update { old, new } => (Some(old.1), Some(new.1)),
                    DiffItem::Remove(_, old) => (Some(old), None),
                };
                next.take(source.kind.kind, old, new);
            }
            next.seen.push((version, objects));
        }
        next
    }

    fn take(&mut self, kind: &str, old: Option<&Arc<Obj>>, new: Option<&Arc<Obj>>) {
        if kind.ends_with("Role") {
            match (old, new) {
                (_, Some(new)) => {
                    let role = Role::new(PolicyRule::all_of(&new.value()));
                    self.roles.insert(new.key.clone(), Arc::new(role));
                }
                (Some(old), None) => {
                    self.roles.remove(&old.key);
                }
                (None, None) => {}
            }
            return;
        }
        if let Some(old) = old {
            let value = old.value();
            for subject in tree::list(&value, &["subjects"]) {
                self.withdraw(&old.key, subject);
            }
        }
        if let Some(new) = new {
            let value = new.value();
            for subject in tree::list(&value, &["subjects"]) {
                self.give(kind, &new.key, &value, subject);
            }
        }
    }

    fn give(&mut self, kind: &str, binding: &ObjKey, value: &Value, subject: &Value) {
        let Some((holders, name)) = self.holders(&binding.namespace, subject) else {
            return;
        };
        let role_kind = tree::text(value, &["roleRef", "kind"]);
        let role_name = tree::text(value, &["roleRef", "name"]);
        let namespace = if role_kind == "Role" {
            &*binding.namespace
        } else {
            ""
        };
        let grant = Grant {
            binding: binding.clone(),
            role: ObjKey::new(namespace, role_name),
            reason: reason(kind, binding, role_kind, role_name, subject),
        };
        let grants = Arc::make_mut(holders.entry(name).or_default());
        if binding.namespace.is_empty() {
            grants.cluster.push(grant);
        } else {
            let list = grants
                .namespaces
                .entry(Arc::clone(&binding.namespace))
                .or_default();
            list.push(grant);
        }
    }

    fn withdraw(&mut self, binding: &ObjKey, subject: &Value) {
        let Some((holders, name)) = self.holders(&binding.namespace, subject) else {
            return;
        };
        let Some(grants) = holders.get_mut(&name) else {
            return;
        };
        let grants = Arc::make_mut(grants);
        grants.cluster.retain(|grant| grant.binding != *binding);
        if let Some(list) = grants.namespaces.get_mut(&binding.namespace) {
            list.retain(|grant| grant.binding != *binding);
            if list.is_empty() {
                grants.namespaces.remove(&binding.namespace);
            }
        }
        if grants.cluster.is_empty() && grants.namespaces.is_empty() {
            holders.remove(&name);
        }
    }

    /// The map and name that a subject of a binding in `namespace` is looked up by.
    fn holders(&mut self, namespace: &str, subject: &Value) -> Option<(&mut Holders, Arc<str>)> {
        let name = tree::text(subject, &["name"]);
        match tree::text(subject, &["kind"]) {
            "User" => Some((&mut self.users, Arc::from(name))),
            "Group" => Some((&mut self.groups, Arc::from(name))),
            "ServiceAccount" => {
                let own = tree::text(subject, &["namespace"]);
                let namespace = if own.is_empty() { namespace } else { own };
                let user = format!("system:serviceaccount:{namespace}:{name}");
                Some((&mut self.users, Arc::from(user)))
            }
            _ => None,
        }
    }

    pub(super) fn role(&self, key: &ObjKey) -> Option<&Arc<Role>> {
        self.roles.get(key)
    }

    /// All that `user` holds in the cluster and, unless it is empty, in `namespace`.
    pub(super) fn grants_of<'a>(
        &'a self,
        user: &'a User,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Grant> {
        let own = self.users.get(user.name.as_str());
        let groups = user
            .groups
            .iter()
            .filter_map(|group| self.groups.get(group.as_str()));
        own.into_iter().chain(groups).flat_map(move |grants| {
            let local = if namespace.is_empty() {
                None
            } else {
                grants.namespaces.get(namespace)
            };
            grants.cluster.iter().chain(local.into_iter().flatten())
        })
    }
}

fn reason(
    kind: &str,
    binding: &ObjKey,
    role_kind: &str,
    role_name: &str,
    subject: &Value,
) -> Arc<str> {
    let place = if binding.namespace.is_empty() {
        binding.name.to_string()
    } else {
        format!("{}/{}", binding.name, binding.namespace)
    };
    let holder = tree::text(subject, &["name"]);
    let holder = match tree::text(subject, &["namespace"]) {
        "" => format!("{holder:?}"),
        namespace => format!("{:?}", format!("{holder}/{namespace}")),
    };
    let text = format!(
        "RBAC: allowed by {kind} {place:?} of {role_kind} {role_name:?} to {} {holder}",
        tree::text(subject, &["kind"])
    );
    Arc::from(text)
}
