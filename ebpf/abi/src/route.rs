// SPDX-License-Identifier: Apache-2.0 OR MIT OR GPL-2.0-only
//! `route`: pod ranges of other nodes. Written by the agent only. An address without an entry
//! takes the stack's routes.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::Addr;

/// Key of `route`, a longest-prefix trie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RouteKey {
    /// Bits of `addr` that count: 96 + n for an IPv4 prefix of n bits.
    pub prefix_len: u32,
    /// The prefix; bits behind it are zero.
    pub addr: Addr,
}
super::layout!(RouteKey, size 20, align 4);

/// Value of `route`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Route {
    /// The node's address on the underlay.
    pub node: Addr,
    /// Device to leave by; 0 hands the packet to the stack.
    pub ifindex: u32,
    /// `ROUTE_*`.
    pub flags: u32,
}
super::layout!(Route, size 24, align 4);

/// The node is a neighbour on `ifindex`: leave by `bpf_redirect_neigh` with `node` as next hop.
pub const ROUTE_DIRECT: u32 = 1 << 0;
