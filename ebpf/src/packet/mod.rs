// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! From bytes to a tuple: IPv4, IPv6 with its extension headers, TCP and UDP.
//!
//! Offsets count from the first byte of the Ethernet header. Nothing is read twice, and nothing
//! behind the transport header is read at all.

use ebpf_abi::endpoint::Endpoint;
use zerocopy::{FromBytes, transmute};

use crate::{
    family::{Family, Tuple, V4, V6},
    words::{self, AddrWords, PortWord},
};

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
    /// A header at `offset`, or `None` if the packet ends before its end.
    fn load<T: FromBytes>(&self, offset: u32) -> Option<T>;
}

/// IPv4 header without options (RFC 791, 3.1).
#[derive(Clone, Copy, FromBytes)]
#[repr(C)]
struct Header4 {
    version_length: u8,
    _service: u8,
    _total_length: u16,
    _id: u16,
    /// Flags in the top three bits, then the offset in units of 8 bytes; network order.
    fragment: [u8; 2],
    hops: u8,
    proto: u8,
    _check: u16,
    src: u32,
    dst: u32,
}

/// IPv6 header (RFC 8200, 3).
#[derive(Clone, Copy, FromBytes)]
#[repr(C)]
struct Header6 {
    version: u8,
    _class_flow: [u8; 3],
    _payload_length: u16,
    next: u8,
    hops: u8,
    src: AddrWords,
    dst: AddrWords,
}

/// TCP header without options (RFC 9293, 3.1).
#[derive(Clone, Copy, FromBytes)]
#[repr(C)]
struct Tcp {
    ports: [PortWord; 2],
    _sequence: [u16; 4],
    _length: u8,
    flags: u8,
    _window_check_urgent: [u16; 3],
}

/// UDP header (RFC 768).
#[derive(Clone, Copy, FromBytes)]
#[repr(C)]
struct Udp {
    ports: [PortWord; 2],
    _length_check: [u16; 2],
}

/// What follows the IP header, as far as translation minds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Transport {
    /// TCP or UDP with its ports in the tuple.
    Ports,
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
    /// TCP flags; 0 unless they are known. Not a part of `transport`: a value that exists on some
    /// paths only would be read on all of them, which the verifier refuses.
    pub tcp_flags: u8,
    /// Time to live or hop limit.
    pub hops: u8,
}

/// The packet that an ICMP error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted<A> {
    /// Its tuple, as it was where the error arose.
    pub tuple: Tuple<A>,
    /// Offset of its transport header.
    pub l4: u32,
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

    /// Protocol number of the family's ICMP.
    const ICMP: u8;

    /// True if an ICMP message of this type reports an error and quotes a packet.
    fn icmp_error(kind: u8) -> bool;

    /// Reads what an ICMP error quotes, at `offset`: an IP header and at least the first eight
    /// bytes behind it (RFC 792; RFC 4443, 2.4). `None` if it is not the beginning of a TCP or UDP
    /// packet, or for IPv6 if an extension header is in front.
    fn quoted<B: Bytes>(bytes: &B, offset: u32) -> Option<Quoted<Self::Addr>>;

    /// True if the pod may send from `src`.
    fn owns(ep: &Endpoint, src: &Self::Addr) -> bool;

    /// True for traffic that never leaves the link (multicast and IPv6 link-local addresses):
    /// the stack's business, whoever sends it.
    fn link_scope(src: &Self::Addr, dst: &Self::Addr) -> bool;
}

impl Parse for V4 {
    #[inline(always)]
    fn parse<B: Bytes>(bytes: &B, offset: u32) -> Result<Packet<u32>, Malformed> {
        let ip: Header4 = bytes.load(offset).ok_or(Malformed)?;
        let header_len = u32::from(ip.version_length & 0x0f) * 4;
        if ip.version_length >> 4 != 4 || header_len < 20 {
            return Err(Malformed);
        }
        let more = ip.fragment[0] & 0x20 != 0;
        let later = ip.fragment[0] & 0x1f != 0 || ip.fragment[1] != 0;
        let l4 = offset + header_len;
        let fragment = Fragment::new(more, later);
        let l4_header = transport(bytes, l4, ip.proto, fragment)?;
        Ok(Packet {
            tuple: Tuple {
                src: ip.src,
                dst: ip.dst,
                sport: l4_header.ports[0],
                dport: l4_header.ports[1],
                proto: ip.proto,
            },
            l4,
            transport: l4_header.transport,
            tcp_flags: l4_header.tcp_flags,
            hops: ip.hops,
        })
    }

    const ICMP: u8 = PROTO_ICMP;

    /// RFC 792: destination unreachable, time exceeded, parameter problem.
    #[inline(always)]
    fn icmp_error(kind: u8) -> bool {
        matches!(kind, 3 | 11 | 12)
    }

