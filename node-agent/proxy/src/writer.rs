//! Writes one service: the order of steps that no reader can see half done.
//!
//! Backends, then a fresh extent of slots, then the head by one store, frontends last; frontends go
//! first. Each step brings the account up to date at once, so a failure at any point leaves an
//! account from which the next attempt goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use node_agent_datapath::abi::frontend::{FE_WILDCARD, Frontend};
use node_agent_datapath::abi::service::{
    BE_ACTIVE, BE_FLAG_LOCAL, BE_FREE, BE_REMOVED, BE_TERMINATING, Backend, Head, QUARANTINE_S,
    SVC_AFFINITY, Service, Slot,
};
use node_agent_datapath::maps::{FrontendKey, HeadKind, MapError, ServiceMaps, to_addr};

use crate::extents::Extent;
use crate::ledger::{BackendRecord, Ledger, Resting, ServiceRecord};
use crate::plan::{DesiredService, Lifecycle, ServiceKey};

/// Whether what is not desired may be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subtract {
    /// The tables are complete.
    Allowed,
    /// They are not yet: only add.
    Never,
}

/// Why a service could not be written in full.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error(transparent)]
    Map(#[from] MapError),
    /// Waiting alone will not help: something must go first.
    #[error("no free element in map {map}: all {limit} are in use")]
    Exhausted { map: &'static str, limit: u32 },
}

impl WriteError {
    /// True when trying again cannot help before something else changes.
    pub(crate) fn is_capacity(&self) -> bool {
        matches!(
            self,
            Self::Exhausted { .. } | Self::Map(MapError::Full { .. })
        )
    }
}

/// The most backends of one set: the length field of a head.
const SET_MAX: usize = u16::MAX as usize;
/// Rest of what has left.
const REST: Duration = Duration::from_secs(QUARANTINE_S as u64);

/// The writer of one node's maps.
#[derive(Debug)]
pub(crate) struct Writer<M> {
    pub(crate) maps: M,
    pub(crate) ledger: Ledger,
}

/// Frontends as one service sees them.
pub(crate) struct Frontends<'a> {
    /// Its own, with flags.
    pub(crate) owned: BTreeMap<FrontendKey, u16>,
    /// Whether some service wants a frontend; one that is taken but not owned is another's, and is
    /// written by it.
    pub(crate) taken: &'a dyn Fn(&FrontendKey) -> bool,
}

/// Members of the three sets by address.
#[derive(Debug, Default)]
struct Sets {
    ready: BTreeSet<SocketAddr>,
    local: BTreeSet<SocketAddr>,
    terminating: BTreeSet<SocketAddr>,
}

impl Sets {
    fn of(&self, kind: HeadKind) -> &BTreeSet<SocketAddr> {
        match kind {
            HeadKind::Ready => &self.ready,
            HeadKind::Local => &self.local,
            HeadKind::Terminating => &self.terminating,
        }
    }
}

/// A backend that takes connections.
#[derive(Clone, Copy, Debug)]
struct Serving {
    address: SocketAddr,
    lifecycle: Lifecycle,
    local: bool,
}

/// The sets that a service should publish. With no ready backend on this node, those that are
/// terminating here stand in for it (KEP-1669).
fn sets(serving: &[Serving]) -> Sets {
    let select = |lifecycle: Lifecycle, only_local: bool| -> BTreeSet<SocketAddr> {
        serving
            .iter()
            .filter(|backend| backend.lifecycle == lifecycle && (backend.local || !only_local))
            .map(|backend| backend.address)
            .collect()
    };
    let mut local = select(Lifecycle::Ready, true);
    if local.is_empty() {
        local = select(Lifecycle::Terminating, true);
    }
    Sets {
        ready: select(Lifecycle::Ready, false),
        local,
        terminating: select(Lifecycle::Terminating, false),
    }
}

fn desired_serving(desired: &DesiredService) -> Vec<Serving> {
    let serving = desired.backends.iter().map(|(address, backend)| Serving {
        address: *address,
        lifecycle: backend.lifecycle,
        local: backend.local,
    });
    serving.collect()
}

