// SPDX-License-Identifier: Apache-2.0 OR MIT OR GPL-2.0-only
//! `ep`, `ifx`, `local`: the pods of this node. Written by the agent only.
//!
//! Order: `ep[i]` whole, then `ifx` and `local`; backwards on removal.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Value of `ep`. Index 0 is never a pod.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Endpoint {
    /// The host side of the pod's veth; 0 is a free entry.
    pub ifindex: u32,
    /// `EP_*`.
    pub flags: u32,
    /// Reserved: policy sets {ingress u32, egress u32}; zero is none.
    pub policy: u64,
    /// `SO_NETNS_COOKIE` of the pod's network namespace; 0 is unknown.
    pub netns_cookie: u64,
    /// Reserved: identity.
    pub identity: u32,
    /// Zero without an IPv4 address; network order.
    pub ip4: [u8; 4],
    /// Zero without an IPv6 address; network order.
    pub ip6: [u8; 16],
    /// Of the device inside the pod.
    pub mac: [u8; 6],
    /// Of the host side.
    pub host_mac: [u8; 6],
    /// Always zero.
    pub pad: [u8; 4],
}
super::layout!(Endpoint, size 64, align 8);

/// The pod may send from any source (a router or a load balancer in a pod).
pub const EP_ANY_SOURCE: u32 = 1 << 0;
/// Reach the pod through the stack, never by redirection to its device.
pub const EP_NO_REDIRECT: u32 = 1 << 1;

/// Key of `ifx`: interface index of the host side of a pod's veth.
pub type IfxKey = u32;
/// Value of `ifx`: index into `ep`.
pub type IfxValue = u32;

/// Key of `local`: a pod's address ([`crate::addr::Addr`]).
pub type LocalKey = crate::addr::Addr;

/// Value of `local`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct LocalPod {
    /// Index into `ep`.
    pub ep: u32,
    /// Always zero.
    pub pad: u32,
}
super::layout!(LocalPod, size 8, align 8);
