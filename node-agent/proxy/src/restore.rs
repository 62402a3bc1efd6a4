//! From the maps of an earlier writer to an account of them.
//!
//! Reads everything that a frontend reaches; the rest is what a crash in the middle of a change left
//! behind, or what was resting: it rests once more and is freed then. Nothing is written here, so
//! forwarding does not notice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use node_agent_datapath::abi::frontend::FE_WILDCARD;
use node_agent_datapath::abi::service::{BE_FREE, Backend, Service};
use node_agent_datapath::maps::{FrontendKey, HeadKind, MapError, ReadServiceMaps, from_addr};

use crate::extents::{Extent, Extents};
use crate::ledger::{BackendRecord, Ledger, PublishedSet, Resting, ServiceRecord};

/// What is reachable.
#[derive(Debug, Default)]
struct Found {
    services: BTreeMap<u32, ServiceRecord>,
    frontends: BTreeMap<FrontendKey, u32>,
    wildcards: BTreeMap<std::net::IpAddr, bool>,
    /// Reached by a head.
    backends: BTreeSet<u32>,
}

fn address_of(backend: &Backend) -> SocketAddr {
    SocketAddr::new(from_addr(&backend.addr), u16::from_be_bytes(backend.port))
}

fn read_set(
    maps: &dyn ReadServiceMaps,
    service: &Service,
    kind: HeadKind,
) -> Result<PublishedSet, MapError> {
    let head = kind.of(service);
    let mut members: Vec<u32> = maps
        .slots(head.base, head.len)?
        .iter()
        .map(|slot| slot.backend)
        .collect();
    members.sort_unstable();
    Ok(PublishedSet {
        extent: Extent {
            base: head.base,
            len: head.len.into(),
        },
        members: Some(members),
        generation: head.generation,
        in_doubt: Vec::new(),
    })
}

fn read_service(maps: &dyn ReadServiceMaps, index: u32) -> Result<ServiceRecord, MapError> {
    let service = maps.service(index)?;
    let mut record = ServiceRecord {
        index,
        written: true,
        flags: service.flags,
        affinity_s: service.affinity_s,
        ..ServiceRecord::default()
    };
    for kind in HeadKind::ALL {
        let set = read_set(maps, &service, kind)?;
        for member in set.members.iter().flatten() {
            let backend = maps.backend(*member)?;
            let known = BackendRecord {
                index: *member,
                written: Some((backend.state, backend.flags)),
                generation: backend.generation,
                leaving: false,
            };
            record.backends.insert(address_of(&backend), known);
        }
        *record.set_mut(kind) = set;
    }
    Ok(record)
}

fn read_reachable(maps: &dyn ReadServiceMaps) -> Result<Found, MapError> {
    let mut found = Found::default();
    for (key, value) in maps.frontends()? {
        if value.flags & FE_WILDCARD != 0 {
            found.wildcards.insert(key.address, true);
            continue;
        }
        if let std::collections::btree_map::Entry::Vacant(place) = found.services.entry(value.svc) {
            let record = read_service(maps, value.svc)?;
            found
                .backends
                .extend(record.backends.values().map(|backend| backend.index));
            place.insert(record);
        }
        if let Some(record) = found.services.get_mut(&value.svc) {
            record.frontends.insert(key, Some(value.flags));
            found.frontends.insert(key, value.svc);
        }
    }
    Ok(found)
}

/// Elements of `be` that nobody reaches and that are not free, with those of them that belong to a
/// service that is there: it may want them back.
fn read_leaving(maps: &dyn ReadServiceMaps, found: &mut Found) -> Result<BTreeSet<u32>, MapError> {
    let mut leaving = BTreeSet::new();
    for index in 1..maps.limits().backends {
        if found.backends.contains(&index) {
            continue;
        }
        let backend = maps.backend(index)?;
        if backend.state == BE_FREE {
            continue;
        }
        leaving.insert(index);
        if let Some(record) = found.services.get_mut(&backend.svc) {
            record
                .backends
                .entry(address_of(&backend))
                .or_insert(BackendRecord {
                    index,
                    written: Some((backend.state, backend.flags)),
                    generation: backend.generation,
                    leaving: true,
                });
        }
    }
    Ok(leaving)
}

/// Elements of `svc` that no frontend reaches but that were used: a reader may just be there.
fn read_left_services(
    maps: &dyn ReadServiceMaps,
    found: &Found,
) -> Result<BTreeSet<u32>, MapError> {
    let mut left = BTreeSet::new();
    for index in 1..maps.limits().services {
        if !found.services.contains_key(&index) {
            let service = maps.service(index)?;
            if HeadKind::ALL.iter().any(|kind| kind.of(&service).len > 0) {
                left.insert(index);
            }
        }
    }
    Ok(left)
}

/// Slots read by one call.
const CHUNK: u16 = 4096;

/// Runs of slots that were written by someone and that no head reaches.
fn read_left_slots(maps: &dyn ReadServiceMaps, free: &Extents) -> Result<Vec<Extent>, MapError> {
    let total = maps.limits().slots;
    let mut left: Vec<Extent> = Vec::new();
    let mut base = 0;
    while base < total {
        let len = u16::try_from(total - base).map_or(CHUNK, |rest| rest.min(CHUNK));
        for (index, slot) in (base..).zip(maps.slots(base, len)?) {
            if slot.backend == 0 || !free.is_free(index) {
                continue;
            }
            match left.last_mut() {
                Some(run) if run.base + run.len == index => run.len += 1,
                _ => left.push(Extent {
                    base: index,
                    len: 1,
                }),
            }
        }
        base += u32::from(len);
    }
    Ok(left)
}

/// Makes the account of what the maps hold. What nobody reaches rests until `rest_until`.
/// # Errors
/// [`MapError`] when a map cannot be read, or an index leads past the end of one.
pub(crate) fn restore(
    maps: &dyn ReadServiceMaps,
    rest_until: Duration,
) -> Result<Ledger, MapError> {
    let mut found = read_reachable(maps)?;
    let leaving = read_leaving(maps, &mut found)?;
    let left = read_left_services(maps, &found)?;
    let backends: BTreeSet<u32> = found.backends.union(&leaving).copied().collect();
    let services: BTreeSet<u32> = found.services.keys().chain(&left).copied().collect();
    let mut ledger = Ledger::new(maps.limits(), &services, &backends);
    for record in found.services.values_mut() {
        for kind in HeadKind::ALL {
            let set = record.set_mut(kind);
            if !ledger.extents.reserve(set.extent) {
                // An earlier writer was wrong. Unknown members make the set be published anew.
                tracing::warn!(base = set.extent.base, "two sets of backends share slots");
                set.extent = Extent::default();
                set.members = None;
            }
        }
    }
    for extent in read_left_slots(maps, &ledger.extents)? {
        if ledger.extents.reserve(extent) {
            ledger.rest(rest_until, Resting::Extent(extent));
        }
    }
    for index in leaving {
        ledger.rest(rest_until, Resting::Backend(index));
    }
    for index in left {
        ledger.rest(rest_until, Resting::Service(index));
    }
    ledger.found = found.services;
    ledger.found_frontends = found.frontends;
    ledger.wildcards = found.wildcards;
    Ok(ledger)
}
