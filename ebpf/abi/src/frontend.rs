// SPDX-License-Identifier: Apache-2.0 OR MIT OR GPL-2.0-only
//! `fe4`, `fe6`: from an address, port and protocol to a service. Written by the agent only.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Key of `fe4`. The wildcard of a known VIP has port 0 and protocol 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Fe4Key {
    /// Network order.
    pub vip: [u8; 4],
    /// Network order.
    pub port: [u8; 2],
    /// IP protocol number (6 TCP, 17 UDP).
    pub proto: u8,
    /// Always zero.
    pub pad: u8,
}
super::layout!(Fe4Key, size 8, align 8);

/// Key of `fe6`. The wildcard of a known VIP has port 0 and protocol 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Fe6Key {
    /// Network order.
    pub vip: [u8; 16],
    /// Network order.
    pub port: [u8; 2],
    /// IP protocol number (6 TCP, 17 UDP).
    pub proto: u8,
    /// Always zero.
    pub pad: [u8; 5],
}
super::layout!(Fe6Key, size 24, align 8);

/// Value of `fe4` and `fe6`; eight bytes, so that one load reads all of it (a preallocated hash
/// element may be reused while a reader still holds it).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct Frontend {
    /// Index into `svc`; 0 only with [`FE_WILDCARD`].
    pub svc: u32,
    /// `FE_*`.
    pub flags: u16,
    /// Always zero.
    pub pad: u16,
}
super::layout!(Frontend, size 8, align 8);

/// The entry (vip, 0, 0) of an address that belongs to services only: a port without an entry of
/// its own is refused at once. Never set for a node's own address.
pub const FE_WILDCARD: u16 = 1 << 0;
/// Choose from the service's local extent only (internal or external traffic policy `Local`).
pub const FE_LOCAL: u16 = 1 << 1;
/// The frontend is a node port.
pub const FE_NODE_PORT: u16 = 1 << 2;
/// The frontend is a load balancer's or an external address.
pub const FE_EXTERNAL: u16 = 1 << 3;