/// What is published and not mentioned by `desired`: before the tables are complete, a backend that
/// was not listed may only not have been listed yet.
fn unmentioned_serving(record: &ServiceRecord, desired: &DesiredService) -> Vec<Serving> {
    let published = |index: u32, kind| {
        let members = record.set(kind).members.as_ref();
        members.is_some_and(|members| members.binary_search(&index).is_ok())
    };
    let unmentioned = record
        .backends
        .iter()
        .filter(|(address, backend)| !backend.leaving && !desired.backends.contains_key(address));
    let serving = unmentioned.filter_map(|(address, backend)| {
        let lifecycle = match backend.written {
            Some((BE_ACTIVE, _)) => Lifecycle::Ready,
            Some((BE_TERMINATING, _)) => Lifecycle::Terminating,
            Some(_) => return None,
            // A write of its state failed: only if it is reached for certain.
            None if published(backend.index, HeadKind::Ready) => Lifecycle::Ready,
            None if published(backend.index, HeadKind::Terminating) => Lifecycle::Terminating,
            None => return None,
        };
        let flags = backend.written.map_or(0, |(_, flags)| flags);
        Some(Serving {
            address: *address,
            lifecycle,
            local: flags & BE_FLAG_LOCAL != 0,
        })
    });
    serving.collect()
}

impl<M: ServiceMaps> Writer<M> {
    /// Makes the maps say what is desired of one service.
    /// # Errors
    /// [`WriteError`]; the account knows how far it came.
    pub(crate) fn apply(
        &mut self,
        key: &ServiceKey,
        desired: &DesiredService,
        frontends: &Frontends<'_>,
        subtract: Subtract,
        now: Duration,
    ) -> Result<(), WriteError> {
        let known = self.ledger.take(key);
        let mut record = match known.or_else(|| self.ledger.recognise(frontends.owned.keys())) {
            Some(record) => record,
            None => self.new_record()?,
        };
        let result = self.apply_steps(&mut record, desired, frontends, subtract, now);
        self.ledger.put(key, record);
        result
    }

    fn new_record(&mut self) -> Result<ServiceRecord, WriteError> {
        let index = self
            .ledger
            .service_indexes
            .allocate()
            .ok_or(WriteError::Exhausted {
                map: node_agent_datapath::abi::map::SVC.name,
                limit: self.maps.limits().services,
            })?;
        Ok(ServiceRecord {
            index,
            ..ServiceRecord::default()
        })
    }

    fn apply_steps(
        &mut self,
        record: &mut ServiceRecord,
        desired: &DesiredService,
        frontends: &Frontends<'_>,
        subtract: Subtract,
        now: Duration,
    ) -> Result<(), WriteError> {
        let mut serving = desired_serving(desired);
        if subtract == Subtract::Never {
            serving.extend(unmentioned_serving(record, desired));
        }
        let sets = sets(&serving);
        self.write_element(record, desired)?;
        self.write_backends(record, desired)?;
        for kind in HeadKind::ALL {
            self.publish_set(record, kind, sets.of(kind), now)?;
        }
        self.write_options(record, desired)?;
        self.insert_frontends(record, &frontends.owned)?;
        record
            .frontends
            .retain(|key, _| frontends.owned.contains_key(key) || !(frontends.taken)(key));
        if subtract == Subtract::Allowed {
            let stale = record
                .frontends
                .keys()
                .filter(|key| !frontends.owned.contains_key(key));
            let stale: Vec<FrontendKey> = stale.copied().collect();
            self.remove_frontends(record, &stale)?;
        }
        let in_a_set = |address: &SocketAddr| {
            HeadKind::ALL
                .iter()
                .any(|kind| sets.of(*kind).contains(address))
        };
        self.retire_backends(record, in_a_set, now)
    }

    /// Writes the element of a new service with empty sets.
    fn write_element(
        &mut self,
        record: &mut ServiceRecord,
        desired: &DesiredService,
    ) -> Result<(), WriteError> {
        if record.written {
            return Ok(());
        }
        let before = self.maps.service(record.index)?;
        let mut service = Service {
            flags: options(desired).0,
            affinity_s: options(desired).1,
            proto: desired.main.protocol.0,
            port: desired.main.port.to_be_bytes(),
            vip: to_addr(desired.main.address),
            ..Service::default()
        };
        for kind in HeadKind::ALL {
            let generation = kind.of(&before).generation.wrapping_add(1);
            let empty = Head {
                generation,
                ..Head::default()
            };
            kind.set(&mut service, empty);
            let set = record.set_mut(kind);
            set.generation = generation;
            set.members = Some(Vec::new());
        }
        self.maps.write_service(record.index, &service)?;
        record.written = true;
        record.flags = service.flags;
        record.affinity_s = service.affinity_s;
        Ok(())
    }