    #[inline(always)]
    fn quoted<B: Bytes>(bytes: &B, offset: u32) -> Option<Quoted<u32>> {
        let ip: Header4 = bytes.load(offset)?;
        let header_len = u32::from(ip.version_length & 0x0f) * 4;
        let later = ip.fragment[0] & 0x1f != 0 || ip.fragment[1] != 0;
        if ip.version_length >> 4 != 4 || header_len < 20 || later {
            return None;
        }
        quoted(bytes, offset + header_len, ip.src, ip.dst, ip.proto)
    }

    #[inline(always)]
    fn owns(ep: &Endpoint, src: &u32) -> bool {
        let own: u32 = transmute!(ep.ip4);
        own == *src && own != 0
    }

    #[inline(always)]
    fn link_scope(_src: &u32, _dst: &u32) -> bool {
        false
    }
}

impl Parse for V6 {
    #[inline(always)]
    fn parse<B: Bytes>(bytes: &B, offset: u32) -> Result<Packet<AddrWords>, Malformed> {
        let ip: Header6 = bytes.load(offset).ok_or(Malformed)?;
        if ip.version >> 4 != 6 {
            return Err(Malformed);
        }
        let chain = follow_chain(bytes, ip.next, offset + 40)?;
        let l4_header = match chain.fragment {
            Some(fragment) => transport(bytes, chain.l4, chain.proto, fragment)?,
            None => L4::without_ports(Transport::LongChain),
        };
        Ok(Packet {
            tuple: Tuple {
                src: ip.src,
                dst: ip.dst,
                sport: l4_header.ports[0],
                dport: l4_header.ports[1],
                proto: chain.proto,
            },
            l4: chain.l4,
            transport: l4_header.transport,
            tcp_flags: l4_header.tcp_flags,
            hops: ip.hops,
        })
    }

    const ICMP: u8 = PROTO_ICMP6;

    /// RFC 4443: types below 128 are errors; those defined are 1 to 4.
    #[inline(always)]
    fn icmp_error(kind: u8) -> bool {
        matches!(kind, 1..=4)
    }

    #[inline(always)]
    fn quoted<B: Bytes>(bytes: &B, offset: u32) -> Option<Quoted<AddrWords>> {
        let ip: Header6 = bytes.load(offset)?;
        if ip.version >> 4 != 6 {
            return None;
        }
        quoted(bytes, offset + 40, ip.src, ip.dst, ip.next)
    }

    #[inline(always)]
    fn owns(ep: &Endpoint, src: &AddrWords) -> bool {
        let own = words::from_bytes(ep.ip6);
        own == *src && own != [0; 4]
    }

    /// RFC 4291: `ff00::/8` and `fe80::/10`; the unspecified source only towards those.
    #[inline(always)]
    fn link_scope(src: &AddrWords, dst: &AddrWords) -> bool {
        let top = |addr: &AddrWords| u32::from_be(addr[0]);
        let link_local = |addr: &AddrWords| top(addr) >> 22 == 0xfe80 >> 6;
        let here = top(dst) >> 24 == 0xff || link_local(dst);
        here && (link_local(src) || *src == [0; 4])
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

/// What the transport header says.
struct L4 {
    ports: [PortWord; 2],
    transport: Transport,
    tcp_flags: u8,
}

impl L4 {
    #[inline(always)]
    const fn without_ports(transport: Transport) -> Self {
        Self {
            ports: [0; 2],
            transport,
            tcp_flags: 0,
        }
    }
}

/// Reads the transport header at `l4`, all of it: what is written later must be there.
#[inline(always)]
fn transport<B: Bytes>(bytes: &B, l4: u32, proto: u8, fragment: Fragment) -> Result<L4, Malformed> {
    if fragment == Fragment::Later {
        return Ok(L4::without_ports(Transport::LaterFragment));
    }
    let (ports, tcp_flags): ([PortWord; 2], u8) = match proto {
        PROTO_TCP => {
            let tcp: Tcp = bytes.load(l4).ok_or(Malformed)?;
            (tcp.ports, tcp.flags)
        }
        PROTO_UDP => {
            let udp: Udp = bytes.load(l4).ok_or(Malformed)?;
            (udp.ports, 0)
        }
        _ => return Ok(L4::without_ports(Transport::Other)),
    };
    let transport = match fragment {
        Fragment::First => Transport::FirstFragment,
        Fragment::Whole | Fragment::Later => Transport::Ports,
    };
    Ok(L4 {
        ports,
        transport,
        tcp_flags,
    })
}

#[inline(always)]
fn quoted<B: Bytes, A>(bytes: &B, l4: u32, src: A, dst: A, proto: u8) -> Option<Quoted<A>> {
    if proto != PROTO_TCP && proto != PROTO_UDP {
        return None;
    }
    let [sport, dport]: [PortWord; 2] = bytes.load(l4)?;
    Some(Quoted {
        tuple: Tuple {
            src,
            dst,
            sport,
            dport,
            proto,
        },
        l4,
    })
}

#[cfg(test)]
mod tests;
