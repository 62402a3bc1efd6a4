// SPDX-License-Identifier: Apache-2.0 OR MIT OR GPL-2.0-only
//! The one 16-byte form of an address.

/// An IPv6 address, or an IPv4 address in its IPv4-mapped form (RFC 4291, 2.5.5.2).
pub type Addr = [u8; 16];

const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// Bits of the mapped prefix: an IPv4 prefix of n bits is an [`Addr`] prefix of `96 + n` bits.
pub const MAPPED_BITS: u32 = 96;

/// Wraps an IPv4 address (network order) into its 16-byte form.
#[inline(always)]
pub const fn from_v4(v4: [u8; 4]) -> Addr {
    [
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, v4[0], v4[1], v4[2], v4[3],
    ]
}

/// True for the IPv4-mapped form.
#[inline(always)]
pub fn is_v4(addr: &Addr) -> bool {
    addr[..12] == MAPPED
}

/// The last four bytes: the IPv4 address of a mapped one, in network order.
#[inline(always)]
pub const fn low_v4(addr: &Addr) -> [u8; 4] {
    [addr[12], addr[13], addr[14], addr[15]]
}
