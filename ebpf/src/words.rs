// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Addresses and ports as words, the way the programs hold them.
//!
//! The bytes are those of the packet, in network order; a word is what reading them from memory
//! gives on this host. Words are moved, compared and summed, never computed with, so the host's
//! byte order does not show. Held as bytes, each would take an instruction or two of its own: the
//! compiler's BPF target has no unaligned access.

use ebpf_abi::addr::Addr;
use zerocopy::transmute;

/// An address of either family in its 16-byte form ([`ebpf_abi::addr`]).
pub type AddrWords = [u32; 4];

/// A port, network order in memory.
pub type PortWord = u16;

#[expect(clippy::host_endian_bytes, reason = "see the module's header")]
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// Bytes to words.
#[inline(always)]
pub const fn from_bytes(addr: Addr) -> AddrWords {
    transmute!(addr)
}

/// Words to bytes.
#[inline(always)]
pub const fn to_bytes(addr: AddrWords) -> Addr {
    transmute!(addr)
}

/// An IPv4 address in its mapped form.
#[inline(always)]
pub const fn from_v4(v4: u32) -> AddrWords {
    [0, 0, MAPPED, v4]
}

/// The IPv4 address of a mapped one.
#[inline(always)]
pub const fn as_v4(addr: &AddrWords) -> Option<u32> {
    if addr[0] == 0 && addr[1] == 0 && addr[2] == MAPPED {
        Some(addr[3])
    } else {
        None
    }
}

/// A port's word.
#[inline(always)]
#[expect(clippy::host_endian_bytes, reason = "see the module's header")]
pub const fn port(bytes: [u8; 2]) -> PortWord {
    u16::from_ne_bytes(bytes)
}

/// A port's bytes.
#[inline(always)]
#[expect(clippy::host_endian_bytes, reason = "see the module's header")]
pub const fn port_bytes(port: PortWord) -> [u8; 2] {
    port.to_ne_bytes()
}

/// Two ports as they follow each other in a transport header.
#[inline(always)]
pub const fn ports(first: PortWord, second: PortWord) -> u32 {
    transmute!([first, second])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_bytes_are_the_same_address() {
        let bytes = ebpf_abi::addr::from_v4([192, 0, 2, 1]);
        let words = from_bytes(bytes);
        assert_eq!(to_bytes(words), bytes);
        let v4 = as_v4(&words).unwrap();
        let bytes: [u8; 4] = transmute!(v4);
        assert_eq!(bytes, [192, 0, 2, 1]);
        assert_eq!(from_v4(v4), words);
        assert_eq!(as_v4(&from_bytes([0xfd; 16])), None);
        assert_eq!(as_v4(&from_bytes([0; 16])), None);
    }

    #[test]
    fn ports_lie_side_by_side() {
        let both: [u8; 4] = transmute!(ports(port([1, 2]), port([3, 4])));
        assert_eq!(both, [1, 2, 3, 4]);
        assert_eq!(port_bytes(port([0x1f, 0x90])), 8080u16.to_be_bytes());
    }
}
