// SPDX-License-Identifier: Apache-2.0 OR MIT OR GPL-2.0-only
//! `svc`, `slot`, `be`, `be_load`: the memory-mapped arrays a service lives in.
//!
//! Publication: write backends, write a fresh extent of slots, then store the head, one aligned
//! 64-bit release store. A reader loads the head once, so base and count always belong together;
//! slots and backends are immutable while a head reaches them. An extent or a backend id that has
//! left the last head rests for [`QUARANTINE_S`] before it is used again.
//!
//! The elements of an array lie `value size rounded up to 8` bytes apart in the mapped view; all
//! values here are multiples of 8, so the view is a plain slice.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::Addr;

/// Least wall time between the last publication that reaches a slot or backend and its reuse.
/// A program run lasts microseconds; this is generous on purpose.
pub const QUARANTINE_S: u32 = 10;

/// One extent of slots: what a head says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// First slot.
    pub base: u32,
    /// Number of slots; 0 is an empty set.
    pub len: u16,
    /// Raised by one, wrapping, at every publication of this head.
    pub generation: u16,
}

impl Head {
    /// The stored form: base in bits 0..32, length in 32..48, generation in 48..64.
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        self.base as u64 | (self.len as u64) << 32 | (self.generation as u64) << 48
    }

    /// The inverse of [`Head::pack`]; every `u64` is a head.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the fields are cut out of the word"
    )]
    pub const fn unpack(word: u64) -> Self {
        Self {
            base: word as u32,
            len: (word >> 32) as u16,
            generation: (word >> 48) as u16,
        }
    }
}

/// Value of `svc`. Index 0 is never a service.
///
/// Everything but the heads is written before the service's frontends and then stays, but for
/// `flags` and `affinity_s`, which may change by one aligned store each.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Service {
    /// [`Head`] of all ready backends.
    pub head: u64,
    /// [`Head`] of the ready backends on this node.
    pub local_head: u64,
    /// Reserved for the consistent-hash table; zero is none.
    pub maglev: u64,
    /// [`Head`] of backends that serve while they terminate: used when the chosen set is empty
    /// (on this node only, if the frontend is [`crate::frontend::FE_LOCAL`]: then the agent puts
    /// them into `local_head`).
    pub terminating_head: u64,
    /// `SVC_*`.
    pub flags: u32,
    /// Session affinity's time-out in seconds; 0 without [`SVC_AFFINITY`].
    pub affinity_s: u32,
    /// Reserved for source ranges; zero is none.
    pub source_set: u32,
    /// Reserved: how to choose; zero is at random.
    pub algorithm: u8,
    /// IP protocol number of its main frontend.
    pub proto: u8,
    /// Port of its main frontend, network order.
    pub port: [u8; 2],
    /// Address of its main frontend.
    pub vip: Addr,
}
super::layout!(Service, size 64, align 8);

/// Session affinity by client address.
pub const SVC_AFFINITY: u32 = 1 << 0;

/// Value of `slot`.
///
/// A draw takes `backend`, or with a chance of `alias_share / 65,536` the backend of the slot
/// `alias` in the same extent (Walker's alias method, for weights). All zero but `backend` is the
/// uniform case.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct Slot {
    /// Index into `be`.
    pub backend: u32,
    /// Offset of another slot in this extent; below the head's length.
    pub alias: u16,
    /// Share of the alias.
    pub alias_share: u16,
}
super::layout!(Slot, size 8, align 8);

/// Value of `be`. Index 0 is never a backend.
///
/// An id belongs to one service for as long as it is in use: one id for each (service, address,
/// port). Affinity, connection tracking and sockets recall (id, generation) and so notice when
/// either the backend has left its service or the id has been given away.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct Backend {
    /// Where it listens.
    pub addr: Addr,
    /// Network order.
    pub port: [u8; 2],
    /// `BE_*` state.
    pub state: u8,
    /// `BE_FLAG_*`.
    pub flags: u8,
    /// Raised by one, wrapping, when the id is given to another backend and when it is freed.
    pub generation: u32,
    /// The owning service.
    pub svc: u32,
    /// Reserved: node or zone of the backend.
    pub node: u32,
}
super::layout!(Backend, size 32, align 8);

/// The id is free. Flows that recall it have lost their backend.
pub const BE_FREE: u8 = 0;
/// Takes new and old connections.
pub const BE_ACTIVE: u8 = 1;
/// Serves while terminating: old connections go on; new ones only by `terminating_head`.
pub const BE_TERMINATING: u8 = 2;
/// Left the service, still quarantined: old connections go on until the id is freed.
pub const BE_REMOVED: u8 = 3;

/// The backend is on this node.
pub const BE_FLAG_LOCAL: u8 = 1 << 0;

/// Value of `be_load`, same index as `be`. Written by the programs only (the agent zeroes it when
/// it gives an id away).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct BackendLoad {
    /// Sockets and tracked flows to it that are open now.
    pub in_flight: i64,
    /// Sockets and tracked flows ever opened to it.
    pub opened: u64,
    /// Reserved: connects that failed.
    pub failed: u32,
    /// Reserved: round trip, microseconds.
    pub rtt_us: u32,
    /// Always zero.
    pub pad: u64,
}
super::layout!(BackendLoad, size 32, align 8);
