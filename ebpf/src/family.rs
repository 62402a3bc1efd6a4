// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! IPv4 and IPv6 behind one trait: changes when a family's keys or header layout change.
//!
//! The packet path is written once over [`Family`] and compiled for each, so a program carries no
//! branch on the family behind its first look at the packet.

use ebpf_abi::{
    addr::{self, Addr},
    conntrack::{Ct4Key, Ct6Key},
    frontend::{Fe4Key, Fe6Key},
};

/// Source, destination, ports and protocol of a packet. Addresses and ports in network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port.
    pub sport: [u8; 2],
    /// Destination port.
    pub dport: [u8; 2],
    /// IP protocol number.
    pub proto: u8,
}

/// What differs between IPv4 and IPv6.
pub trait Family {
    /// An address in network order.
    type Addr: Copy + Eq;
    /// Key of the frontend map.
    type FeKey: Copy;
    /// Key of the conntrack map.
    type CtKey: Copy;

    /// True for IPv4.
    const V4: bool;
    /// Offset of the source address in the IP header; the destination follows it.
    const SRC_OFFSET: usize;

    /// The 16-byte form.
    fn widen(addr: &Self::Addr) -> Addr;
    /// Back from the 16-byte form of this family; `None` for the other family.
    fn narrow(addr: &Addr) -> Option<Self::Addr>;
    /// Key of a frontend; the wildcard has port 0 and protocol 0.
    fn fe_key(vip: &Self::Addr, port: [u8; 2], proto: u8) -> Self::FeKey;
    /// Key of a flow; `dir` is `CT_FORWARD` or `CT_REVERSE`.
    fn ct_key(tuple: &Tuple<Self::Addr>, dir: u8) -> Self::CtKey;
    /// The tuple and direction of a key.
    fn ct_tuple(key: &Self::CtKey) -> (Tuple<Self::Addr>, u8);
    /// One's complement difference between an old and a new address.
    fn addr_diff(old: &Self::Addr, new: &Self::Addr) -> u32;
}

/// IPv4.
#[derive(Clone, Copy, Debug)]
pub enum V4 {}

/// IPv6.
#[derive(Clone, Copy, Debug)]
pub enum V6 {}

impl Family for V4 {
    type Addr = [u8; 4];
    type FeKey = Fe4Key;
    type CtKey = Ct4Key;

    const V4: bool = true;
    const SRC_OFFSET: usize = 12;

    #[inline(always)]
    fn widen(addr: &[u8; 4]) -> Addr {
        addr::from_v4(*addr)
    }

    #[inline(always)]
    fn narrow(addr: &Addr) -> Option<[u8; 4]> {
        addr::is_v4(addr).then(|| addr::low_v4(addr))
    }

    #[inline(always)]
    fn fe_key(vip: &[u8; 4], port: [u8; 2], proto: u8) -> Fe4Key {
        Fe4Key {
            vip: *vip,
            port,
            proto,
            pad: 0,
        }
    }

    #[inline(always)]
    fn ct_key(tuple: &Tuple<[u8; 4]>, dir: u8) -> Ct4Key {
        let Tuple {
            src,
            dst,
            sport,
            dport,
            proto,
        } = *tuple;
        Ct4Key {
            src,
            dst,
            sport,
            dport,
            proto,
            dir,
            pad: [0; 2],
        }
    }

    #[inline(always)]
    fn ct_tuple(key: &Ct4Key) -> (Tuple<[u8; 4]>, u8) {
        let Ct4Key {
            src,
            dst,
            sport,
            dport,
            proto,
            dir,
            pad: _,
        } = *key;
        (
            Tuple {
                src,
                dst,
                sport,
                dport,
                proto,
            },
            dir,
        )
    }

    #[inline(always)]
    fn addr_diff(old: &[u8; 4], new: &[u8; 4]) -> u32 {
        crate::checksum::diff(old, new)
    }
}

impl Family for V6 {
    type Addr = [u8; 16];
    type FeKey = Fe6Key;
    type CtKey = Ct6Key;

    const V4: bool = false;
    const SRC_OFFSET: usize = 8;

    #[inline(always)]
    fn widen(addr: &[u8; 16]) -> Addr {
        *addr
    }

    #[inline(always)]
    fn narrow(addr: &Addr) -> Option<[u8; 16]> {
        (!addr::is_v4(addr)).then_some(*addr)
    }

    #[inline(always)]
    fn fe_key(vip: &[u8; 16], port: [u8; 2], proto: u8) -> Fe6Key {
        Fe6Key {
            vip: *vip,
            port,
            proto,
            pad: [0; 5],
        }
    }

    #[inline(always)]
    fn ct_key(tuple: &Tuple<[u8; 16]>, dir: u8) -> Ct6Key {
        let Tuple {
            src,
            dst,
            sport,
            dport,
            proto,
        } = *tuple;
        Ct6Key {
            src,
            dst,
            sport,
            dport,
            proto,
            dir,
            pad: [0; 2],
        }
    }

    #[inline(always)]
    fn ct_tuple(key: &Ct6Key) -> (Tuple<[u8; 16]>, u8) {
        let Ct6Key {
            src,
            dst,
            sport,
            dport,
            proto,
            dir,
            pad: _,
        } = *key;
        (
            Tuple {
                src,
                dst,
                sport,
                dport,
                proto,
            },
            dir,
        )
    }

    #[inline(always)]
    fn addr_diff(old: &[u8; 16], new: &[u8; 16]) -> u32 {
        crate::checksum::diff(old, new)
    }
}
