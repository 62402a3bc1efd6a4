// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Packets as bytes in, tuples out; no bytes make the parser read behind the end.

use ebpf_abi::addr::from_v4;
use proptest::prelude::*;

use super::*;
use crate::words::port as word;

struct Slice<'a>(&'a [u8]);

impl Bytes for Slice<'_> {
    fn load<T: FromBytes>(&self, offset: u32) -> Option<T> {
        let start = offset as usize;
        T::read_from_bytes(self.0.get(start..start + size_of::<T>())?).ok()
    }
}

fn v4(fragment: [u8; 2], options: usize, proto: u8, payload: &[u8]) -> Vec<u8> {
    let words = u8::try_from(5 + options).unwrap();
    let mut ip = vec![
        0x40 | words,
        0,
        0,
        40,
        0,
        0,
        fragment[0],
        fragment[1],
        64,
        proto,
        0,
        0,
    ];
    ip.extend([10, 244, 1, 2, 10, 96, 0, 1]);
    ip.extend(vec![1; options * 4]);
    ip.extend(payload);
    ip
}

fn v6(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x60, 0, 0, 0, 0, 40, first, 63];
    ip.extend([0xfd; 16]);
    ip.extend([0xfc; 16]);
    ip.extend(payload);
    ip
}

const TCP: [u8; 20] = [
    0x80, 0x01, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 1, 0, 0, 0, 0, 0,
];
const UDP: [u8; 8] = [0x80, 0x01, 0, 53, 0, 8, 0, 0];

#[test]
fn a_tcp_packet_has_ports_and_flags() {
    let packet = V4::parse(&Slice(&v4([0x40, 0], 0, PROTO_TCP, &TCP)), 0).unwrap();
    assert_eq!(
        V4::widen(&packet.tuple.src),
        words::from_bytes(from_v4([10, 244, 1, 2]))
    );
    assert_eq!(
        V4::widen(&packet.tuple.dst),
        words::from_bytes(from_v4([10, 96, 0, 1]))
    );
    assert_eq!(
        (packet.tuple.sport, packet.tuple.dport),
        (word([0x80, 1]), word([0, 80]))
    );
    assert_eq!((packet.l4, packet.hops), (20, 64));
    assert_eq!(
        (packet.transport, packet.tcp_flags),
        (Transport::Ports, TCP_SYN)
    );
}

#[test]
fn options_move_the_transport_header() {
    let packet = V4::parse(&Slice(&v4([0, 0], 10, PROTO_UDP, &UDP)), 0).unwrap();
    assert_eq!((packet.l4, packet.tuple.dport), (60, word([0, 53])));
    assert_eq!((packet.transport, packet.tcp_flags), (Transport::Ports, 0));
}

#[test]
fn a_first_fragment_is_told_from_a_later_one() {
    let first = V4::parse(&Slice(&v4([0x20, 0], 0, PROTO_UDP, &UDP)), 0).unwrap();
    assert_eq!(
        (first.transport, first.tuple.dport),
        (Transport::FirstFragment, word([0, 53]))
    );
    for fragment in [[0x00, 1], [0x20, 1], [0x01, 0]] {
        let later = V4::parse(&Slice(&v4(fragment, 0, PROTO_UDP, &UDP)), 0).unwrap();
        assert_eq!(
            (later.transport, later.tuple.dport),
            (Transport::LaterFragment, 0)
        );
    }
}

#[test]
fn other_protocols_have_no_ports() {
    let packet = V4::parse(&Slice(&v4([0, 0], 0, PROTO_ICMP, &[8, 0])), 0).unwrap();
    assert_eq!(
        (packet.transport, packet.tuple.sport),
        (Transport::Other, 0)
    );
}

#[test]
fn a_short_or_false_header_is_malformed() {
    let good = v4([0, 0], 0, PROTO_TCP, &TCP);
    for len in 0..40 {
        assert_eq!(
            V4::parse(&Slice(&good[..len]), 0),
            Err(Malformed),
            "{len} bytes"
        );
    }
    for first in [0x44, 0x55, 0x00, 0x65] {
        let mut bad = good.clone();
        bad[0] = first;
        assert_eq!(V4::parse(&Slice(&bad), 0), Err(Malformed), "{first:#x}");
    }
    let good = v6(PROTO_UDP, &UDP);
    for len in 0..48 {
        assert_eq!(
            V6::parse(&Slice(&good[..len]), 0),
            Err(Malformed),
            "{len} bytes"
        );
    }
}

