//! Makes the maps say what the tables say, one changed service at a time.
//!
//! Wake, take the newest snapshot, compute which services differ, write them, report. Level-driven:
//! what could not be written stays dirty and is tried again until it is. Adding never waits;
//! taking away waits until the tables are complete. Time comes in as an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use imbl::ordmap::DiffItem;
use node_agent_datapath::abi::service::QUARANTINE_S;
use node_agent_datapath::maps::{FrontendKey, MapError, ServiceMaps};
use node_agent_state::{ObjectName, ServiceEntry, Snapshot};

use crate::ProxyConfig;
use crate::names::Names;
use crate::plan::{DesiredService, NodeFacts, ServiceKey, owned_addresses, plan};
use crate::restore::restore;
use crate::writer::{Frontends, Subtract, WriteError, Writer};

/// First and longest wait before a failed write is tried again.
const RETRY_MIN: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What one round did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Services written or taken away.
    pub changed: usize,
    /// Writes that failed; tried again.
    pub failed: usize,
    /// Services for which the maps have no room.
    pub without_room: usize,
    /// Everything of the snapshot is in force, but for services without room.
    pub applied: bool,
    /// When the next round is due even if nothing changes; in the caller's time.
    pub wake_at: Option<Duration>,
    /// The last error, for a status line.
    pub last_error: Option<String>,
}

/// The proxy's state. One per node; `M` is where it writes.
#[derive(Debug)]
pub struct Reconciler<M> {
    writer: Writer<M>,
    node: NodeFacts,
    seen: Arc<Snapshot>,
    in_sync: bool,
    desired: BTreeMap<ServiceKey, DesiredService>,
    /// Elements of each service, in its last plan.
    planned: BTreeMap<ObjectName, Vec<ServiceKey>>,
    /// Who wants a frontend. The first gets it.
    claims: BTreeMap<FrontendKey, BTreeSet<ServiceKey>>,
    /// How many services own an address.
    owners: BTreeMap<IpAddr, u32>,
    dirty: BTreeSet<ServiceKey>,
    dirty_addresses: BTreeSet<IpAddr>,
    retry: Duration,
    names: Names,
}

impl<M: ServiceMaps> Reconciler<M> {
    /// Takes over the maps as an earlier writer left them; writes nothing yet.
    /// # Errors
    /// [`MapError`] when they cannot be read.
    pub fn new(maps: M, config: &ProxyConfig, now: Duration) -> Result<Self, MapError> {
        let rest_until = now + Duration::from_secs(QUARANTINE_S.into());
        let ledger = restore(&maps, rest_until)?;
        let dirty_addresses = ledger.wildcards.keys().copied().collect();
        Ok(Self {
            writer: Writer { maps, ledger },
            node: NodeFacts {
                name: config.node_name.clone(),
                addresses: BTreeSet::new(),
                external_ips: config.external_ips,
                listeners: config.listeners.clone(),
            },
            seen: Arc::default(),
            in_sync: false,
            desired: BTreeMap::new(),
            planned: BTreeMap::new(),
            claims: BTreeMap::new(),
            owners: BTreeMap::new(),
            dirty: BTreeSet::new(),
            dirty_addresses,
            retry: RETRY_MIN,
            names: Names::default(),
        })
    }

    /// Names of the elements, shared with whoever shows them.
    #[must_use]
    pub fn names(&self) -> Names {
        self.names.clone()
    }

    /// The maps, for inspection.
    #[must_use]
    pub fn maps(&self) -> &M {
        &self.writer.maps
    }

    /// Gives the maps up, as a stopping agent does: what they hold stays in force.
    #[must_use]
    pub fn into_maps(self) -> M {
        self.writer.maps
    }

    /// Services in the maps, or about to be.
    #[must_use]
    pub fn services(&self) -> usize {
        self.writer.ledger.len()
    }

