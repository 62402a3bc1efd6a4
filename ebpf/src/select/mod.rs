// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! From a frontend to a backend: the one selection that socket hooks, packet hooks and the race
//! test share.

use ebpf_abi::{
    counter::DropReason,
    frontend::{FE_LOCAL, FE_WILDCARD, Frontend},
    service::{
        BE_ACTIVE, BE_FLAG_LOCAL, BE_FREE, BE_TERMINATING, Backend, Head, SVC_AFFINITY, Slot,
    },
    socket::{Affinity, AffinityKey},
};

use crate::words::{self, AddrWords, PortWord};

/// One service, behind whatever the caller's map gives.
pub trait Service {
    /// The head of all ready backends, by one 64-bit load.
    fn head(&self) -> u64;
    /// The head of the ready backends on this node, by one 64-bit load.
    fn local_head(&self) -> u64;
    /// The head of the terminating backends that still serve, by one 64-bit load.
    fn terminating_head(&self) -> u64;
    /// `SVC_*`.
    fn flags(&self) -> u32;
    /// Seconds.
    fn affinity_s(&self) -> u32;
}

/// The maps that selection reads.
pub trait ServiceMaps {
    /// An element of `svc`.
    type Service: Service;

    /// Element of `svc`; `None` behind its end.
    fn service(&self, index: u32) -> Option<Self::Service>;
    /// Element of `slot`; `None` behind its end.
    fn slot(&self, index: u32) -> Option<Slot>;
    /// Element of `be`; `None` behind its end.
    fn backend(&self, index: u32) -> Option<Backend>;
    /// Entry of `aff`.
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity>;
    /// Writes an entry of `aff`; a failure only costs stickiness.
    fn set_affinity(&self, key: &AffinityKey, value: &Affinity);
    /// 32 random bits.
    fn random(&self) -> u32;
    /// `CLOCK_MONOTONIC` in seconds.
    fn now_s(&self) -> u32;
}

/// Who asks, for session affinity: see [`AffinityKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Cookie or address.
    pub id: AddrWords,
    /// `CLIENT_*`.
    pub kind: u32,
}

/// How a choice was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// Drawn from the ready set.
    Drawn,
    /// Drawn from the terminating set, since no ready backend was left.
    Terminating,
    /// Recalled by session affinity.
    Recalled,
}

/// A chosen backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Index into `svc`.
    pub svc: u32,
    /// Index into `be`.
    pub backend: u32,
    /// Its generation.
    pub generation: u32,
    /// Where it listens.
    pub addr: AddrWords,
    /// Its port.
    pub port: PortWord,
    /// How.
    pub chosen: Chosen,
}

/// What a lookup in the frontend map means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frontdoor {
    /// Not a service's address and port.
    None,
    /// A service.
    Service(Frontend),
    /// A service's address, but none of its ports.
    UnknownPort,
}

/// Judges the entries found under (vip, port, protocol) and, if there was none, (vip, 0, 0).
#[inline(always)]
pub fn frontdoor(
    exact: Option<Frontend>,
    wildcard: impl FnOnce() -> Option<Frontend>,
) -> Frontdoor {
    match exact {
        Some(frontend) if frontend.flags & FE_WILDCARD == 0 => Frontdoor::Service(frontend),
        // Port 0 of protocol 0 does not occur in a packet; who sends it gets no service.
        Some(_) => Frontdoor::UnknownPort,
        None => match wildcard() {
            Some(_) => Frontdoor::UnknownPort,
            None => Frontdoor::None,
        },
    }
}

/// Which slot a draw takes: `(offset, fraction)`, the fraction in 65,536ths within the slot.
///
/// Multiply and shift: each offset below `len` gets the same share of the 2^32 draws to within
/// one; the verifier sees no division.
#[inline(always)]
pub const fn draw(random: u32, len: u16) -> (u32, u16) {
    let product = random as u64 * len as u64;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "32 and 16 bits are cut out"
    )]
    let parts = ((product >> 32) as u32, ((product as u32) >> 16) as u16);
    parts
}

