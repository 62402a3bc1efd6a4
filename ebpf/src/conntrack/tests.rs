// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! No packet sequence takes a flow backwards, and its entries always find each other.

use proptest::prelude::*;

use super::*;
use crate::{
    family::{V4, V6},
    packet::PROTO_UDP,
};

const DIRECTIONS: [Direction; 2] = [Direction::Forward, Direction::Reverse];

fn direction() -> impl Strategy<Value = Direction> {
    prop::sample::select(&DIRECTIONS)
}

fn tuple4() -> impl Strategy<Value = Tuple<u32>> {
    any::<(u32, u32, u16, u16)>().prop_map(|(src, dst, sport, dport)| Tuple {
        src,
        dst,
        sport,
        dport,
        proto: PROTO_TCP,
    })
}

fn opening4() -> impl Strategy<Value = Opening<u32>> {
    any::<(u32, u16, Option<u32>)>().prop_map(|(addr, port, hairpin)| Opening {
        addr,
        port,
        hairpin,
        svc: 1,
        backend: 2,
        backend_generation: 3,
    })
}

#[test]
fn a_tcp_flow_goes_through_its_states_in_order() {
    let script = [
        (Direction::Forward, TCP_SYN, State::New),
        (Direction::Reverse, TCP_SYN | TCP_ACK, State::Established),
        (Direction::Forward, TCP_ACK, State::Established),
        (Direction::Reverse, TCP_FIN | TCP_ACK, State::Closing),
        (Direction::Forward, TCP_ACK, State::Closing),
        (Direction::Forward, TCP_FIN | TCP_ACK, State::Closed),
        (Direction::Reverse, TCP_ACK, State::Closed),
    ];
    let mut flags = 0;
    for (direction, tcp_flags, expected) in script {
        flags |= bits(direction, tcp_flags);
        assert_eq!(state(flags), expected, "{direction:?} {tcp_flags:#x}");
    }
}

#[test]
fn a_refused_connection_is_closed_by_its_first_answer() {
    assert_eq!(
        state(bits(Direction::Reverse, TCP_RST | TCP_ACK)),
        State::Closed
    );
}

#[test]
fn only_a_plain_syn_opens_an_ended_flow_again() {
    let closed = CT_ANSWERED | CT_RST;
    assert!(reopens(closed, TCP_SYN));
    assert!(reopens(CT_ANSWERED | CT_FIN_FORWARD, TCP_SYN));
    assert!(!reopens(closed, TCP_SYN | TCP_ACK));
    assert!(!reopens(closed, TCP_ACK));
    assert!(
        !reopens(CT_ANSWERED, TCP_SYN),
        "an established flow keeps its backend"
    );
    assert!(!reopens(0, TCP_SYN), "a repeated SYN keeps its backend");
}

#[test]
fn each_state_has_its_own_time_out() {
    let config = Config::DEFAULT;
    let table = [
        (PROTO_TCP, 0, config.tcp_syn_s),
        (PROTO_TCP, CT_ANSWERED, config.tcp_established_s),
        (PROTO_TCP, CT_ANSWERED | CT_FIN_REVERSE, config.tcp_fin_s),
        (
            PROTO_TCP,
            CT_ANSWERED | CT_FIN_REVERSE | CT_FIN_FORWARD,
            config.tcp_fin_s,
        ),
        (PROTO_TCP, CT_RST, config.tcp_rst_s),
        (PROTO_UDP, 0, config.udp_new_s),
        (PROTO_UDP, CT_ANSWERED, config.udp_assured_s),
    ];
    for (proto, flags, expected) in table {
        assert_eq!(
            timeout_s(proto, flags, &config),
            expected,
            "{proto} {flags:#x}"
        );
    }
}

#[test]
fn a_flow_ends_after_its_time_out_and_not_at_it() {
    assert!(!expired(110, 100, 10));
    assert!(expired(111, 100, 10));
    assert!(!expired(99, 100, 10), "another CPU's later clock");
    assert!(expired(u32::MAX, 0, u32::MAX - 1));
}

