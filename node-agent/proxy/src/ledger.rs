//! What the maps hold as far as the writer knows: the account from which changes are computed.
//!
//! A failed write leaves its place in doubt, and the account says so: frontends in doubt have no
//! flags, extents in doubt stay out of use until a later publication has certainly replaced them.
//! So a retry, or a removal, always covers everything that may be there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use node_agent_datapath::maps::{FrontendKey, HeadKind, Limits};

use crate::extents::{Extent, Extents};
use crate::indexes::Indexes;
use crate::plan::ServiceKey;

/// One published set of backends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PublishedSet {
    pub(crate) extent: Extent,
    /// By index in `be`, ordered. `None`: unknown, since a publication failed.
    pub(crate) members: Option<Vec<u32>>,
    pub(crate) generation: u16,
    /// Extents that a failed publication may have put in force.
    pub(crate) in_doubt: Vec<Extent>,
}

/// One element of `be` that belongs to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BackendRecord {
    pub(crate) index: u32,
    /// State and flags as written; `None`: unknown.
    pub(crate) written: Option<(u8, u8)>,
    pub(crate) generation: u32,
    /// It has left all sets; its index rests and is freed then.
    pub(crate) leaving: bool,
}

/// One element of `svc` with all that it owns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceRecord {
    pub(crate) index: u32,
    /// The element itself has been written.
    pub(crate) written: bool,
    pub(crate) flags: u32,
    pub(crate) affinity_s: u32,
    /// Flags as written; `None`: unknown.
    pub(crate) frontends: BTreeMap<FrontendKey, Option<u16>>,
    pub(crate) backends: BTreeMap<SocketAddr, BackendRecord>,
    pub(crate) ready: PublishedSet,
    pub(crate) local: PublishedSet,
    pub(crate) terminating: PublishedSet,
}

impl ServiceRecord {
    pub(crate) fn set(&self, kind: HeadKind) -> &PublishedSet {
        match kind {
            HeadKind::Ready => &self.ready,
            HeadKind::Local => &self.local,
            HeadKind::Terminating => &self.terminating,
        }
    }

    pub(crate) fn set_mut(&mut self, kind: HeadKind) -> &mut PublishedSet {
        match kind {
            HeadKind::Ready => &mut self.ready,
            HeadKind::Local => &mut self.local,
            HeadKind::Terminating => &mut self.terminating,
        }
    }
}

/// What must rest before it is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resting {
    Extent(Extent),
    /// Of a backend that has left; its element is freed when the rest ends.
    Backend(u32),
    Service(u32),
}

/// The account.
#[derive(Debug)]
pub(crate) struct Ledger {
    services: BTreeMap<ServiceKey, ServiceRecord>,
    /// Found by a restart and not yet recognised, by index in `svc`.
    pub(crate) found: BTreeMap<u32, ServiceRecord>,
    /// Whose element of `svc` it is.
    names: BTreeMap<u32, ServiceKey>,
    /// Index in `svc` of each frontend in [`Ledger::found`].
    pub(crate) found_frontends: BTreeMap<FrontendKey, u32>,
    /// Addresses whose unknown ports are refused; `false`: in doubt.
    pub(crate) wildcards: BTreeMap<std::net::IpAddr, bool>,
    pub(crate) service_indexes: Indexes,
    pub(crate) backend_indexes: Indexes,
    pub(crate) extents: Extents,
    /// In order of time.
    resting: VecDeque<(Duration, Resting)>,
    /// Until when each backend rests. One that was wanted again is not here, one that left twice
    /// is here with the later time: entries of `resting` that say otherwise are void.
    leaving: BTreeMap<u32, Duration>,
}

impl Ledger {
    /// An account of maps in which `services` and `backends` are taken.
    pub(crate) fn new(limits: Limits, services: &BTreeSet<u32>, backends: &BTreeSet<u32>) -> Self {
        Self {
            services: BTreeMap::new(),
            found: BTreeMap::new(),
            names: BTreeMap::new(),
            found_frontends: BTreeMap::new(),
            wildcards: BTreeMap::new(),
            service_indexes: Indexes::new(limits.services, services),
            backend_indexes: Indexes::new(limits.backends, backends),
            extents: Extents::new(limits.slots),
            resting: VecDeque::new(),
            leaving: BTreeMap::new(),
        }
    }

    /// Lets something rest until `until`; calls must come in order of time.
    pub(crate) fn rest(&mut self, until: Duration, what: Resting) {
        if let Resting::Backend(index) = what {
            self.leaving.insert(index, until);
        }
        self.resting.push_back((until, what));
    }

    /// A resting backend is wanted again.
    pub(crate) fn unrest(&mut self, backend: u32) {
        self.leaving.remove(&backend);
    }

    /// The next thing whose rest has ended.
    pub(crate) fn rested(&mut self, now: Duration) -> Option<Resting> {
        while let Some((until, what)) = self.resting.pop_front_if(|(until, _)| *until <= now) {
            let valid = match what {
                Resting::Backend(index) => self.leaving.get(&index) == Some(&until),
                Resting::Extent(_) | Resting::Service(_) => true,
            };
            if valid {
                if let Resting::Backend(index) = what {
                    self.leaving.remove(&index);
                }
                return Some(what);
            }
        }
        None
    }

    /// Puts back what [`Ledger::rested`] gave, to be tried again.
    pub(crate) fn rest_again(&mut self, now: Duration, what: Resting) {
        if let Resting::Backend(index) = what {
            self.leaving.insert(index, now);
        }
        self.resting.push_front((now, what));
    }

    /// When the next rest ends.
    pub(crate) fn next_rested(&self) -> Option<Duration> {
        self.resting.front().map(|(until, _)| *until)
    }

    /// Takes a service's record out, to work on it.
    pub(crate) fn take(&mut self, key: &ServiceKey) -> Option<ServiceRecord> {
        let record = self.services.remove(key)?;
        self.names.remove(&record.index);
        Some(record)
    }

    /// Puts a record in, or back.
    pub(crate) fn put(&mut self, key: &ServiceKey, record: ServiceRecord) {
        self.names.insert(record.index, key.clone());
        self.services.insert(key.clone(), record);
    }

    /// A service's record.
    pub(crate) fn record(&self, key: &ServiceKey) -> Option<&ServiceRecord> {
        self.services.get(key)
    }

    /// The record of an element of `svc`.
    pub(crate) fn record_at(&mut self, index: u32) -> Option<&mut ServiceRecord> {
        match self.names.get(&index) {
            Some(key) => self.services.get_mut(key),
            None => self.found.get_mut(&index),
        }
    }

    /// Takes over the record of a service that a restart found under one of its frontends.
    pub(crate) fn recognise<'a>(
        &mut self,
        frontends: impl Iterator<Item = &'a FrontendKey>,
    ) -> Option<ServiceRecord> {
        let index = frontends
            .filter_map(|key| self.found_frontends.get(key).copied())
            .find(|index| self.found.contains_key(index))?;
        let record = self.found.remove(&index)?;
        for key in record.frontends.keys() {
            self.found_frontends.remove(key);
        }
        Some(record)
    }

    /// Services that are in the maps.
    pub(crate) fn len(&self) -> usize {
        self.services.len()
    }

    /// True when no service is left and nothing rests: every map is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.services.is_empty()
            && self.found.is_empty()
            && self.wildcards.is_empty()
            && self.resting.is_empty()
            && self.service_indexes.used() == 0
            && self.backend_indexes.used() == 0
            && self.extents.free() == self.extents.total()
    }
}
