// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Flows of the packet path: found, opened, kept alive, closed. A flow has both its entries or
//! none, and a packet that cannot have a flow is dropped, never half translated.

use core::{
    intrinsics::{AtomicOrdering, atomic_or},
    ptr::{read_volatile, write_volatile},
};

use ebpf::{
    conntrack::{
        Direction, Opening, State, bits, expired, forward_entry, reopens, reverse_entry,
        reverse_key, state, timeout_s, translated, twin_key,
    },
    family::{Tuple, V4, V6},
    packet::{PROTO_TCP, TCP_SYN, Transport},
    select::{Choice, Chosen, Client, choose, still_there},
    words::{self, AddrWords},
};
use ebpf_abi::{
    conntrack::{CT_FORWARD, CT_REVERSE, CtEntry},
    counter::{DropReason, Metric},
    endpoint::Endpoint,
    socket::{CLIENT_ADDR, CLIENT_NETNS},
};

use zerocopy::transmute;

use crate::{
    atomic, backend_maps, clock, count,
    flow_maps::{Flows, InsertError},
    rewrite::Rewrite,
    rodata,
    scratch::{Scratch, Scratched, Way},
    service_maps::KernelMaps,
    timeouts::timeouts,
};

/// Families whose flows are tracked.
pub(crate) trait Tracked: Rewrite + Flows + Scratched {
    /// The source a pod sees when a service sends it to itself.
    fn hairpin() -> Self::Addr;
}

impl Tracked for V4 {
    #[inline(always)]
    fn hairpin() -> u32 {
        transmute!(rodata::config!(hairpin4))
    }
}

impl Tracked for V6 {
    #[inline(always)]
    fn hairpin() -> AddrWords {
        words::from_bytes(rodata::config!(hairpin6))
    }
}

/// Translates a packet to a service, opening its flow if it is the first one, or a packet that
/// answers one.
#[inline(always)]
pub(crate) fn translate<F: Tracked>(
    ep: &Endpoint,
    scratch: &mut Scratch<F>,
) -> Result<(), DropReason> {
    if scratch.way == Way::Reverse {
        return answer::<F>(scratch);
    }
    find::<F>(scratch)?;
    if scratch.translated {
        return Ok(());
    }
    choose_backend::<F>(scratch, ep)?;
    insert::<F>(scratch)
}

/// Step: translates a packet that answers a flow.
#[inline(never)]
pub(crate) fn answer<F: Tracked>(scratch: &mut Scratch<F>) -> Result<(), DropReason> {
    scratch.key = F::ct_key(&scratch.packet.tuple, CT_REVERSE);
    let Some(entry) = F::flow(&scratch.key) else {
        return Ok(());
    };
    // Its later fragments cannot be told to belong to the flow.
    if scratch.packet.transport == Transport::FirstFragment {
        return Err(DropReason::Fragment);
    }
    follow::<F>(scratch, entry, Direction::Reverse)
}

/// Step: translates a client's packet if its flow is there and goes on.
#[inline(never)]
fn find<F: Tracked>(scratch: &mut Scratch<F>) -> Result<(), DropReason> {
    scratch.key = F::ct_key(&scratch.packet.tuple, CT_FORWARD);
    match F::flow(&scratch.key) {
        Some(entry) if goes_on::<F>(scratch, entry)? => {
            follow::<F>(scratch, entry, Direction::Forward)
        }
        _ => Ok(()),
    }
}

/// True if a client's packet belongs to the flow found under its key; if not, the flow is over.
#[inline(always)]
fn goes_on<F: Tracked>(scratch: &Scratch<F>, entry: *mut CtEntry) -> Result<bool, DropReason> {
    // SAFETY: entries stay mapped during the run.
    let known = unsafe { &*entry };
    let tcp_flags = scratch.packet.tcp_flags;
    if still_there(&KernelMaps, known.backend, known.backend_generation) {
        if !reopens(known.flags, tcp_flags) {
            return Ok(true);
        }
    } else if scratch.packet.tuple.proto == PROTO_TCP && tcp_flags & TCP_SYN == 0 {
        return Err(DropReason::BackendGone);
    }
    close::<F>(&scratch.key, known);
    Ok(false)
}