/// Chooses a backend of `frontend`'s service.
/// # Errors
/// [`DropReason::NoBackend`], or [`DropReason::Inconsistent`] if an index leads nowhere.
#[inline(always)]
pub fn choose<M: ServiceMaps>(
    maps: &M,
    frontend: Frontend,
    client: &Client,
) -> Result<Choice, DropReason> {
    let service = maps.service(frontend.svc).ok_or(DropReason::Inconsistent)?;
    if service.flags() & SVC_AFFINITY == 0 {
        return choose_any(maps, &service, frontend);
    }
    let key = AffinityKey {
        client: words::to_bytes(client.id),
        svc: frontend.svc,
        kind: client.kind,
    };
    if let Some(choice) = recall(maps, &service, frontend, &key) {
        return Ok(choice);
    }
    let choice = choose_any(maps, &service, frontend)?;
    remember(maps, &key, &choice);
    Ok(choice)
}

/// True if a flow or socket that recalls (`id`, `generation`) may go on with it.
#[inline(always)]
pub fn still_there<M: ServiceMaps>(maps: &M, id: u32, generation: u32) -> bool {
    maps.backend(id)
        .is_some_and(|backend| backend.generation == generation && backend.state != BE_FREE)
}

#[inline(always)]
fn choose_any<M: ServiceMaps>(
    maps: &M,
    service: &M::Service,
    frontend: Frontend,
) -> Result<Choice, DropReason> {
    let local = frontend.flags & FE_LOCAL != 0;
    let ready = Head::unpack(if local {
        service.local_head()
    } else {
        service.head()
    });
    if ready.len != 0 {
        return pick(maps, frontend.svc, ready, Chosen::Drawn);
    }
    if local {
        return Err(DropReason::NoBackend);
    }
    let terminating = Head::unpack(service.terminating_head());
    if terminating.len == 0 {
        return Err(DropReason::NoBackend);
    }
    pick(maps, frontend.svc, terminating, Chosen::Terminating)
}

#[inline(always)]
fn pick<M: ServiceMaps>(
    maps: &M,
    svc: u32,
    head: Head,
    chosen: Chosen,
) -> Result<Choice, DropReason> {
    let (offset, fraction) = draw(maps.random(), head.len);
    let slot = slot_at(maps, head, offset)?;
    let slot = if fraction < slot.alias_share {
        slot_at(maps, head, u32::from(slot.alias))?
    } else {
        slot
    };
    let backend = maps.backend(slot.backend).ok_or(DropReason::Inconsistent)?;
    if backend.svc != svc || backend.state == BE_FREE {
        return Err(DropReason::Inconsistent);
    }
    Ok(choice(svc, slot.backend, &backend, chosen))
}

#[inline(always)]
fn slot_at<M: ServiceMaps>(maps: &M, head: Head, offset: u32) -> Result<Slot, DropReason> {
    maps.slot(head.base.wrapping_add(offset))
        .ok_or(DropReason::Inconsistent)
}

#[inline(always)]
fn recall<M: ServiceMaps>(
    maps: &M,
    service: &M::Service,
    frontend: Frontend,
    key: &AffinityKey,
) -> Option<Choice> {
    let affinity = maps.affinity(key)?;
    if maps.now_s().saturating_sub(affinity.last_s) > service.affinity_s() {
        return None;
    }
    let backend = maps.backend(affinity.backend)?;
    let serves = backend.state == BE_ACTIVE
        || (backend.state == BE_TERMINATING && Head::unpack(service.head()).len == 0);
    let reachable = frontend.flags & FE_LOCAL == 0 || backend.flags & BE_FLAG_LOCAL != 0;
    if !serves
        || !reachable
        || backend.generation != affinity.backend_generation
        || backend.svc != key.svc
    {
        return None;
    }
    let choice = choice(key.svc, affinity.backend, &backend, Chosen::Recalled);
    remember(maps, key, &choice);
    Some(choice)
}

#[inline(always)]
fn remember<M: ServiceMaps>(maps: &M, key: &AffinityKey, choice: &Choice) {
    let value = Affinity {
        backend: choice.backend,
        backend_generation: choice.generation,
        last_s: maps.now_s(),
        pad: 0,
    };
    maps.set_affinity(key, &value);
}

#[inline(always)]
const fn choice(svc: u32, id: u32, backend: &Backend, chosen: Chosen) -> Choice {
    Choice {
        svc,
        backend: id,
        generation: backend.generation,
        addr: words::from_bytes(backend.addr),
        port: words::port(backend.port),
        chosen,
    }
}

#[cfg(test)]
mod tests;