proptest! {
    #[test]
    fn no_packet_takes_a_flow_backwards(
        packets in prop::collection::vec((direction(), any::<u8>()), 1..40),
    ) {
        let mut flags = 0;
        for (direction, tcp_flags) in packets {
            let next = flags | bits(direction, tcp_flags);
            prop_assert!(state(next) >= state(flags));
            flags = next;
        }
    }

    #[test]
    fn the_order_of_two_cpus_does_not_matter(
        flags in 0u64..32, one in (direction(), any::<u8>()), other in (direction(), any::<u8>()),
    ) {
        let (a, b) = (bits(one.0, one.1), bits(other.0, other.1));
        prop_assert_eq!(flags | a | b, flags | b | a);
    }

    #[test]
    fn the_entries_of_a_flow_find_each_other(tuple in tuple4(), opening in opening4()) {
        let forward_key = V4::ct_key(&tuple, CT_FORWARD);
        let reverse_key = reverse_key::<V4>(&tuple, &opening);
        let forward = forward_entry::<V4>(&opening);
        let reverse = reverse_entry::<V4>(&tuple, &opening);
        prop_assert_eq!(twin_key::<V4>(&forward_key, &forward), Some(reverse_key));
        prop_assert_eq!(twin_key::<V4>(&reverse_key, &reverse), Some(forward_key));
    }

    #[test]
    fn an_error_about_a_translated_packet_finds_its_flow(
        tuple in tuple4(), opening in opening4(),
    ) {
        let forward = forward_entry::<V4>(&opening);
        let there = translated::<V4>(&tuple, &forward, Direction::Forward).unwrap();
        prop_assert_eq!(error_key::<V4>(&there), reverse_key::<V4>(&tuple, &opening));
    }

    #[test]
    fn an_answer_comes_back_as_from_the_vip(tuple in tuple4(), opening in opening4()) {
        let forward = forward_entry::<V4>(&opening);
        let reverse = reverse_entry::<V4>(&tuple, &opening);
        let there = translated::<V4>(&tuple, &forward, Direction::Forward).unwrap();
        let answer = Tuple {
            src: there.dst, dst: there.src, sport: there.dport, dport: there.sport, proto: 6,
        };
        prop_assert_eq!(V4::ct_key(&answer, CT_REVERSE), reverse_key::<V4>(&tuple, &opening));
        let back = translated::<V4>(&answer, &reverse, Direction::Reverse).unwrap();
        prop_assert_eq!(
            (back.src, back.dst, back.sport, back.dport),
            (tuple.dst, tuple.src, tuple.dport, tuple.sport)
        );
    }

    #[test]
    fn an_ipv6_flow_has_its_twin_too(
        src in any::<[u32; 4]>(), dst in any::<[u32; 4]>(), ports in any::<[u16; 3]>(),
        addr in any::<[u32; 4]>(), hairpin in any::<Option<[u32; 4]>>(),
    ) {
        let tuple = Tuple { src, dst, sport: ports[0], dport: ports[1], proto: PROTO_UDP };
        let opening = Opening {
            addr, port: ports[2], hairpin, svc: 1, backend: 1, backend_generation: 0,
        };
        let mapped = |a: &[u32; 4]| words::as_v4(a).is_some();
        prop_assume!(!mapped(&src) && !mapped(&dst) && !mapped(&addr));
        prop_assume!(!hairpin.is_some_and(|a| mapped(&a)));
        let key = V6::ct_key(&tuple, CT_FORWARD);
        let forward = forward_entry::<V6>(&opening);
        let twin = twin_key::<V6>(&key, &forward).unwrap();
        prop_assert_eq!(twin, reverse_key::<V6>(&tuple, &opening));
        let reverse = reverse_entry::<V6>(&tuple, &opening);
        prop_assert_eq!(twin_key::<V6>(&twin, &reverse), Some(key));
    }
}
