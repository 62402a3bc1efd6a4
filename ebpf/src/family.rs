// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! IPv4 and IPv6 behind one trait: changes when a family's keys change.
//!
//! The packet path is written once over [`Family`] and compiled for each, so a program carries no
//! branch on the family behind its first look at the packet.

use ebpf_abi::conntrack::{Ct4Key, Ct6Key};
use zerocopy::transmute;

use crate::{
    checksum,
    words::{self, AddrWords, PortWord},
};

/// Source, destination, ports and protocol of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port.
    pub sport: PortWord,
    /// Destination port.
    pub dport: PortWord,
    /// IP protocol number.
    pub proto: u8,
}

/// What differs between IPv4 and IPv6.
pub trait Family {
    /// An address in words.
    type Addr: Copy + Eq + 'static;
    /// Key of the conntrack map.
    type CtKey: Copy;

    /// The form that is common to both.
    fn widen(addr: &Self::Addr) -> AddrWords;
    /// Back from the common form; `None` for an address of the other family.
    fn narrow(addr: &AddrWords) -> Option<Self::Addr>;
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
    type Addr = u32;
    type CtKey = Ct4Key;

    #[inline(always)]
    fn widen(addr: &u32) -> AddrWords {
        words::from_v4(*addr)
    }

    #[inline(always)]
    fn narrow(addr: &AddrWords) -> Option<u32> {
        words::as_v4(addr)
    }

    #[inline(always)]
    fn ct_key(tuple: &Tuple<u32>, dir: u8) -> Ct4Key {
        let Tuple {
            src,
            dst,
            sport,
            dport,
            proto,
        } = *tuple;
        Ct4Key {
            src: transmute!(src),
            dst: transmute!(dst),
            sport: words::port_bytes(sport),
            dport: words::port_bytes(dport),
            proto,
            dir,
            pad: [0; 2],
        }
    }

    #[inline(always)]
    fn ct_tuple(key: &Ct4Key) -> (Tuple<u32>, u8) {
        let Ct4Key {
            src,
            dst,
            sport,
            dport,
            proto,
            dir,
            pad: _,
        } = *key;
        let tuple = Tuple {
            src: transmute!(src),
            dst: transmute!(dst),
            sport: words::port(sport),
            dport: words::port(dport),
            proto,
        };
        (tuple, dir)
    }

    #[inline(always)]
    fn addr_diff(old: &u32, new: &u32) -> u32 {
        checksum::diff(&[*old], &[*new])
    }
}

impl Family for V6 {
    type Addr = AddrWords;
    type CtKey = Ct6Key;

    #[inline(always)]
    fn widen(addr: &AddrWords) -> AddrWords {
        *addr
    }

    #[inline(always)]
    fn narrow(addr: &AddrWords) -> Option<AddrWords> {
        match words::as_v4(addr) {
            Some(_) => None,
            None => Some(*addr),
        }
    }

    #[inline(always)]
    fn ct_key(tuple: &Tuple<AddrWords>, dir: u8) -> Ct6Key {
        let Tuple {
            src,
            dst,
            sport,
            dport,
            proto,
        } = *tuple;
        Ct6Key {
            src: words::to_bytes(src),
            dst: words::to_bytes(dst),
            sport: words::port_bytes(sport),
            dport: words::port_bytes(dport),
            proto,
            dir,
            pad: [0; 2],
        }
    }

    #[inline(always)]
    fn ct_tuple(key: &Ct6Key) -> (Tuple<AddrWords>, u8) {
        let Ct6Key {
            src,
            dst,
            sport,
            dport,
            proto,
            dir,
            pad: _,
        } = *key;
        let tuple = Tuple {
            src: words::from_bytes(src),
            dst: words::from_bytes(dst),
            sport: words::port(sport),
            dport: words::port(dport),
            proto,
        };
        (tuple, dir)
    }

    #[inline(always)]
    fn addr_diff(old: &AddrWords, new: &AddrWords) -> u32 {
        checksum::diff(old, new)
    }
}