/// Translates a packet as its flow says.
#[inline(always)]
fn follow<F: Tracked>(
    scratch: &mut Scratch<F>,
    entry: *mut CtEntry,
    direction: Direction,
) -> Result<(), DropReason> {
    touch::<F>(scratch, entry, direction);
    // SAFETY: entries stay mapped during the run.
    let known = unsafe { &*entry };
    scratch.new =
        translated::<F>(&scratch.packet.tuple, known, direction).ok_or(DropReason::Inconsistent)?;
    scratch.translated = true;
    count::counted(
        match direction {
            Direction::Forward => Metric::ServiceForward,
            Direction::Reverse => Metric::ServiceReverse,
        },
        scratch.bytes,
    );
    Ok(())
}

/// Counts a packet and adds what it tells to both entries of its flow.
#[inline(always)]
fn touch<F: Tracked>(scratch: &mut Scratch<F>, entry: *mut CtEntry, direction: Direction) {
    // SAFETY: an aligned map value; counters change atomically only.
    unsafe { atomic::add(&raw mut (*entry).packets, 1) };
    // SAFETY: as above.
    unsafe { atomic::add(&raw mut (*entry).bytes, u64::from(scratch.bytes)) };
    // SAFETY: an aligned word; whichever CPU writes last is right to within a tick.
    unsafe { write_volatile(&raw mut (*entry).last_s, clock::now_s()) };
    // SAFETY: an aligned word.
    let flags = unsafe { read_volatile(&raw const (*entry).flags) };
    let news = bits(direction, scratch.packet.tcp_flags) & !flags;
    if news == 0 {
        return;
    }
    set_bits(entry, news);
    // SAFETY: entries stay mapped during the run.
    let known = unsafe { &*entry };
    if let Some(twin) = twin_key::<F>(&scratch.key, known) {
        scratch.other_key = twin;
        if let Some(twin) = F::flow(&scratch.other_key) {
            set_bits(twin, news);
        }
    }
}

#[inline(always)]
fn set_bits(entry: *mut CtEntry, bits: u64) {
    // SAFETY: an aligned word of a map value that changes atomically only (kernel 5.12).
    let _before = unsafe {
        atomic_or::<u64, u64, { AtomicOrdering::Relaxed }>(&raw mut (*entry).flags, bits)
    };
}

/// Removes both entries; who removes the forward one has ended the flow.
#[inline(always)]
fn close<F: Tracked>(forward_key: &F::CtKey, known: &CtEntry) {
    let (backend, generation) = (known.backend, known.backend_generation);
    if let Some(twin) = twin_key::<F>(forward_key, known) {
        F::remove(&twin);
    }
    if F::remove(forward_key) {
        backend_maps::flow_ended(backend, generation);
    }
}

/// Step: chooses the backend of a new flow.
#[inline(never)]
fn choose_backend<F: Tracked>(scratch: &mut Scratch<F>, ep: &Endpoint) -> Result<(), DropReason> {
    let client = client::<F>(ep, &scratch.packet.tuple);
    let choice = choose(&KernelMaps, scratch.frontend, &client)?;
    scratch.opening = opening::<F>(&scratch.packet.tuple, &choice)?;
    match choice.chosen {
        Chosen::Drawn => {}
        Chosen::Terminating => count::counted(Metric::TerminatingFallback, 0),
        Chosen::Recalled => count::counted(Metric::Affinity, 0),
    }
    Ok(())
}

#[inline(always)]
fn opening<F: Tracked>(
    tuple: &Tuple<F::Addr>,
    choice: &Choice,
) -> Result<Opening<F::Addr>, DropReason> {
    let addr = F::narrow(&choice.addr).ok_or(DropReason::Inconsistent)?;
    let hairpin = if addr == tuple.src {
        Some(F::hairpin())
    } else {
        None
    };
    Ok(Opening {
        addr,
        port: choice.port,
        hairpin,
        svc: choice.svc,
        backend: choice.backend,
        backend_generation: choice.generation,
    })
}