#[test]
fn ipv6_extensions_are_followed() {
    let mut payload = vec![60, 0, 0, 0, 0, 0, 0, 0];
    payload.extend([PROTO_TCP, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    payload.extend(TCP);
    let packet = V6::parse(&Slice(&v6(0, &payload)), 0).unwrap();
    assert_eq!(
        (packet.l4, packet.tuple.proto, packet.tuple.dport),
        (64, PROTO_TCP, word([0, 80]))
    );
}

#[test]
fn ipv6_fragments_are_told_apart() {
    let table = [
        ([0, 0], Transport::Ports),
        ([0, 1], Transport::FirstFragment),
        ([0, 8], Transport::LaterFragment),
        ([1, 1], Transport::LaterFragment),
    ];
    for (offset, expected) in table {
        let mut payload = vec![PROTO_UDP, 0, offset[0], offset[1], 0, 0, 0, 7];
        payload.extend(UDP);
        let packet = V6::parse(&Slice(&v6(44, &payload)), 0).unwrap();
        assert_eq!(packet.transport, expected, "{offset:?}");
    }
}

#[test]
fn a_chain_is_followed_to_its_bound_and_not_further() {
    for (extensions, long) in [(EXTENSIONS_MAX, false), (EXTENSIONS_MAX + 1, true)] {
        let mut payload = Vec::new();
        for i in 0..extensions {
            let next = if i + 1 == extensions { PROTO_UDP } else { 60 };
            payload.extend([next, 0, 0, 0, 0, 0, 0, 0]);
        }
        payload.extend(UDP);
        let packet = V6::parse(&Slice(&v6(60, &payload)), 0).unwrap();
        assert_eq!(
            packet.transport == Transport::LongChain,
            long,
            "{extensions} extensions"
        );
    }
}

#[test]
fn an_error_quotes_a_packet_by_its_first_bytes() {
    let whole = v4([0, 0], 0, PROTO_TCP, &TCP);
    let quoted = V4::quoted(&Slice(&whole[..28]), 0).unwrap();
    assert_eq!((quoted.l4, quoted.tuple.proto), (20, PROTO_TCP));
    assert_eq!(
        (quoted.tuple.sport, quoted.tuple.dport),
        (word([0x80, 1]), word([0, 80]))
    );
    assert_eq!(
        V4::quoted(&Slice(&whole[..23]), 0),
        None,
        "too short for the ports"
    );
    assert_eq!(
        V4::quoted(&Slice(&v4([0, 1], 0, PROTO_TCP, &TCP)), 0),
        None,
        "a later fragment"
    );
    assert_eq!(
        V4::quoted(&Slice(&v4([0, 0], 0, PROTO_ICMP, &[8; 8])), 0),
        None,
        "no ports"
    );
    let quoted = V6::quoted(&Slice(&v6(PROTO_UDP, &UDP)), 0).unwrap();
    assert_eq!((quoted.l4, quoted.tuple.dport), (40, word([0, 53])));
    assert_eq!(
        V6::quoted(&Slice(&v6(44, &UDP)), 0),
        None,
        "an extension header"
    );
}

#[test]
fn only_errors_quote() {
    let v4: Vec<u8> = (0..=255).filter(|kind| V4::icmp_error(*kind)).collect();
    assert_eq!(v4, [3, 11, 12]);
    let v6: Vec<u8> = (0..=255).filter(|kind| V6::icmp_error(*kind)).collect();
    assert_eq!(v6, [1, 2, 3, 4]);
}

fn address(bytes: [u8; 4]) -> u32 {
    words::as_v4(&words::from_bytes(from_v4(bytes))).unwrap()
}

#[test]
fn a_pod_owns_its_addresses_only() {
    let ep = Endpoint {
        ip4: [10, 0, 0, 1],
        ..Endpoint::default()
    };
    assert!(V4::owns(&ep, &address([10, 0, 0, 1])));
    assert!(!V4::owns(&ep, &address([10, 0, 0, 2])));
    assert!(
        !V4::owns(&Endpoint::default(), &0),
        "no address is not an address"
    );
    assert!(
        !V6::owns(&ep, &[0; 4]),
        "the unspecified address is nobody's"
    );
}

#[test]
fn neighbour_discovery_is_of_link_scope() {
    let link_local = [0xfe80_0000_u32.to_be(), 0, 0, 7];
    let last_link_local = [0xfebf_ffff_u32.to_be(), 0, 0, 7];
    let site_local = [0xfec0_0000_u32.to_be(), 0, 0, 7];
    let multicast = [0xff02_0000_u32.to_be(), 0, 0, 1];
    let global = [0xfd00_0000_u32.to_be(), 0, 0, 1];
    let table = [
        (link_local, multicast, true),
        ([0; 4], multicast, true),
        (last_link_local, multicast, true),
        (site_local, multicast, false),
        (link_local, link_local, true),
        (link_local, global, false),
        (global, multicast, false),
        ([0; 4], global, false),
    ];
    for (src, dst, expected) in table {
        assert_eq!(V6::link_scope(&src, &dst), expected, "{src:?} {dst:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_break_the_parser(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = bytes;
        for version in [0x45, 0x60] {
            if let Some(first) = bytes.first_mut() {
                *first = version;
            }
            let v4 = V4::parse(&Slice(&bytes), 0);
            let v6 = V6::parse(&Slice(&bytes), 0);
            prop_assert!(v4.is_err() || v6.is_err(), "one version, one family");
        }
    }
}
