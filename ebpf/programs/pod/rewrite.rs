// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Writes a new tuple, hop count or Ethernet header into a packet, checksums included.

use ebpf::{
    checksum,
    family::{V4, V6},
    packet::{
        ETH_LEN, PROTO_TCP, Parse, TCP_CHECK_OFFSET, UDP_CHECK_OFFSET, V4_CHECK_OFFSET,
        V4_TTL_OFFSET, V6_HOPS_OFFSET,
    },
    words::{self, AddrWords},
};
use ebpf_abi::counter::DropReason;

use crate::{scratch::Scratch, skb::Skb};

/// Families that know how to write their header.
pub(crate) trait Rewrite: Parse {
    /// Writes source and destination into the header at `at`.
    fn store_addrs(skb: Skb, at: u32, src: &Self::Addr, dst: &Self::Addr)
    -> Result<(), DropReason>;
    /// Updates the checksum of the header at `at`, if the family has one.
    fn update_header(skb: Skb, at: u32, diff: u32) -> Result<(), DropReason>;
    /// Takes one hop off; `hops` is what the packet has now.
    fn take_hop(skb: Skb, hops: u8, proto: u8) -> Result<(), DropReason>;
}

impl Rewrite for V4 {
    #[inline(always)]
    fn store_addrs(skb: Skb, at: u32, src: &u32, dst: &u32) -> Result<(), DropReason> {
        skb.store(at + 12, &[*src, *dst])
    }

    #[inline(always)]
    fn update_header(skb: Skb, at: u32, diff: u32) -> Result<(), DropReason> {
        skb.update_header_checksum(at + V4_CHECK_OFFSET, diff)
    }

    #[inline(always)]
    fn take_hop(skb: Skb, hops: u8, proto: u8) -> Result<(), DropReason> {
        let left = hops.wrapping_sub(1);
        let diff = checksum::diff16(words::port([hops, proto]), words::port([left, proto]));
        skb.store(ETH_LEN + V4_TTL_OFFSET, &left)?;
        skb.update_header_checksum(ETH_LEN + V4_CHECK_OFFSET, diff)
    }
}

impl Rewrite for V6 {
    #[inline(always)]
    fn store_addrs(skb: Skb, at: u32, src: &AddrWords, dst: &AddrWords) -> Result<(), DropReason> {
        skb.store(at + 8, src)?;
        skb.store(at + 24, dst)
    }

    #[inline(always)]
    fn update_header(_skb: Skb, _at: u32, _diff: u32) -> Result<(), DropReason> {
        Ok(())
    }

    #[inline(always)]
    fn take_hop(skb: Skb, hops: u8, _proto: u8) -> Result<(), DropReason> {
        skb.store(ETH_LEN + V6_HOPS_OFFSET, &hops.wrapping_sub(1))
    }
}

/// Step: turns the packet's tuple into `scratch.new`. The caller drops the packet on an error, so
/// none leaves half translated.
#[inline(never)]
pub(crate) fn tuple<F: Rewrite>(skb: Skb, scratch: &Scratch<F>) -> Result<(), DropReason> {
    let (old, new, l4) = (&scratch.packet.tuple, &scratch.new, scratch.packet.l4);
    let addrs = checksum::add(
        F::addr_diff(&old.src, &new.src),
        F::addr_diff(&old.dst, &new.dst),
    );
    let old_ports = words::ports(old.sport, old.dport);
    let new_ports = words::ports(new.sport, new.dport);
    let check = if old.proto == PROTO_TCP {
        TCP_CHECK_OFFSET
    } else {
        UDP_CHECK_OFFSET
    };
    F::store_addrs(skb, ETH_LEN, &new.src, &new.dst)?;
    F::update_header(skb, ETH_LEN, addrs)?;
    skb.store(l4, &new_ports)?;
    let ports = checksum::diff(&[old_ports], &[new_ports]);
    skb.update_transport_checksum(l4 + check, addrs, ports)
}

/// Writes the Ethernet addresses.
#[inline(always)]
pub(crate) fn ethernet(skb: Skb, dst: &[u8; 6], src: &[u8; 6]) -> Result<(), DropReason> {
    skb.store(0, &[*dst, *src])
}
