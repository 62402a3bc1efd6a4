// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! From bytes to a tuple: IPv4, IPv6 with its extension headers, TCP and UDP.
//!
//! Offsets count from the first byte of the Ethernet header. Nothing is read twice, and nothing
//! behind the transport header is read at all.

use ebpf_abi::endpoint::Endpoint;

use crate::family::{Family, Tuple, V4, V6};

/// IP protocol numbers (IANA).
pub const PROTO_ICMP: u8 = 1;
/// TCP.
pub const PROTO_TCP: u8 = 6;
/// UDP.
pub const PROTO_UDP: u8 = 17;
/// ICMP for IPv6.
pub const PROTO_ICMP6: u8 = 58;

/// TCP flags (RFC 9293, 3.1).
pub const TCP_FIN: u8 = 0x01;
/// SYN.
pub const TCP_SYN: u8 = 0x02;
/// RST.
pub const TCP_RST: u8 = 0x04;
/// ACK.
pub const TCP_ACK: u8 = 0x10;

/// Length of an Ethernet header.
pub const ETH_LEN: u32 = 14;
/// EtherType of IPv4.
pub const ETHERTYPE_V4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_V6: u16 = 0x86dd;

/// Offset of the checksum in an IPv4 header.
pub const V4_CHECK_OFFSET: u32 = 10;
/// Offset of the time to live in an IPv4 header.
pub const V4_TTL_OFFSET: u32 = 8;
/// Offset of the hop limit in an IPv6 header.
pub const V6_HOPS_OFFSET: u32 = 7;
/// Offset of the checksum in a TCP header.
pub const TCP_CHECK_OFFSET: u32 = 16;
/// Offset of the checksum in a UDP header.
pub const UDP_CHECK_OFFSET: u32 = 6;

/// IPv6 extension headers that are followed.
pub const EXTENSIONS_MAX: usize = 4;

/// Where bytes of a packet come from.
pub trait Bytes {
    /// `N` bytes at `offset`, or `None` behind the end.
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;
}

/// What follows the IP header, as far as translation minds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP or UDP with its ports in the tuple; the TCP flags, 0 for UDP.
    Ports {
        /// TCP flags.
        tcp_flags: u8,
    },
    /// The first fragment of a TCP or UDP packet: ports are known, the rest is elsewhere.
    FirstFragment,
    /// A later fragment: ports are unknown (zero).
    LaterFragment,
    /// Any other protocol; ports are zero.
    Other,
    /// More than [`EXTENSIONS_MAX`] extension headers; ports are zero.
    LongChain,
}

/// A parsed packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<A> {
    /// Addresses, ports (zero if unknown) and protocol.
    pub tuple: Tuple<A>,
    /// Offset of the transport header; meaningless behind a later fragment or a long chain.
    pub l4: u32,
    /// What the transport header is.
    pub transport: Transport,
    /// Time to live or hop limit.
    pub hops: u8,
}

/// A packet shorter than its headers say, or an IP header that contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Families that know how to read their header.
pub trait Parse: Family {
    /// Reads the IP header at `offset` and the ports behind it.
    /// # Errors
    /// [`Malformed`] if the packet ends too early or the header's version or length is wrong.
    fn parse<B: Bytes>(bytes: &B, offset: u32) -> Result<Packet<Self::Addr>, Malformed>;

    /// True if the pod may send from `src`.
    fn owns(ep: &Endpoint, src: &Self::Addr) -> bool;

    /// True for traffic that never leaves the link (multicast and IPv6 link-local addresses):
    /// the stack's business, whoever sends it.
    fn link_scope(src: &Self::Addr, dst: &Self::Addr) -> bool;
}

impl Parse for V4 {
    #[inline(always)]
    fn parse<B: Bytes>(bytes: &B, offset: u32) -> Result<Packet<[u8; 4]>, Malformed> {
        let ip: [u8; 20] = bytes.load(offset).ok_or(Malformed)?;
        let header_len = u32::from(ip[0] & 0x0f) * 4;
        if ip[0] >> 4 != 4 || header_len < 20 {
            return Err(Malformed);
        }
        // RFC 791, 3.1: flags in the top three bits, then the offset in units of 8 bytes.
        let more = ip[6] & 0x20 != 0;
        let later = ip[6] & 0x1f != 0 || ip[7] != 0;
        let l4 = offset + header_len;
        let fragment = Fragment::new(more, later);
        let (sport, dport, transport) = transport(bytes, l4, ip[9], fragment)?;
        Ok(Packet {
            tuple: Tuple {
                src: [ip[12], ip[13], ip[14], ip[15]],
                dst: [ip[16], ip[17], ip[18], ip[19]],
                sport,
                dport,
                proto: ip[9],
            },
            l4,
            transport,
            hops: ip[8],
        })
    }

    #[inline(always)]
    fn owns(ep: &Endpoint, src: &[u8; 4]) -> bool {
        ep.ip4 == *src && ep.ip4 != [0; 4]
    }