    fn write_backends(
        &mut self,
        record: &mut ServiceRecord,
        desired: &DesiredService,
    ) -> Result<(), WriteError> {
        for (address, wanted) in &desired.backends {
            let state = match wanted.lifecycle {
                Lifecycle::Ready => BE_ACTIVE,
                Lifecycle::Terminating => BE_TERMINATING,
            };
            let flags = if wanted.local { BE_FLAG_LOCAL } else { 0 };
            let known = match record.backends.get(address).copied() {
                Some(known) => known,
                None => self.new_backend(record, address)?,
            };
            if known.written != Some((state, flags)) {
                self.write_backend(record, address, known, (state, flags))?;
            }
            if let Some(known) = record.backends.get_mut(address)
                && std::mem::take(&mut known.leaving)
            {
                self.ledger.unrest(known.index); // wanted again before its rest ended
            }
        }
        Ok(())
    }

    fn new_backend(
        &mut self,
        record: &mut ServiceRecord,
        address: &SocketAddr,
    ) -> Result<BackendRecord, WriteError> {
        let index = self
            .ledger
            .backend_indexes
            .allocate()
            .ok_or(WriteError::Exhausted {
                map: node_agent_datapath::abi::map::BE.name,
                limit: self.maps.limits().backends,
            })?;
        let generation = self.maps.backend(index)?.generation.wrapping_add(1);
        let known = BackendRecord {
            index,
            written: None,
            generation,
            leaving: false,
        };
        record.backends.insert(*address, known);
        self.maps.reset_load(index)?;
        Ok(known)
    }

    fn write_backend(
        &mut self,
        record: &mut ServiceRecord,
        address: &SocketAddr,
        known: BackendRecord,
        written: (u8, u8),
    ) -> Result<(), WriteError> {
        let value = Backend {
            addr: to_addr(address.ip()),
            port: address.port().to_be_bytes(),
            state: written.0,
            flags: written.1,
            generation: known.generation,
            svc: record.index,
            node: 0,
        };
        let result = self.maps.write_backend(known.index, &value);
        if let Some(known) = record.backends.get_mut(address) {
            known.written = result.is_ok().then_some(written);
        }
        Ok(result?)
    }

    /// Publishes a set if it differs from the one in force.
    fn publish_set(
        &mut self,
        record: &mut ServiceRecord,
        kind: HeadKind,
        wanted: &BTreeSet<SocketAddr>,
        now: Duration,
    ) -> Result<(), WriteError> {
        let known = wanted
            .iter()
            .filter_map(|address| record.backends.get(address));
        let mut members: Vec<u32> = known.map(|backend| backend.index).collect();
        if members.len() > SET_MAX {
            tracing::warn!(
                service = record.index,
                backends = members.len(),
                "only the first {SET_MAX} backends take connections"
            );
            members.truncate(SET_MAX);
        }
        members.sort_unstable();
        if record.set(kind).members.as_ref() == Some(&members) {
            return Ok(());
        }
        let extent = self.write_extent(&members, now)?;
        let service = record.index;
        let set = record.set_mut(kind);
        set.generation = set.generation.wrapping_add(1);
        let head = Head {
            base: extent.base,
            len: u16::try_from(extent.len).unwrap_or(u16::MAX),
            generation: set.generation,
        };
        match self.maps.publish(service, kind, head) {
            Ok(()) => {
                let old = std::mem::replace(&mut set.extent, extent);
                set.members = Some(members);
                let doubtful = std::mem::take(&mut set.in_doubt);
                for extent in doubtful.into_iter().chain([old]) {
                    self.rest_extent(extent, now);
                }
                Ok(())
            }
            Err(error) => {
                set.members = None;
                set.in_doubt.push(extent);
                Err(error.into())
            }
        }
    }

    fn rest_extent(&mut self, extent: Extent, now: Duration) {
        if extent.len > 0 {
            self.ledger.rest(now + REST, Resting::Extent(extent));
        }
    }

