// SPDX-License-Identifier: Apache-2.0 OR MIT OR GPL-2.0-only
//! Read-only configuration: one struct in `.rodata`, set by the loader before the programs are
//! verified, so the verifier prunes what is switched off.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Name of the global that holds [`Config`] in every object.
pub const CONFIG_GLOBAL: &str = "CONFIG";

/// Name of the `u32` global that holds [`crate::ABI_VERSION`] in every object.
pub const ABI_GLOBAL: &str = "ABI";

/// The kernel has `bpf_set_retval` for socket address hooks (6.0): a refused connect returns
/// `ECONNREFUSED`. Without it the call returns `EPERM`.
pub const FLAG_SET_RETVAL: u32 = 1 << 0;
/// Deliver to a pod of this node with `bpf_redirect_peer` (5.10) instead of through the stack.
pub const FLAG_REDIRECT_PEER: u32 = 1 << 1;
/// Deliver along [`crate::route::Route`] entries with `bpf_redirect_neigh` (5.10) instead of
/// through the stack's routing.
pub const FLAG_REDIRECT_NEIGH: u32 = 1 << 2;

/// What the loader may set. Times are in seconds, addresses in network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Config {
    /// `FLAG_*`.
    pub flags: u32,
    /// A TCP flow that has seen no answer yet.
    pub tcp_syn_s: u32,
    /// An established TCP flow without a packet.
    pub tcp_established_s: u32,
    /// A TCP flow after FIN.
    pub tcp_fin_s: u32,
    /// A TCP flow after RST.
    pub tcp_rst_s: u32,
    /// A UDP flow that has seen no answer yet.
    pub udp_new_s: u32,
    /// A UDP flow with packets both ways.
    pub udp_assured_s: u32,
    /// Source that a pod sees when a service sends it to itself, packet path only (IPv4).
    pub hairpin4: [u8; 4],
    /// The same for IPv6.
    pub hairpin6: [u8; 16],
    /// Always zero.
    pub pad: [u8; 16],
}
super::layout!(Config, size 64, align 4);

impl Config {
    /// What an object carries when the loader sets nothing.
    pub const DEFAULT: Self = Self {
        flags: FLAG_SET_RETVAL | FLAG_REDIRECT_PEER | FLAG_REDIRECT_NEIGH,
        tcp_syn_s: 20,
        tcp_established_s: 6 * 3600,
        tcp_fin_s: 30,
        tcp_rst_s: 40,
        udp_new_s: 60,
        udp_assured_s: 180,
        hairpin4: [169, 254, 42, 1],
        hairpin6: [0xfd, 0, 0, 0x6b, 0, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        pad: [0; 16],
    };
}

impl Default for Config {
    fn default() -> Self {
        Self::DEFAULT
    }
}
