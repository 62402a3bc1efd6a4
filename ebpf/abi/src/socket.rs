// SPDX-License-Identifier: Apache-2.0 OR MIT OR GPL-2.0-only
//! `sks`, `udprev`, `aff`: what the socket hooks recall. Written by the programs only.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::Addr;

/// Value of `sks`, the storage of a TCP or connected UDP socket: which service it was translated
/// for. It dies with its socket.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct SocketRecord {
    /// What the program asked for.
    pub vip: Addr,
    /// Network order.
    pub port: [u8; 2],
    /// `SOCKET_*`.
    pub flags: u16,
    /// Index into `svc`.
    pub svc: u32,
    /// Index into `be`.
    pub backend: u32,
    /// Generation of the backend at the choice.
    pub backend_generation: u32,
}
super::layout!(SocketRecord, size 32, align 8);

/// The record counts in `be_load.in_flight`.
pub const SOCKET_COUNTED: u16 = 1 << 0;

/// Key of `udprev`: an unconnected UDP socket and the backend it sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UdpKey {
    /// `bpf_get_socket_cookie`.
    pub cookie: u64,
    /// Of the backend.
    pub addr: Addr,
    /// Of the backend, network order.
    pub port: [u8; 2],
    /// Always zero.
    pub pad: [u8; 6],
}
super::layout!(UdpKey, size 32, align 8);

/// Value of `udprev`: the frontend to show as the sender of an answer.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct UdpFrontend {
    /// What the program sent to.
    pub vip: Addr,
    /// Network order.
    pub port: [u8; 2],
    /// Always zero.
    pub pad: [u8; 2],
    /// Index into `svc`.
    pub svc: u32,
}
super::layout!(UdpFrontend, size 24, align 8);

/// Key of `aff`: a client and a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct AffinityKey {
    /// [`CLIENT_NETNS`]: the network namespace's cookie in bytes 0..8 (host order), then zero.
    /// [`CLIENT_ADDR`]: its address.
    pub client: Addr,
    /// Index into `svc`.
    pub svc: u32,
    /// `CLIENT_*`.
    pub kind: u32,
}
super::layout!(AffinityKey, size 24, align 8);

/// A pod or the host of this node, by network namespace: the same key in the socket and the
/// packet path.
pub const CLIENT_NETNS: u32 = 0;
/// A client from outside, by address.
pub const CLIENT_ADDR: u32 = 1;

/// Value of `aff`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Affinity {
    /// Index into `be`.
    pub backend: u32,
    /// Its generation at the choice.
    pub backend_generation: u32,
    /// Boot time in seconds of the last use.
    pub last_s: u32,
    /// Always zero.
    pub pad: u32,
}
super::layout!(Affinity, size 16, align 4);