    /// True when the maps hold nothing and nothing rests.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.desired.is_empty() && self.writer.ledger.is_empty()
    }

    /// Takes a snapshot: finds out what changed. Cost follows the changes, not the number of
    /// services, unless the node's own addresses changed.
    pub fn observe(&mut self, snapshot: &Arc<Snapshot>) {
        let before = std::mem::replace(&mut self.seen, Arc::clone(snapshot));
        self.in_sync = snapshot.in_sync;
        let addresses = snapshot
            .nodes
            .get(self.node.name.as_str())
            .map(|node| node.addresses.iter().copied().collect::<BTreeSet<IpAddr>>());
        // A node that is not listed (yet) keeps the addresses it had.
        let moved = addresses.is_some_and(|addresses| {
            let moved = addresses != self.node.addresses;
            self.node.addresses = addresses;
            moved
        });
        let none = ServiceEntry::default();
        if moved {
            let all: BTreeSet<&ObjectName> = before
                .services
                .keys()
                .chain(snapshot.services.keys())
                .collect();
            for name in all {
                let entry = |from: &'_ Snapshot| from.services.get(name).cloned();
                self.change(
                    name,
                    entry(&before).as_deref().unwrap_or(&none),
                    entry(snapshot).as_deref().unwrap_or(&none),
                );
            }
            return;
        }
        for item in before.services.diff(&snapshot.services) {
            match item {
                DiffItem::Add(name, entry) => self.change(name, &none, entry),
                DiffItem::Update { old, new } => self.change(new.0, old.1, new.1),
                DiffItem::Remove(name, entry) => self.change(name, entry, &none),
            }
        }
    }

    /// One service went from `old` to `new`.
    fn change(&mut self, name: &ObjectName, old: &ServiceEntry, new: &ServiceEntry) {
        self.own(&owned_addresses(old), &owned_addresses(new));
        let mut fresh = plan(name, new, &self.node);
        let before = self.planned.remove(name).unwrap_or_default();
        let mut keys: BTreeSet<ServiceKey> = before.into_iter().collect();
        keys.extend(fresh.keys().cloned());
        for key in keys {
            let wanted = fresh.remove(&key);
            if wanted.is_some() {
                self.planned
                    .entry(name.clone())
                    .or_default()
                    .push(key.clone());
            }
            if self.desired.get(&key) != wanted.as_ref() {
                self.claim(&key, wanted.as_ref());
                match wanted {
                    Some(wanted) => self.desired.insert(key.clone(), wanted),
                    None => self.desired.remove(&key),
                };
                self.dirty.insert(key);
            }
        }
    }

    fn own(&mut self, old: &[IpAddr], new: &[IpAddr]) {
        for address in new {
            *self.owners.entry(*address).or_default() += 1;
        }
        for address in old {
            if let Some(count) = self.owners.get_mut(address) {
                *count -= 1;
                if *count == 0 {
                    self.owners.remove(address);
                }
            }
        }
        if old != new {
            self.dirty_addresses.extend(old.iter().chain(new));
        }
    }

    /// Records who wants which frontend; whoever gains or loses one to this change is dirty too.
    fn claim(&mut self, key: &ServiceKey, wanted: Option<&DesiredService>) {
        let lost = self
            .desired
            .get(key)
            .into_iter()
            .flat_map(|old| old.frontends.keys());
        let lost: Vec<FrontendKey> = lost.copied().collect();
        for frontend in lost {
            if let Some(claims) = self.claims.get_mut(&frontend) {
                claims.remove(key);
                self.dirty.extend(claims.first().cloned());
                if claims.is_empty() {
                    self.claims.remove(&frontend);
                }
            }
        }
        for frontend in wanted.into_iter().flat_map(|new| new.frontends.keys()) {
            let claims = self.claims.entry(*frontend).or_default();
            self.dirty.extend(claims.first().cloned());
            claims.insert(key.clone());
            if claims.len() > 1 {
                tracing::warn!(
                    frontend = %frontend,
                    service = %key,
                    "two services want the same address and port; the first by name gets it"
                );
            }
        }
    }

    /// Writes what is dirty and frees what has rested. Call it after [`Reconciler::observe`], and
    /// again when [`Outcome::wake_at`] has come.
    pub fn reconcile(&mut self, now: Duration) -> Outcome {
        let mut outcome = Outcome::default();
        let subtract = if self.in_sync {
            Subtract::Allowed
        } else {
            Subtract::Never
        };
        // Additions first: a frontend that moves from one service to another never has none.
        let dirty = std::mem::take(&mut self.dirty);
        let (wanted, gone): (Vec<_>, Vec<_>) = dirty
            .into_iter()
            .partition(|key| self.desired.contains_key(key));
        for key in wanted {
            self.write(&key, subtract, now, &mut outcome);
        }
        self.write_wildcards(subtract, &mut outcome);
        if self.in_sync {
            self.remove_unwanted(gone, now, &mut outcome);
        } else {
            self.dirty.extend(gone);
        }
        if let Err(error) = self.writer.free_rested(now) {
            note(&mut outcome, "free what has rested", &error);
        }
        outcome.applied = outcome.failed == 0;
        self.retry = match outcome.failed {
            0 => RETRY_MIN,
            _ => (self.retry * 2).min(RETRY_MAX),
        };
        let retry = (outcome.failed + outcome.without_room > 0).then_some(now + self.retry);
        let rested = self.writer.ledger.next_rested();
        outcome.wake_at = retry.into_iter().chain(rested).min();
        outcome
    }

    fn write(
        &mut self,
        key: &ServiceKey,
        subtract: Subtract,
        now: Duration,
        outcome: &mut Outcome,
    ) {
        let Some(desired) = self.desired.get(key) else {
            return;
        };
        let owned = desired.frontends.iter().filter(|(frontend, _)| {
            self.claims.get(frontend).and_then(BTreeSet::first) == Some(key)
        });
        let frontends = Frontends {
            owned: owned.map(|(frontend, flags)| (*frontend, *flags)).collect(),
            taken: &|frontend| self.claims.contains_key(frontend),
        };
        match self.writer.apply(key, desired, &frontends, subtract, now) {
            Ok(()) => {
                outcome.changed += 1;
                if let Some(record) = self.writer.ledger.record(key) {
                    self.names.put(key, record, desired);
                }
                if subtract == Subtract::Never {
                    self.dirty.insert(key.clone()); // once more when the tables are complete
                }
            }
            Err(error) => {
                note(outcome, &key.to_string(), &error);
                self.dirty.insert(key.clone());
            }
        }
    }

    fn write_wildcards(&mut self, subtract: Subtract, outcome: &mut Outcome) {
        let addresses = std::mem::take(&mut self.dirty_addresses);
        let wanted = |address: &IpAddr| self.owners.contains_key(address);
        let result = self
            .writer
            .set_wildcards(wanted, addresses.iter().copied(), subtract);
        if let Err(error) = &result {
            note(outcome, "refuse unknown ports", error);
        }
        if result.is_err() || subtract == Subtract::Never {
            self.dirty_addresses = addresses;
        }
    }

    fn remove_unwanted(&mut self, gone: Vec<ServiceKey>, now: Duration, outcome: &mut Outcome) {
        let taken = |frontend: &FrontendKey| self.claims.contains_key(frontend);
        for key in gone {
            match self.writer.remove(&key, &taken, now) {
                Ok(()) => {
                    outcome.changed += 1;
                    self.names.remove(&key);
                }
                Err(error) => {
                    note(outcome, &key.to_string(), &error);
                    self.dirty.insert(key);
                }
            }
        }
        match self.writer.remove_found(&taken, now) {
            Ok(0) => {}
            Ok(removed) => {
                tracing::info!(
                    removed,
                    "services of before are gone: taken out of the maps"
                );
            }
            Err(error) => note(outcome, "services of before", &error),
        }
    }

    /// Records the revision that is in force, for those who read the maps without the agent.
    /// # Errors
    /// [`MapError`].
    pub fn set_applied(&mut self, revision: u64) -> Result<(), MapError> {
        self.writer.maps.set_applied_revision(revision)
    }
}

fn note(outcome: &mut Outcome, what: &str, error: &WriteError) {
    if error.is_capacity() {
        outcome.without_room += 1;
        tracing::error!(what, error = %error, "no room in the maps");
    } else {
        outcome.failed += 1;
        tracing::debug!(what, error = %error, "not written, to be tried again");
    }
    outcome.last_error = Some(format!("{what}: {error}"));
}