    #[inline(always)]
    fn link_scope(_src: &[u8; 4], _dst: &[u8; 4]) -> bool {
        false
    }
}

impl Parse for V6 {
    #[inline(always)]
    fn parse<B: Bytes>(bytes: &B, offset: u32) -> Result<Packet<[u8; 16]>, Malformed> {
        let head: [u8; 8] = bytes.load(offset).ok_or(Malformed)?;
        let src: [u8; 16] = bytes.load(offset + 8).ok_or(Malformed)?;
        let dst: [u8; 16] = bytes.load(offset + 24).ok_or(Malformed)?;
        if head[0] >> 4 != 6 {
            return Err(Malformed);
        }
        let chain = follow_chain(bytes, head[6], offset + 40)?;
        let (sport, dport, transport) = match chain.fragment {
            Some(fragment) => transport(bytes, chain.l4, chain.proto, fragment)?,
            None => ([0; 2], [0; 2], Transport::LongChain),
        };
        Ok(Packet {
            tuple: Tuple {
                src,
                dst,
                sport,
                dport,
                proto: chain.proto,
            },
            l4: chain.l4,
            transport,
            hops: head[7],
        })
    }

    #[inline(always)]
    fn owns(ep: &Endpoint, src: &[u8; 16]) -> bool {
        ep.ip6 == *src && ep.ip6 != [0; 16]
    }

    /// RFC 4291: `ff00::/8` and `fe80::/10`; the unspecified source only towards those.
    #[inline(always)]
    fn link_scope(src: &[u8; 16], dst: &[u8; 16]) -> bool {
        let link_local = |a: &[u8; 16]| a[0] == 0xfe && a[1] & 0xc0 == 0x80;
        let here = dst[0] == 0xff || link_local(dst);
        here && (link_local(src) || *src == [0; 16])
    }
}

/// Whether a packet is a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fragment {
    Whole,
    First,
    Later,
}

impl Fragment {
    #[inline(always)]
    const fn new(more: bool, later: bool) -> Self {
        match (later, more) {
            (true, _) => Self::Later,
            (false, true) => Self::First,
            (false, false) => Self::Whole,
        }
    }
}

/// What stands behind an IPv6 header and its extensions; without `fragment` the chain is longer
/// than is followed.
struct Chain {
    proto: u8,
    l4: u32,
    fragment: Option<Fragment>,
}

/// Follows hop-by-hop, routing and destination options and the fragment header (RFC 8200, 4).
#[inline(always)]
fn follow_chain<B: Bytes>(bytes: &B, first: u8, offset: u32) -> Result<Chain, Malformed> {
    let mut proto = first;
    let mut l4 = offset;
    let mut fragment = Fragment::Whole;
    let mut i = 0;
    while i <= EXTENSIONS_MAX {
        match proto {
            0 | 43 | 60 => {
                let extension: [u8; 2] = bytes.load(l4).ok_or(Malformed)?;
                proto = extension[0];
                l4 += (u32::from(extension[1]) + 1) * 8;
            }
            44 => {
                let extension: [u8; 8] = bytes.load(l4).ok_or(Malformed)?;
                let later = extension[2] != 0 || extension[3] & 0xf8 != 0;
                // RFC 6946: an atomic fragment is a whole packet, but its header stays in the
                // way of no one: the transport header follows.
                fragment = Fragment::new(extension[3] & 1 != 0, later);
                proto = extension[0];
                l4 += 8;
                if later {
                    return Ok(Chain {
                        proto,
                        l4,
                        fragment: Some(fragment),
                    });
                }
            }
            _ => {
                return Ok(Chain {
                    proto,
                    l4,
                    fragment: Some(fragment),
                });
            }
        }
        i += 1;
    }
    Ok(Chain {
        proto,
        l4,
        fragment: None,
    })
}

/// Ports and kind of the transport header at `l4`.
#[inline(always)]
fn transport<B: Bytes>(
    bytes: &B,
    l4: u32,
    proto: u8,
    fragment: Fragment,
) -> Result<([u8; 2], [u8; 2], Transport), Malformed> {
    if fragment == Fragment::Later {
        return Ok(([0; 2], [0; 2], Transport::LaterFragment));
    }
    let (ports, tcp_flags) = match proto {
        PROTO_TCP => {
            let tcp: [u8; 14] = bytes.load(l4).ok_or(Malformed)?;
            ([tcp[0], tcp[1], tcp[2], tcp[3]], tcp[13])
        }
        PROTO_UDP => {
            let udp: [u8; 4] = bytes.load(l4).ok_or(Malformed)?;
            (udp, 0)
        }
        _ => return Ok(([0; 2], [0; 2], Transport::Other)),
    };
    let transport = match fragment {
        Fragment::First => Transport::FirstFragment,
        Fragment::Whole | Fragment::Later => Transport::Ports { tcp_flags },
    };
    Ok(([ports[0], ports[1]], [ports[2], ports[3]], transport))
}

#[cfg(test)]
mod tests;
