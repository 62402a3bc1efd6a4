//! Keeps the registry and the cache in step with the stored definitions. Runs inside the cache's one
//! writer, between the change of a definition and the revision that tells of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use control_plane_apiextensions::Definition;
use serde_json::Value;
use tracing::{error, warn};

use super::kind::{Kinds, kinds};
use super::object;
use crate::cache::{ObjMap, ResourceCache};
use crate::object::{Obj, ObjKey, encode, parse_store_key};
use crate::registry::{Kind, Registry};

/// A stored object of a kind that is not known yet.
#[derive(Debug)]
pub(crate) struct Stray {
    /// Its key.
    pub(crate) key: String,
    /// Its encoding.
    pub(crate) value: Bytes,
    /// The revision it was committed with.
    pub(crate) rv: u64,
}

#[derive(Debug)]
struct Entry {
    /// What of the definition makes its kinds.
    spec: Value,
    /// The definition is being deleted.
    terminating: bool,
    kinds: Kinds,
    cache: Arc<ResourceCache>,
}

/// The definitions in force, by name.
#[derive(Debug, Default)]
pub(crate) struct Installed {
    entries: BTreeMap<String, Entry>,
}

impl Installed {
    /// Follows one definition; `None`: it is gone. Returns whether anything changed.
    pub(crate) fn follow(&mut self, name: &str, stored: Option<&Obj>, rv: u64) -> bool {
        let Some((spec, definition)) = stored.and_then(established) else {
            return self.remove(name);
        };
        let terminating = definition.terminating;
        let same = self.entries.get(name).filter(|entry| entry.spec == spec);
        if same.is_some_and(|entry| entry.terminating == terminating) {
            return false;
        }
        let same = same.is_some();
        let Some(kinds) = kinds(&definition) else {
            return self.remove(name);
        };
        if let Some(entry) = self.entries.get_mut(name).filter(|_| same) {
            // Watchers still see the objects go.
            entry.kinds = kinds;
            entry.terminating = terminating;
            return true;
        }
        let known = self.entries.get(name);
        let cache = Arc::new(ResourceCache::new(Arc::clone(&kinds.stored)));
        let before = known
            .map(|entry| entry.cache.snapshot())
            .unwrap_or_default();
        cache.reset(renewed(&kinds.stored, &before), rv);
        let entry = Entry {
            spec,
            terminating,
            kinds,
            cache,
        };
        if let Some(old) = self.entries.insert(name.to_owned(), entry) {
            old.cache.close();
        }
        true
    }

    /// Forgets all; watches end.
    pub(crate) fn clear(&mut self) {
        self.entries.values().for_each(|entry| entry.cache.close());
        self.entries.clear();
    }

    fn remove(&mut self, name: &str) -> bool {
        let removed = self.entries.remove(name);
        if let Some(entry) = &removed {
            entry.cache.close();
        }
        removed.is_some()
    }

    /// Puts the objects that were read before their kinds were known where they belong.
    pub(crate) fn place(&self, strays: &[Stray], rv: u64) {
        let mut maps: BTreeMap<&str, ObjMap> = BTreeMap::new();
        let mut lost = 0_usize;
        for stray in strays {
            let found =
                parse_store_key(&stray.key).and_then(|(group, plural, namespace, object)| {
                    let of = |kind: &Kind| kind.group == group && kind.plural == plural;
                    let (name, entry) = self.entries.iter().find(|(_, e)| of(&e.kinds.stored))?;
                    Some((name, entry, ObjKey::new(namespace, object)))
                });
            let Some((name, entry, key)) = found else {
                lost += 1;
                continue;
            };
            let kind = &entry.kinds.stored;
            match Obj::from_stored(key.clone(), &stray.value, stray.rv, |p| kind.read_fields(p)) {
                Ok(obj) => {
                    let obj = renew(kind, Arc::new(obj));
                    maps.entry(name).or_default().insert(key, obj);
                }
                Err(fault) => error!(key = stray.key, %fault, "stored object cannot be read"),
            }
        }
        for (name, entry) in &self.entries {
            entry
                .cache
                .reset(maps.remove(name.as_str()).unwrap_or_default(), rv);
        }
        if lost > 0 {
            warn!(
                objects = lost,
                "stored objects belong to no kind that is known"
            );
        }
    }

    /// Tells the registry.
    pub(crate) fn publish(&self, registry: &Registry) {
        let served = self.entries.values().flat_map(|entry| &entry.kinds.served);
        registry.set_custom(served.cloned().collect());
    }

    /// The caches of all kinds.
    pub(crate) fn caches(&self) -> impl Iterator<Item = &Arc<ResourceCache>> {
        self.entries.values().map(|entry| &entry.cache)
    }
}

/// The definition if it is in force, and its spec.
fn established(stored: &Obj) -> Option<(Value, Definition)> {
    let mut value = stored.value();
    match Definition::parse(&value) {
        Ok(definition) if definition.established => Some((value["spec"].take(), definition)),
        Ok(_) => None,
        Err(fault) => {
            error!(definition = %stored.key.name, %fault, "definition cannot be used");
            None
        }
    }
}

fn renewed(kind: &Arc<Kind>, objects: &ObjMap) -> ObjMap {
    objects
        .iter()
        .map(|(key, obj)| (key.clone(), renew(kind, Arc::clone(obj))))
        .collect()
}

/// The object as the kind's present schema has it: pruned and defaulted, at the same revision.
fn renew(kind: &Arc<Kind>, obj: Arc<Obj>) -> Arc<Obj> {
    let Some(custom) = &kind.custom else {
        return obj;
    };
    let before = obj.value();
    // Another version's schema is no measure; the object is converted when it is read.
    let foreign = kind
        .stored_version()
        .is_some_and(|stored| before["apiVersion"] != stored.api_version.as_str());
    if foreign {
        return obj;
    }
    let Ok((value, _)) = object::check(custom, before) else {
        return obj;
    };
    let Ok(stored) = encode(&value) else {
        return obj;
    };
    let made = Obj::from_stored(obj.key.clone(), &stored, obj.rv, |peek| {
        kind.read_fields(peek)
    });
    made.map_or(obj, Arc::new)
}
