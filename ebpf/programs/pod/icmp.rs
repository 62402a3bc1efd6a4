// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Step: an ICMP error about a packet that was translated on its way: the client must find in it
//! the service it knows, or it cannot tell which of its sockets the error is for (path MTU
//! discovery and refused datagrams depend on it).

use ebpf::{
    checksum,
    conntrack::error_key,
    family::{Family, V4, V6},
    packet::ETH_LEN,
    words,
};
use ebpf_abi::{
    conntrack::{CT_HAIRPIN, CtEntry},
    counter::{DropReason, Metric},
};

use crate::{count, flow::Tracked, scratch::Scratch, skb::Skb};

/// Length of an ICMP header; the quoted packet follows.
const ICMP_LEN: u32 = 8;
/// Offset of the checksum in it.
const ICMP_CHECK_OFFSET: u32 = 2;
/// Offset of the destination port in a transport header.
const DPORT_OFFSET: u32 = 2;

/// Families whose ICMP errors are translated.
pub(crate) trait IcmpFamily: Family {
    /// Writes the source of the header at `at`.
    fn store_src(skb: Skb, at: u32, src: &Self::Addr) -> Result<(), DropReason>;
    /// Writes the destination of the header at `at`.
    fn store_dst(skb: Skb, at: u32, dst: &Self::Addr) -> Result<(), DropReason>;
    /// What the change of the outer source, of the quoted destination and of the quoted port
    /// make of the ICMP checksum.
    fn checksum_diff(outer: u32, quoted: u32, port: u32) -> u32;
}

impl IcmpFamily for V4 {
    #[inline(always)]
    fn store_src(skb: Skb, at: u32, src: &u32) -> Result<(), DropReason> {
        skb.store(at + 12, src)
    }

    #[inline(always)]
    fn store_dst(skb: Skb, at: u32, dst: &u32) -> Result<(), DropReason> {
        skb.store(at + 16, dst)
    }

    /// No pseudo header; and the quoted header sums up to the same with its own checksum updated.
    #[inline(always)]
    fn checksum_diff(_outer: u32, _quoted: u32, port: u32) -> u32 {
        port
    }
}

impl IcmpFamily for V6 {
    #[inline(always)]
    fn store_src(skb: Skb, at: u32, src: &words::AddrWords) -> Result<(), DropReason> {
        skb.store(at + 8, src)
    }

    #[inline(always)]
    fn store_dst(skb: Skb, at: u32, dst: &words::AddrWords) -> Result<(), DropReason> {
        skb.store(at + 24, dst)
    }

    #[inline(always)]
    fn checksum_diff(outer: u32, quoted: u32, port: u32) -> u32 {
        checksum::add(checksum::add(outer, quoted), port)
    }
}

/// Translates an ICMP error if it is about a tracked flow; leaves any other packet alone.
#[inline(never)]
pub(crate) fn error<F: Tracked + IcmpFamily>(
    skb: Skb,
    scratch: &mut Scratch<F>,
) -> Result<(), DropReason> {
    let l4 = scratch.packet.l4;
    let about = ebpf::packet::Bytes::load::<u8>(&skb, l4)
        .filter(|kind| F::icmp_error(*kind))
        .and_then(|_kind| F::quoted(&skb, l4 + ICMP_LEN));
    let Some(about) = about else { return Ok(()) };
    scratch.key = error_key::<F>(&about.tuple);
    let Some(entry) = F::flow(&scratch.key) else {
        return Ok(());
    };
    // SAFETY: entries stay mapped during the run.
    let known: &CtEntry = unsafe { &*entry };
    if known.flags & CT_HAIRPIN != 0 {
        return Ok(());
    }
    let vip = F::narrow(&words::from_bytes(known.nat_addr)).ok_or(DropReason::Inconsistent)?;
    let quoted = F::addr_diff(&about.tuple.dst, &vip);
    F::store_dst(skb, l4 + ICMP_LEN, &vip)?;
    F::update_header(skb, l4 + ICMP_LEN, quoted)?;
    let port = words::port(known.nat_port);
    skb.store(about.l4 + DPORT_OFFSET, &port)?;
    // From the backend itself, it is from the service; from a router on the way, it stays.
    let src = scratch.packet.tuple.src;
    let outer = if src == about.tuple.dst {
        let diff = F::addr_diff(&src, &vip);
        F::store_src(skb, ETH_LEN, &vip)?;
        F::update_header(skb, ETH_LEN, diff)?;
        diff
    } else {
        0
    };
    let diff = F::checksum_diff(outer, quoted, checksum::diff16(about.tuple.dport, port));
    skb.update_icmp_checksum(l4 + ICMP_CHECK_OFFSET, diff)?;
    count::counted(Metric::IcmpTranslated, scratch.bytes);
    Ok(())
}