/// Step: opens the flow of a client's packet. The reverse entry is inserted first: no packet is
/// translated whose answer would not be.
#[inline(never)]
fn insert<F: Tracked>(scratch: &mut Scratch<F>) -> Result<(), DropReason> {
    let now_s = clock::now_s();
    scratch.other_key = reverse_key::<F>(&scratch.packet.tuple, &scratch.opening);
    if let Some(existing) = F::flow(&scratch.other_key) {
        // SAFETY: entries stay mapped during the run.
        let known = unsafe { &*existing };
        let tuple = &scratch.packet.tuple;
        scratch.key = twin_key::<F>(&scratch.other_key, known).ok_or(DropReason::Inconsistent)?;
        if same::<F>(&scratch.key, tuple) {
            // The same flow's packet on another CPU has opened it this moment.
            opened::<F>(scratch);
            return Ok(());
        }
        if !over::<F>(&scratch.key, known, tuple.proto, now_s) {
            // The client's repetition draws anew.
            return Err(DropReason::ConntrackConflict);
        }
        end::<F>(&scratch.key, &scratch.other_key, known);
    }
    scratch.entry = reverse_entry::<F>(&scratch.packet.tuple, &scratch.opening);
    scratch.entry.last_s = now_s;
    F::insert(&scratch.other_key, &scratch.entry).map_err(refused)?;
    scratch.key = F::ct_key(&scratch.packet.tuple, CT_FORWARD);
    scratch.entry = forward_entry::<F>(&scratch.opening);
    scratch.entry.last_s = now_s;
    scratch.entry.packets = 1;
    scratch.entry.bytes = u64::from(scratch.bytes);
    scratch.entry.flags |= bits(Direction::Forward, scratch.packet.tcp_flags);
    if let Err(error) = F::insert(&scratch.key, &scratch.entry) {
        F::remove(&scratch.other_key);
        return Err(refused(error));
    }
    backend_maps::flow_opened(scratch.opening.backend);
    count::counted(Metric::ConntrackNew, 0);
    opened::<F>(scratch);
    Ok(())
}

/// Translates the packet that has opened its flow.
#[inline(always)]
fn opened<F: Tracked>(scratch: &mut Scratch<F>) {
    let (tuple, opening) = (&scratch.packet.tuple, &scratch.opening);
    scratch.new = Tuple {
        src: opening.hairpin.unwrap_or(tuple.src),
        dst: opening.addr,
        sport: tuple.sport,
        dport: opening.port,
        proto: tuple.proto,
    };
    scratch.translated = true;
    count::counted(Metric::ServiceForward, scratch.bytes);
}

const fn refused(error: InsertError) -> DropReason {
    match error {
        InsertError::Full => DropReason::ConntrackFull,
        InsertError::Exists => DropReason::ConntrackConflict,
    }
}

/// True if the flow that holds a reverse key has ended, by its state or by time.
#[inline(always)]
fn over<F: Tracked>(forward_key: &F::CtKey, reverse: &CtEntry, proto: u8, now_s: u32) -> bool {
    if state(reverse.flags) == State::Closed {
        return true;
    }
    let limit = timeout_s(proto, reverse.flags, &timeouts());
    let forward_over = match F::flow(forward_key) {
        // SAFETY: entries stay mapped during the run.
        Some(forward) => expired(now_s, unsafe { (*forward).last_s }, limit),
        None => true,
    };
    forward_over && expired(now_s, reverse.last_s, limit)
}

/// Removes another flow's entries.
#[inline(always)]
fn end<F: Tracked>(forward_key: &F::CtKey, reverse_key: &F::CtKey, known: &CtEntry) {
    let (backend, generation) = (known.backend, known.backend_generation);
    F::remove(reverse_key);
    if F::remove(forward_key) {
        backend_maps::flow_ended(backend, generation);
    }
}

#[inline(always)]
fn same<F: Tracked>(forward_key: &F::CtKey, tuple: &Tuple<F::Addr>) -> bool {
    let (other, _) = F::ct_tuple(forward_key);
    other == *tuple
}

/// Who asks: the pod's network namespace, as in the socket hooks; its address if that is unknown.
#[inline(always)]
fn client<F: Tracked>(ep: &Endpoint, tuple: &Tuple<F::Addr>) -> Client {
    if ep.netns_cookie == 0 {
        return Client {
            id: F::widen(&tuple.src),
            kind: CLIENT_ADDR,
        };
    }
    let [low, high]: [u32; 2] = transmute!(ep.netns_cookie);
    Client {
        id: [low, high, 0, 0],
        kind: CLIENT_NETNS,
    }
}
