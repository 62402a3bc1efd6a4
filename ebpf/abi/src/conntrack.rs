// SPDX-License-Identifier: Apache-2.0 OR MIT OR GPL-2.0-only
//! `ct4`, `ct6`: flows that the packet path translates. Written by the programs only.
//!
//! A flow has two entries: the forward one, found by the client's packets to the VIP, and the
//! reverse one, found by the backend's packets to the client. Each tells how to rewrite the packet
//! and, by that, the key of its twin.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::Addr;

/// Key of `ct4`: the packet's tuple before translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Ct4Key {
    /// Network order.
    pub src: [u8; 4],
    /// Network order.
    pub dst: [u8; 4],
    /// Network order.
    pub sport: [u8; 2],
    /// Network order.
    pub dport: [u8; 2],
    /// IP protocol number.
    pub proto: u8,
    /// [`CT_FORWARD`] or [`CT_REVERSE`].
    pub dir: u8,
    /// Always zero.
    pub pad: [u8; 2],
}
super::layout!(Ct4Key, size 16, align 8);

/// Key of `ct6`: the packet's tuple before translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Ct6Key {
    /// Network order.
    pub src: [u8; 16],
    /// Network order.
    pub dst: [u8; 16],
    /// Network order.
    pub sport: [u8; 2],
    /// Network order.
    pub dport: [u8; 2],
    /// IP protocol number.
    pub proto: u8,
    /// [`CT_FORWARD`] or [`CT_REVERSE`].
    pub dir: u8,
    /// Always zero.
    pub pad: [u8; 2],
}
super::layout!(Ct6Key, size 40, align 8);

/// Client to VIP.
pub const CT_FORWARD: u8 = 0;
/// Backend to client.
pub const CT_REVERSE: u8 = 1;

/// Value of `ct4` and `ct6`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct CtEntry {
    /// Packets of this direction.
    pub packets: u64,
    /// Bytes of this direction, from the Ethernet header on.
    pub bytes: u64,
    /// `CT_*` bits. Bits are only ever added, so the order in which two CPUs add them does not
    /// matter; both entries of a flow get the bits of either direction. A 64-bit word, since that
    /// is what the compiler's atomic instructions take.
    pub flags: u64,
    /// New destination (forward: the backend), new source (reverse: the VIP).
    pub nat_addr: Addr,
    /// With [`CT_HAIRPIN`] the other address: new source (forward: the hairpin address), new
    /// destination (reverse: the pod). Else zero.
    pub hairpin_addr: Addr,
    /// Index into `svc`.
    pub svc: u32,
    /// Index into `be`.
    pub backend: u32,
    /// Generation of the backend at the choice.
    pub backend_generation: u32,
    /// `CLOCK_MONOTONIC` in seconds of the last packet of this direction.
    pub last_s: u32,
    /// New destination port (forward), new source port (reverse); network order.
    pub nat_port: [u8; 2],
    /// Always zero.
    pub pad: [u8; 6],
}
super::layout!(CtEntry, size 80, align 8);

/// The service sent a pod to itself: both addresses are rewritten.
pub const CT_HAIRPIN: u64 = 1 << 0;
/// A packet of the backend was seen.
pub const CT_ANSWERED: u64 = 1 << 1;
/// TCP: FIN seen from the client.
pub const CT_FIN_FORWARD: u64 = 1 << 2;
/// TCP: FIN seen from the backend.
pub const CT_FIN_REVERSE: u64 = 1 << 3;
/// TCP: RST seen from either side.
pub const CT_RST: u64 = 1 << 4;