    fn write_extent(&mut self, members: &[u32], now: Duration) -> Result<Extent, WriteError> {
        if members.is_empty() {
            return Ok(Extent::default());
        }
        let len = u32::try_from(members.len()).unwrap_or(u32::MAX);
        let extent = self
            .ledger
            .extents
            .allocate(len)
            .ok_or(WriteError::Exhausted {
                map: node_agent_datapath::abi::map::SLOT.name,
                limit: self.maps.limits().slots,
            })?;
        let slot = |backend: &u32| Slot {
            backend: *backend,
            ..Slot::default()
        };
        let slots: Vec<Slot> = members.iter().map(slot).collect();
        match self.maps.write_slots(extent.base, &slots) {
            Ok(()) => Ok(extent),
            Err(error) => {
                self.rest_extent(extent, now);
                Err(error.into())
            }
        }
    }

    fn write_options(
        &mut self,
        record: &mut ServiceRecord,
        desired: &DesiredService,
    ) -> Result<(), WriteError> {
        let (flags, affinity_s) = options(desired);
        if (record.flags, record.affinity_s) != (flags, affinity_s) {
            self.maps.set_options(record.index, flags, affinity_s)?;
            record.flags = flags;
            record.affinity_s = affinity_s;
        }
        Ok(())
    }

    fn insert_frontends(
        &mut self,
        record: &mut ServiceRecord,
        wanted: &BTreeMap<FrontendKey, u16>,
    ) -> Result<(), WriteError> {
        let missing = wanted
            .iter()
            .filter(|(key, flags)| record.frontends.get(key).copied().flatten() != Some(**flags));
        let entries: Vec<(FrontendKey, Frontend)> = missing
            .map(|(key, flags)| {
                let value = Frontend {
                    svc: record.index,
                    flags: *flags,
                    pad: 0,
                };
                (*key, value)
            })
            .collect();
        if entries.is_empty() {
            return Ok(());
        }
        record
            .frontends
            .extend(entries.iter().map(|(key, _)| (*key, None)));
        self.maps.insert_frontends(&entries)?;
        record
            .frontends
            .extend(entries.iter().map(|(key, value)| (*key, Some(value.flags))));
        Ok(())
    }

    fn remove_frontends(
        &mut self,
        record: &mut ServiceRecord,
        keys: &[FrontendKey],
    ) -> Result<(), WriteError> {
        if keys.is_empty() {
            return Ok(());
        }
        for key in keys {
            record.frontends.insert(*key, None);
        }
        self.maps.remove_frontends(keys)?;
        for key in keys {
            record.frontends.remove(key);
        }
        Ok(())
    }

    /// Marks backends that are in no set as removed and lets their indexes rest.
    fn retire_backends(
        &mut self,
        record: &mut ServiceRecord,
        keep: impl Fn(&SocketAddr) -> bool,
        now: Duration,
    ) -> Result<(), WriteError> {
        let gone: Vec<(SocketAddr, BackendRecord)> = record
            .backends
            .iter()
            .filter(|(address, backend)| !backend.leaving && !keep(address))
            .map(|(address, backend)| (*address, *backend))
            .collect();
        for (address, backend) in gone {
            let flags = backend.written.map_or(0, |(_, flags)| flags);
            self.write_backend(record, &address, backend, (BE_REMOVED, flags))?;
            if let Some(backend) = record.backends.get_mut(&address) {
                backend.leaving = true;
            }
            self.ledger
                .rest(now + REST, Resting::Backend(backend.index));
        }
        Ok(())
    }

