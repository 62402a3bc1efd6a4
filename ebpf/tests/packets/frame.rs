// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Frames as data: built byte by byte, checksums summed in full, independent of the code under
//! test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) type Mac = [u8; 6];

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

/// What stands behind the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum L4 {
    Tcp {
        flags: u8,
    },
    Udp,
    /// UDP without a checksum (IPv4 only).
    UdpUnchecked,
    /// ICMP or ICMPv6 echo request.
    Echo,
    /// ICMP or ICMPv6 error of this type; the payload is what it quotes.
    IcmpError {
        kind: u8,
        code: u8,
    },
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) eth_dst: Mac,
    pub(crate) eth_src: Mac,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) sport: u16,
    pub(crate) dport: u16,
    pub(crate) hops: u8,
    pub(crate) l4: L4,
    /// Offset in units of 8 bytes and whether more follow.
    pub(crate) fragment: Option<(u16, bool)>,
    /// Bytes of IPv4 options or of an IPv6 destination options header, a multiple of 8.
    pub(crate) options: usize,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let transport = self.transport();
        let mut frame = [self.eth_dst, self.eth_src].concat();
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                frame.extend([0x08, 0x00]);
                frame.extend(self.header4(src, dst, transport.len()));
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                frame.extend([0x86, 0xdd]);
                frame.extend(self.header6(src, dst, transport.len()));
            }
            (src, dst) => panic!("a frame from {src} to {dst}"),
        }
        frame.extend(transport);
        frame
    }

    pub(crate) fn len(&self) -> u64 {
        self.bytes().len() as u64
    }

    fn protocol(&self) -> u8 {
        match (self.l4, self.src) {
            (L4::Tcp { .. }, _) => 6,
            (L4::Udp | L4::UdpUnchecked, _) => 17,
            (L4::Echo | L4::IcmpError { .. }, IpAddr::V4(_)) => 1,
            (L4::Echo | L4::IcmpError { .. }, IpAddr::V6(_)) => 58,
        }
    }

    fn header4(&self, src: Ipv4Addr, dst: Ipv4Addr, payload: usize) -> Vec<u8> {
        let len = 20 + self.options;
        let total = u16::try_from(len + payload).unwrap().to_be_bytes();
        let words = u8::try_from(len / 4).unwrap();
        let (offset, more) = self.fragment.unwrap_or((0, false));
        let fragment = (offset | u16::from(more) << 13).to_be_bytes();
        let mut header = vec![0x40 | words, 0, total[0], total[1], 0x12, 0x34];
        header.extend([fragment[0], fragment[1], self.hops, self.protocol(), 0, 0]);
        header.extend(src.octets());
        header.extend(dst.octets());
        header.extend(vec![1; self.options]);
        let check = checksum(&header);
        header[10..12].copy_from_slice(&check);
        header
    }

    fn header6(&self, src: Ipv6Addr, dst: Ipv6Addr, payload: usize) -> Vec<u8> {
        let mut extensions = Vec::new();
        let mut next = self.protocol();
        if let Some((offset, more)) = self.fragment {
            let field = (offset << 3 | u16::from(more)).to_be_bytes();
            extensions.extend([next, 0, field[0], field[1], 0, 0, 0, 9]);
            next = 44;
        }
        if self.options != 0 {
            let mut header = vec![next, u8::try_from(self.options / 8 - 1).unwrap()];
            header.extend([1, u8::try_from(self.options - 4).unwrap()]);
            header.resize(self.options, 0);
            header.extend(extensions);
            extensions = header;
            next = 60;
        }
        let len = u16::try_from(extensions.len() + payload)
            .unwrap()
            .to_be_bytes();
        let mut header = vec![0x60, 0, 0, 0, len[0], len[1], next, self.hops];
        header.extend(src.octets());
        header.extend(dst.octets());
        header.extend(extensions);
        header
    }

    fn transport(&self) -> Vec<u8> {
        if self.fragment.is_some_and(|(offset, _)| offset != 0) {
            return self.payload.clone();
        }
        let ports = [self.sport.to_be_bytes(), self.dport.to_be_bytes()].concat();
        let (mut bytes, check_at) = match self.l4 {
            L4::Tcp { flags } => {
                let mut tcp = ports;
                tcp.extend([1, 2, 3, 4, 5, 6, 7, 8, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
                (tcp, 16)
            }
            L4::Udp | L4::UdpUnchecked => {
                let mut udp = ports;
                udp.extend(u16::try_from(8 + self.payload.len()).unwrap().to_be_bytes());
                udp.extend([0, 0]);
                (udp, 6)
            }
            L4::Echo => {
                let kind = if self.src.is_ipv4() { 8 } else { 128 };
                (vec![kind, 0, 0, 0, 0, 7, 0, 1], 2)
            }
            L4::IcmpError { kind, code } => (vec![kind, code, 0, 0, 0, 0, 0, 0], 2),
        };
        bytes.extend(&self.payload);
        if self.l4 != L4::UdpUnchecked {
            let check = match checksum(&[self.pseudo_header(bytes.len()), bytes.clone()].concat()) {
                [0, 0] if self.l4 == L4::Udp => [0xff, 0xff],
                check => check,
            };
            bytes[check_at..check_at + 2].copy_from_slice(&check);
        }
        bytes
    }

    /// A multiple of two bytes, so that it can be summed in front of the rest.
    fn pseudo_header(&self, len: usize) -> Vec<u8> {
        let len = u32::try_from(len).unwrap();
        match (self.src, self.dst) {
            (IpAddr::V4(_), _) if self.protocol() == 1 => Vec::new(),
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let len = u16::try_from(len).unwrap().to_be_bytes();
                let mut pseudo = [src.octets(), dst.octets()].concat();
                pseudo.extend([0, self.protocol(), len[0], len[1]]);
                pseudo
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let mut pseudo = [src.octets(), dst.octets()].concat();
                pseudo.extend(len.to_be_bytes());
                pseudo.extend([0, 0, 0, self.protocol()]);
                pseudo
            }
            (src, dst) => panic!("a frame from {src} to {dst}"),
        }
    }
}

/// RFC 1071, one byte pair after the other.
pub(crate) fn checksum(data: &[u8]) -> [u8; 2] {
    let mut sum = 0u64;
    for pair in data.chunks(2) {
        sum += u64::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or(0),
        ]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}
