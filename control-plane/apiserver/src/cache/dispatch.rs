//! Who is woken by which change: watchers of one namespace, one object or one field's value sleep
//! through all others.
//!
//! A thousand nodes that watch their own pods cost an event one lookup, not a thousand wake-ups; and
//! what does not concern a watcher never pushes it off the ring. Watchers of everything are not here:
//! they wait for the ring's tail.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

use super::filter::{Field, Filter};
use crate::object::{Obj, ObjKey};

/// No event is pending.
const NONE: u64 = u64::MAX;

/// The narrowest thing that tells which events can concern a watcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Interest {
    /// One object.
    Object(ObjKey),
    /// Objects that have, or had, this value in the kind's selectable field of this index.
    Field(usize, Box<str>),
    /// One namespace.
    Namespace(Box<str>),
}

impl Interest {
    /// That of `filter`; `None` when everything may concern it.
    pub(super) fn of(filter: &Filter) -> Option<Self> {
        if let (Some(namespace), Some(name)) = (&filter.namespace, filter.name()) {
            return Some(Self::Object(ObjKey::new(namespace, name)));
        }
        let value = filter.fields.iter().find_map(|requirement| {
            match (requirement.field, requirement.equal) {
                (Field::Kind(at), true) => Some((at, requirement.value.clone())),
                _ => None,
            }
        });
        if let Some((at, value)) = value {
            return Some(Self::Field(at, value));
        }
        filter.namespace.clone().map(Self::Namespace)
    }
}

/// A watcher that sleeps until something concerns it.
#[derive(Debug)]
pub(super) struct Sleeper {
    /// Sequence number of the first event that concerns it and that it has not looked at.
    first: AtomicU64,
    wake: Notify,
}

impl Sleeper {
    fn rouse(&self, seq: u64) {
        if self.first.fetch_min(seq, Ordering::AcqRel) == NONE {
            self.wake.notify_one();
        }
    }

    /// Takes the first pending event's number. Call it under the ring's lock.
    pub(super) fn take(&self) -> Option<u64> {
        Some(self.first.swap(NONE, Ordering::AcqRel)).filter(|first| *first != NONE)
    }

    /// Whether something is pending.
    pub(super) fn is_roused(&self) -> bool {
        self.first.load(Ordering::Acquire) != NONE
    }

    /// Puts back what was not looked at. Call it under the ring's lock.
    pub(super) fn put_back(&self, seq: u64) {
        self.first.fetch_min(seq, Ordering::AcqRel);
    }

    /// Waits until something concerns it. Cancel safe: what is pending stays pending.
    pub(super) async fn roused(&self) {
        while self.first.load(Ordering::Acquire) == NONE {
            self.wake.notified().await;
        }
    }
}

/// Watchers by a number of their own.
type Group = HashMap<u64, Arc<Sleeper>>;

/// All sleepers of one resource.
#[derive(Debug, Default)]
pub(super) struct Dispatch {
    next: u64,
    objects: HashMap<ObjKey, Group>,
    namespaces: HashMap<Box<str>, Group>,
    /// By the field's index; few fields are ever selected on.
    fields: Vec<(usize, HashMap<Box<str>, Group>)>,
}

impl Dispatch {
    /// Adds a sleeper; its number takes it away again.
    pub(super) fn add(&mut self, interest: &Interest) -> (u64, Arc<Sleeper>) {
        self.next += 1;
        let sleeper = Arc::new(Sleeper {
            first: AtomicU64::new(NONE),
            wake: Notify::new(),
        });
        let group = match interest {
            Interest::Object(key) => self.objects.entry(key.clone()).or_default(),
            Interest::Namespace(namespace) => self.namespaces.entry(namespace.clone()).or_default(),
            Interest::Field(at, value) => {
                let slot = match self.fields.iter().position(|(known, _)| known == at) {
                    Some(slot) => slot,
                    None => {
                        self.fields.push((*at, HashMap::new()));
                        self.fields.len() - 1
                    }
                };
                self.fields[slot].1.entry(value.clone()).or_default()
            }
        };
        group.insert(self.next, Arc::clone(&sleeper));
        (self.next, sleeper)
    }

    pub(super) fn remove(&mut self, interest: &Interest, number: u64) {
        match interest {
            Interest::Object(key) => leave(&mut self.objects, key, number),
            Interest::Namespace(namespace) => leave(&mut self.namespaces, namespace, number),
            Interest::Field(at, value) => {
                if let Some((_, groups)) = self.fields.iter_mut().find(|(known, _)| known == at) {
                    leave(groups, value, number);
                }
            }
        }
    }

    /// How many sleep until the same thing happens.
    pub(super) fn count(&self, interest: &Interest) -> usize {
        let group = match interest {
            Interest::Object(key) => self.objects.get(key),
            Interest::Namespace(namespace) => self.namespaces.get(namespace),
            Interest::Field(at, value) => {
                let field = self.fields.iter().find(|(known, _)| known == at);
                field.and_then(|(_, groups)| groups.get(value))
            }
        };
        group.map_or(0, HashMap::len)
    }

    /// Rouses whom the event `seq` can concern.
    pub(super) fn rouse(&self, seq: u64, obj: &Obj, prev: Option<&Obj>) {
        let rouse = |group: Option<&Group>| {
            for sleeper in group.into_iter().flat_map(HashMap::values) {
                sleeper.rouse(seq);
            }
        };
        if !self.objects.is_empty() {
            rouse(self.objects.get(&obj.key));
        }
        if !self.namespaces.is_empty() {
            rouse(self.namespaces.get(&*obj.key.namespace));
        }
        for (at, groups) in &self.fields {
            let value = |obj: &Obj| obj.fields.get(*at).cloned().unwrap_or_default();
            let now = value(obj);
            rouse(groups.get(&now));
            let before = prev.map(value).filter(|before| *before != now);
            rouse(before.and_then(|before| groups.get(&before)));
        }
    }

    /// Rouses everybody: the ring begins anew.
    pub(super) fn rouse_all(&self) {
        let fields = self.fields.iter().flat_map(|(_, groups)| groups.values());
        let groups = self.objects.values().chain(self.namespaces.values());
        for sleeper in groups.chain(fields).flat_map(HashMap::values) {
            sleeper.rouse(0);
        }
    }
}

fn leave<K, Q>(groups: &mut HashMap<K, Group>, key: &Q, number: u64)
where
    K: std::borrow::Borrow<Q> + std::hash::Hash + Eq,
    Q: std::hash::Hash + Eq + ?Sized,
{
    if let Some(group) = groups.get_mut(key) {
        group.remove(&number);
        if group.is_empty() {
            groups.remove(key);
        }
    }
}