    /// Takes a service out of the maps. Frontends that are `taken` are another service's by now.
    /// # Errors
    /// [`WriteError`]; call again.
    pub(crate) fn remove(
        &mut self,
        key: &ServiceKey,
        taken: &dyn Fn(&FrontendKey) -> bool,
        now: Duration,
    ) -> Result<(), WriteError> {
        let Some(mut record) = self.ledger.take(key) else {
            return Ok(());
        };
        match self.remove_steps(&mut record, taken, now) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.ledger.put(key, record);
                Err(error)
            }
        }
    }

    /// Takes out the services that a restart found and that nobody wants.
    /// # Errors
    /// [`WriteError`]; call again.
    pub(crate) fn remove_found(
        &mut self,
        taken: &dyn Fn(&FrontendKey) -> bool,
        now: Duration,
    ) -> Result<u32, WriteError> {
        let mut removed = 0;
        while let Some((index, mut record)) = self.ledger.found.pop_first() {
            if let Err(error) = self.remove_steps(&mut record, taken, now) {
                self.ledger.found.insert(index, record);
                return Err(error);
            }
            self.ledger
                .found_frontends
                .retain(|_, service| *service != index);
            removed += 1;
        }
        Ok(removed)
    }

    fn remove_steps(
        &mut self,
        record: &mut ServiceRecord,
        taken: &dyn Fn(&FrontendKey) -> bool,
        now: Duration,
    ) -> Result<(), WriteError> {
        record.frontends.retain(|key, _| !taken(key));
        let keys: Vec<FrontendKey> = record.frontends.keys().copied().collect();
        self.remove_frontends(record, &keys)?;
        if record.written {
            for kind in HeadKind::ALL {
                self.publish_set(record, kind, &BTreeSet::new(), now)?;
            }
        }
        self.retire_backends(record, |_| false, now)?;
        self.ledger.rest(now + REST, Resting::Service(record.index));
        Ok(())
    }

    /// Makes the wildcards those of `wanted`.
    /// # Errors
    /// [`WriteError`]; call again.
    pub(crate) fn set_wildcards(
        &mut self,
        wanted: impl Fn(&IpAddr) -> bool,
        changed: impl Iterator<Item = IpAddr>,
        subtract: Subtract,
    ) -> Result<(), WriteError> {
        let mut insert = Vec::new();
        let mut remove = Vec::new();
        for address in changed {
            match (wanted(&address), self.ledger.wildcards.get(&address)) {
                (true, Some(true)) | (false, None) => {}
                (true, Some(false) | None) => insert.push(address),
                (false, Some(_)) => remove.push(address),
            }
        }
        let value = Frontend {
            svc: 0,
            flags: FE_WILDCARD,
            pad: 0,
        };
        if !insert.is_empty() {
            let entries: Vec<_> = insert
                .iter()
                .map(|address| (FrontendKey::wildcard(*address), value))
                .collect();
            self.ledger
                .wildcards
                .extend(insert.iter().map(|address| (*address, false)));
            self.maps.insert_frontends(&entries)?;
            self.ledger
                .wildcards
                .extend(insert.iter().map(|address| (*address, true)));
        }
        if subtract == Subtract::Allowed && !remove.is_empty() {
            let keys: Vec<_> = remove
                .iter()
                .map(|address| FrontendKey::wildcard(*address))
                .collect();
            self.ledger
                .wildcards
                .extend(remove.iter().map(|address| (*address, false)));
            self.maps.remove_frontends(&keys)?;
            for address in remove {
                self.ledger.wildcards.remove(&address);
            }
        }
        Ok(())
    }

    /// Frees what has rested long enough.
    /// # Errors
    /// [`WriteError`]; call again.
    pub(crate) fn free_rested(&mut self, now: Duration) -> Result<(), WriteError> {
        while let Some(what) = self.ledger.rested(now) {
            match what {
                Resting::Extent(extent) => self.ledger.extents.release(extent),
                Resting::Service(index) => self.ledger.service_indexes.release(index),
                Resting::Backend(index) => {
                    if let Err(error) = self.free_backend(index) {
                        self.ledger.rest_again(now, what);
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    fn free_backend(&mut self, index: u32) -> Result<(), WriteError> {
        let value = self.maps.backend(index)?;
        let address = SocketAddr::new(
            node_agent_datapath::maps::from_addr(&value.addr),
            u16::from_be_bytes(value.port),
        );
        let freed = Backend {
            state: BE_FREE,
            generation: value.generation.wrapping_add(1),
            ..value
        };
        self.maps.write_backend(index, &freed)?;
        // Its service may have gone before it.
        if let Some(record) = self.ledger.record_at(value.svc)
            && record
                .backends
                .get(&address)
                .is_some_and(|known| known.index == index)
        {
            record.backends.remove(&address);
        }
        self.ledger.backend_indexes.release(index);
        Ok(())
    }
}

/// Flags and affinity time-out of an element of `svc`.
fn options(desired: &DesiredService) -> (u32, u32) {
    match desired.affinity_s {
        Some(seconds) => (SVC_AFFINITY, seconds),
        None => (0, 0),
    }
}
