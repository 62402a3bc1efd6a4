// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Packets through the loaded programs, by `BPF_PROG_TEST_RUN`: every byte of what comes out and
//! every counter is compared. Needs root and the built objects.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod frame;
#[path = "../maps/mod.rs"]
mod maps;
mod mutated;
mod node;

use std::net::IpAddr;

use ebpf_abi::{
    config::Config,
    conntrack::{CT_ANSWERED, CT_RST},
    endpoint::{EP_ANY_SOURCE, EP_NO_REDIRECT},
    frontend::{FE_LOCAL, FE_WILDCARD, Frontend},
    service::{BE_FREE, BE_TERMINATING, SVC_AFFINITY},
};

use crate::{
    frame::{ACK, FIN, Frame, L4, RST, SYN},
    maps::Counters,
    node::{CLIENT, DROP, Node, PASS, Pod, REDIRECT, SERVER, far},
};

const SVC: u32 = 1;
const PORT: u16 = 80;
const TARGET: u16 = 8080;

fn vip(v4: bool) -> IpAddr {
    if v4 {
        [10, 96, 0, 10].into()
    } else {
        [0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0xa].into()
    }
}

/// Families and protocols: every test runs over all four.
const ALL: [(bool, L4); 4] = [
    (true, L4::Tcp { flags: SYN }),
    (true, L4::Udp),
    (false, L4::Tcp { flags: SYN }),
    (false, L4::Udp),
];

fn proto(l4: L4) -> u8 {
    if matches!(l4, L4::Tcp { .. }) { 6 } else { 17 }
}

fn frame(from: &Pod, v4: bool, l4: L4, dst: IpAddr, sport: u16, dport: u16) -> Frame {
    Frame {
        eth_dst: from.host_mac,
        eth_src: from.mac,
        src: from.ip(v4),
        dst,
        sport,
        dport,
        hops: 64,
        l4,
        fragment: None,
        options: 0,
        payload: b"odd".to_vec(),
    }
}

/// The client's first packet to the service.
fn question(v4: bool, l4: L4) -> Frame {
    frame(&CLIENT, v4, l4, vip(v4), 40_000, PORT)
}

/// As a pod of this node gets it.
fn delivered(mut frame: Frame, to: &Pod) -> Frame {
    frame.eth_dst = to.mac;
    frame.eth_src = to.host_mac;
    frame.hops -= 1;
    frame
}

/// A node with one service of the given backends, and the VIP known as one.
fn node_with(v4: bool, l4: L4, backends: &[IpAddr]) -> Node {
    let mut node = Node::new();
    add_service(&mut node, v4, l4, backends);
    node
}

fn add_service(node: &mut Node, v4: bool, l4: L4, backends: &[IpAddr]) {
    let ids: Vec<u32> = backends
        .iter()
        .map(|ip| node.add_backend(SVC, *ip, TARGET))
        .collect();
    node.publish(SVC, &ids);
    node.add_frontend(
        vip(v4),
        PORT,
        proto(l4),
        Frontend {
            svc: SVC,
            flags: 0,
            pad: 0,
        },
    );
    node.add_frontend(
        vip(v4),
        0,
        0,
        Frontend {
            svc: 0,
            flags: FE_WILDCARD,
            pad: 0,
        },
    );
}

/// Runs a frame and compares verdict, bytes and all counters.
#[track_caller]
fn check(
    node: &mut Node,
    program: &str,
    sent: &Frame,
    verdict: u32,
    expected: &Frame,
    counters: &[(&'static str, u64)],
) {
    let (got, bytes) = node.run(program, &sent.bytes());
    assert_eq!(
        got,
        verdict,
        "verdict on {sent:?}; counters {:?}",
        node.take_counters()
    );
    assert_eq!(
        bytes,
        expected.bytes(),
        "sent {sent:?}, expected {expected:?}"
    );
    let expected: Counters = counters
        .iter()
        .map(|(name, bytes)| (*name, (1, *bytes)))
        .collect();
    assert_eq!(node.take_counters(), expected, "sent {sent:?}");
}

/// Runs a frame that must be dropped as it is, for one reason.
#[track_caller]
fn check_dropped(node: &mut Node, sent: &Frame, reason: &'static str) {
    check(node, "from_pod", sent, DROP, sent, &[(reason, sent.len())]);
}

/// Sends the first packet to the service and returns it as the server gets it.
#[track_caller]
fn open(node: &mut Node, v4: bool, l4: L4) -> Frame {
    let sent = question(v4, l4);
    let mut expected = delivered(sent.clone(), &SERVER);
    expected.dst = SERVER.ip(v4);
    expected.dport = TARGET;
    let len = sent.len();
    let counters = [
        ("from_pod_local", len),
        ("service_forward", len),
        ("conntrack_new", 0),
    ];
    check(node, "from_pod", &sent, REDIRECT, &expected, &counters);
    expected
}

/// The server's answer to what it got, as it leaves the server.
fn reply(got: &Frame, l4: L4) -> Frame {
    Frame {
        eth_dst: SERVER.host_mac,
        eth_src: SERVER.mac,
        src: got.dst,
        dst: got.src,
        sport: got.dport,
        dport: got.sport,
        hops: 64,
        l4,
        ..got.clone()
    }
}

fn answering(l4: L4) -> L4 {
    match l4 {
        L4::Tcp { .. } => L4::Tcp { flags: SYN | ACK },
        other => other,
    }
}

#[test]
fn a_packet_to_a_service_goes_to_its_backend() {
    for (v4, l4) in ALL {
        let mut node = node_with(v4, l4, &[SERVER.ip(v4)]);
        open(&mut node, v4, l4);
        assert_eq!(node.load_of(1), (1, 1));
        assert_eq!(node.flows().len(), 2);
    }
}

#[test]
fn a_second_packet_finds_its_flow() {
    for (v4, l4) in ALL {
        let mut node = node_with(v4, l4, &[SERVER.ip(v4)]);
        let expected = open(&mut node, v4, l4);
        let (sent, len) = (question(v4, l4), question(v4, l4).len());
        let counters = [("from_pod_local", len), ("service_forward", len)];
        check(&mut node, "from_pod", &sent, REDIRECT, &expected, &counters);
        let mut packets: Vec<_> = node
            .flows()
            .iter()
            .map(|flow| (flow.packets, flow.bytes))
            .collect();
        packets.sort_unstable();
        assert_eq!(packets, [(0, 0), (2, 2 * len)]);
    }
}

#[test]
fn an_answer_on_the_node_comes_from_the_service() {
    for (v4, l4) in ALL {
        let mut node = node_with(v4, l4, &[SERVER.ip(v4)]);
        let got = open(&mut node, v4, l4);
        node.send_as(&SERVER);
        let answer = reply(&got, answering(l4));
        let mut expected = delivered(answer.clone(), &CLIENT);
        expected.src = vip(v4);
        expected.sport = PORT;
        let len = answer.len();
        let counters = [("from_pod_local", len), ("service_reverse", len)];
        check(
            &mut node, "from_pod", &answer, REDIRECT, &expected, &counters,
        );
        assert!(
            node.flows().iter().all(|flow| flow.flags == CT_ANSWERED),
            "both entries know"
        );
    }
}

#[test]
fn an_answer_from_another_node_comes_from_the_service() {
    for (v4, l4) in ALL {
        let mut node = node_with(v4, l4, &[far(v4)]);
        let sent = question(v4, l4);
        let mut expected = sent.clone();
        expected.dst = far(v4);
        expected.dport = TARGET;
        expected.hops -= 1;
        let len = sent.len();
        let counters = [
            ("from_pod_remote", len),
            ("service_forward", len),
            ("conntrack_new", 0),
        ];
        check(&mut node, "from_pod", &sent, REDIRECT, &expected, &counters);
        let answer = reply(&expected, answering(l4));
        let mut expected = answer.clone();
        expected.src = vip(v4);
        expected.sport = PORT;
        let counters = [("to_pod", len), ("service_reverse", len)];
        check(&mut node, "to_pod", &answer, PASS, &expected, &counters);
    }
}

#[test]
fn a_packet_to_a_pod_of_the_node_is_handed_over() {
    for (v4, l4) in ALL {
        let mut node = Node::new();
        let sent = frame(&CLIENT, v4, l4, SERVER.ip(v4), 40_000, TARGET);
        let expected = delivered(sent.clone(), &SERVER);
        let counters = [("from_pod_local", sent.len())];
        check(&mut node, "from_pod", &sent, REDIRECT, &expected, &counters);
        assert!(node.flows().is_empty(), "a plain flow needs no entry");
    }
}

#[test]
fn an_echo_request_goes_from_pod_to_pod() {
    for v4 in [true, false] {
        let mut node = Node::new();
        let sent = frame(&CLIENT, v4, L4::Echo, SERVER.ip(v4), 0, 0);
        let expected = delivered(sent.clone(), &SERVER);
        let counters = [("from_pod_local", sent.len())];
        check(&mut node, "from_pod", &sent, REDIRECT, &expected, &counters);
    }
}

#[test]
fn a_packet_to_another_node_leaves_by_its_neighbour() {
    for (v4, l4) in ALL {
        let mut node = Node::new();
        let sent = frame(&CLIENT, v4, l4, far(v4), 40_000, TARGET);
        let mut expected = sent.clone();
        expected.hops -= 1;
        let counters = [("from_pod_remote", sent.len())];
        check(&mut node, "from_pod", &sent, REDIRECT, &expected, &counters);
    }
}

#[test]
fn a_packet_to_the_world_takes_the_stack() {
    for (v4, l4) in ALL {
        let mut node = Node::new();
        let world: IpAddr = if v4 {
            [192, 0, 2, 1].into()
        } else {
            [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()
        };
        let sent = frame(&CLIENT, v4, l4, world, 40_000, 443);
        let counters = [("from_pod_stack", sent.len())];
        check(&mut node, "from_pod", &sent, PASS, &sent, &counters);
    }
}

#[test]
fn the_last_hop_is_the_stack_s_to_refuse() {
    for (v4, l4) in ALL {
        let mut node = Node::new();
        let mut sent = frame(&CLIENT, v4, l4, SERVER.ip(v4), 40_000, TARGET);
        sent.hops = 1;
        check(
            &mut node,
            "from_pod",
            &sent,
            PASS,
            &sent,
            &[("from_pod_stack", sent.len())],
        );
    }
}

#[test]
fn a_pod_without_redirection_is_reached_through_the_stack() {
    let mut node = Node::new();
    node.set_flags(&SERVER, EP_NO_REDIRECT);
    let sent = frame(&CLIENT, true, L4::Udp, SERVER.ip(true), 40_000, TARGET);
    check(
        &mut node,
        "from_pod",
        &sent,
        PASS,
        &sent,
        &[("from_pod_stack", sent.len())],
    );
}

#[test]
fn a_false_source_is_dropped() {
    for (v4, l4) in ALL {
        let mut node = node_with(v4, l4, &[SERVER.ip(v4)]);
        for dst in [vip(v4), SERVER.ip(v4), far(v4)] {
            let mut sent = frame(&CLIENT, v4, l4, dst, 40_000, PORT);
            sent.src = SERVER.ip(v4);
            check_dropped(&mut node, &sent, "spoofed_source");
        }
        assert!(node.flows().is_empty());
    }
}

#[test]
fn a_router_pod_may_send_from_any_source() {
    let mut node = Node::new();
    node.set_flags(&CLIENT, EP_ANY_SOURCE);
    let mut sent = frame(&CLIENT, true, L4::Udp, SERVER.ip(true), 40_000, TARGET);
    sent.src = [192, 0, 2, 9].into();
    let expected = delivered(sent.clone(), &SERVER);
    check(
        &mut node,
        "from_pod",
        &sent,
        REDIRECT,
        &expected,
        &[("from_pod_local", sent.len())],
    );
}

#[test]
fn an_unknown_device_sends_nothing() {
    let mut node = Node::new();
    node.forget_sender();
    let sent = frame(&CLIENT, true, L4::Udp, SERVER.ip(true), 40_000, TARGET);
    check_dropped(&mut node, &sent, "no_endpoint");
}

#[test]
fn a_service_without_backends_refuses() {
    for (v4, l4) in ALL {
        let mut node = node_with(v4, l4, &[]);
        check_dropped(&mut node, &question(v4, l4), "no_backend");
        assert!(node.flows().is_empty());
    }
}

#[test]
fn an_unknown_port_of_a_service_refuses() {
    for (v4, l4) in ALL {
        let mut node = node_with(v4, l4, &[SERVER.ip(v4)]);
        let mut sent = question(v4, l4);
        sent.dport = 81;
        check_dropped(&mut node, &sent, "unknown_port");
    }
}

#[test]
fn the_same_port_of_the_other_protocol_is_unknown() {
    for (v4, l4) in ALL {
        let other = if proto(l4) == 6 {
            L4::Udp
        } else {
            L4::Tcp { flags: SYN }
        };
        let mut node = node_with(v4, other, &[SERVER.ip(v4)]);
        check_dropped(&mut node, &question(v4, l4), "unknown_port");
    }
}

#[test]
fn an_echo_request_to_a_service_is_dropped() {
    for v4 in [true, false] {
        let mut node = node_with(v4, L4::Udp, &[SERVER.ip(v4)]);
        check_dropped(&mut node, &question(v4, L4::Echo), "protocol");
    }
}

#[test]
fn fragments_to_a_service_are_never_translated() {
    for (v4, l4) in ALL {
        let mut node = node_with(v4, l4, &[SERVER.ip(v4)]);
        for fragment in [(0, true), (1, true), (1, false), (0x1fff, false)] {
            let mut sent = question(v4, l4);
            sent.fragment = Some(fragment);
            sent.payload = vec![0; 64];
            check_dropped(&mut node, &sent, "fragment");
        }
    }
}

#[test]
fn fragments_from_pod_to_pod_pass() {
    for (v4, l4) in ALL {
        let mut node = Node::new();
        for fragment in [(0, true), (1, false)] {
            let mut sent = frame(&CLIENT, v4, l4, SERVER.ip(v4), 40_000, TARGET);
            sent.fragment = Some(fragment);
            sent.payload = vec![0; 64];
            let expected = delivered(sent.clone(), &SERVER);
            let counters = [("from_pod_local", sent.len())];
            check(&mut node, "from_pod", &sent, REDIRECT, &expected, &counters);
        }
    }
}

#[test]
fn the_first_fragment_of_an_answer_is_dropped() {
    for (v4, l4) in ALL {
        let mut node = node_with(v4, l4, &[SERVER.ip(v4)]);
        let got = open(&mut node, v4, l4);
        node.send_as(&SERVER);
        let mut answer = reply(&got, answering(l4));
        answer.fragment = Some((0, true));
        check_dropped(&mut node, &answer, "fragment");
    }
}

#[test]
fn options_do_not_hide_the_ports() {
    for (v4, l4) in ALL {
        let mut node = node_with(v4, l4, &[SERVER.ip(v4)]);
        let mut sent = question(v4, l4);
        sent.options = 16;
        let mut expected = delivered(sent.clone(), &SERVER);
        expected.dst = SERVER.ip(v4);
        expected.dport = TARGET;
        let len = sent.len();
        let counters = [
            ("from_pod_local", len),
            ("service_forward", len),
            ("conntrack_new", 0),
        ];
        check(&mut node, "from_pod", &sent, REDIRECT, &expected, &counters);
    }
}

/// An ICMP error from `src` about `about`, a frame as it was where the error arose; it quotes the
/// IP header and `quoted` bytes behind it.
fn icmp_error(src: IpAddr, about: &Frame, quoted: usize) -> Frame {
    let v4 = src.is_ipv4();
    let header = if v4 { 20 } else { 40 };
    Frame {
        eth_dst: CLIENT.mac,
        eth_src: CLIENT.host_mac,
        src,
        dst: about.src,
        sport: 0,
        dport: 0,
        hops: 64,
        l4: if v4 {
            L4::IcmpError { kind: 3, code: 3 }
        } else {
            L4::IcmpError { kind: 1, code: 4 }
        },
        fragment: None,
        options: 0,
        payload: about.bytes()[14..14 + header + quoted].to_vec(),
    }
}

/// `about` with the service as its destination, and the quoted transport checksum left as it was.
fn about_service(error: &Frame, v4: bool) -> Frame {
    let mut expected = error.clone();
    let (at, dport) = if v4 { (16, 22) } else { (24, 42) };
    match vip(v4) {
        IpAddr::V4(vip) => {
            expected.payload[at..at + 4].copy_from_slice(&vip.octets());
            expected.payload[10..12].copy_from_slice(&[0, 0]);
            let check = frame::checksum(&expected.payload[..20]);
            expected.payload[10..12].copy_from_slice(&check);
        }
        IpAddr::V6(vip) => expected.payload[at..at + 16].copy_from_slice(&vip.octets()),
    }
    expected.payload[dport..dport + 2].copy_from_slice(&PORT.to_be_bytes());
    expected
}

#[test]
fn an_error_of_the_backend_is_about_the_service() {
    for (v4, l4) in ALL {
        let mut node = node_with(v4, l4, &[SERVER.ip(v4)]);
        let mut got = open(&mut node, v4, l4);
        got.src = CLIENT.ip(v4);
        for quoted in [8, 11] {
            let sent = icmp_error(SERVER.ip(v4), &got, quoted);
            let mut expected = about_service(&sent, v4);
            expected.src = vip(v4);
            let counters = [("to_pod", sent.len()), ("icmp_translated", sent.len())];
            check(&mut node, "to_pod", &sent, PASS, &expected, &counters);
        }
    }
}

#[test]
fn an_error_of_a_backend_on_the_node_is_about_the_service() {
    for (v4, l4) in ALL {
        let mut node = node_with(v4, l4, &[SERVER.ip(v4)]);
        let got = open(&mut node, v4, l4);
        node.send_as(&SERVER);
        let mut sent = icmp_error(SERVER.ip(v4), &got, 8);
        sent.eth_dst = SERVER.host_mac;
        sent.eth_src = SERVER.mac;
        let mut expected = delivered(about_service(&sent, v4), &CLIENT);
        expected.src = vip(v4);
        let counters = [
            ("from_pod_local", sent.len()),
            ("icmp_translated", sent.len()),
        ];
        check(&mut node, "from_pod", &sent, REDIRECT, &expected, &counters);
    }
}

#[test]
fn an_error_of_a_router_keeps_its_source() {
    for (v4, l4) in ALL {
        let mut node = node_with(v4, l4, &[SERVER.ip(v4)]);
        let got = open(&mut node, v4, l4);
        let sent = icmp_error(far(v4), &got, 8);
        let expected = about_service(&sent, v4);
        let counters = [("to_pod", sent.len()), ("icmp_translated", sent.len())];
        check(&mut node, "to_pod", &sent, PASS, &expected, &counters);
    }
}

#[test]
fn an_error_about_an_unknown_flow_passes_unchanged() {
    for (v4, l4) in ALL {
        let mut node = node_with(v4, l4, &[SERVER.ip(v4)]);
        let about = frame(&CLIENT, v4, l4, far(v4), 40_000, TARGET);
        for quoted in [0, 8] {
            let sent = icmp_error(far(v4), &about, quoted);
            check(
                &mut node,
                "to_pod",
                &sent,
                PASS,
                &sent,
                &[("to_pod", sent.len())],
            );
        }
    }
}

#[test]
fn a_udp_packet_without_checksum_stays_without() {
    let mut node = node_with(true, L4::Udp, &[SERVER.ip(true)]);
    open(&mut node, true, L4::UdpUnchecked);
}

#[test]
fn a_pod_reaches_itself_through_a_service() {
    for (v4, l4) in ALL {
        let mut node = node_with(v4, l4, &[CLIENT.ip(v4)]);
        let hairpin: IpAddr = if v4 {
            Config::DEFAULT.hairpin4.into()
        } else {
            Config::DEFAULT.hairpin6.into()
        };
        let sent = question(v4, l4);
        let mut expected = delivered(sent.clone(), &CLIENT);
        expected.src = hairpin;
        expected.dst = CLIENT.ip(v4);
        expected.dport = TARGET;
        let len = sent.len();
        let counters = [
            ("from_pod_local", len),
            ("service_forward", len),
            ("conntrack_new", 0),
        ];
        check(&mut node, "from_pod", &sent, REDIRECT, &expected, &counters);
        let mut answer = reply(&expected, answering(l4));
        answer.eth_dst = CLIENT.host_mac;
        answer.eth_src = CLIENT.mac;
        let mut expected = delivered(answer.clone(), &CLIENT);
        expected.src = vip(v4);
        expected.dst = CLIENT.ip(v4);
        expected.sport = PORT;
        let counters = [("from_pod_local", len), ("service_reverse", len)];
        check(
            &mut node, "from_pod", &answer, REDIRECT, &expected, &counters,
        );
    }
}

#[test]
fn a_flow_keeps_its_backend_when_the_set_changes() {
    for (v4, l4) in ALL {
        let mut node = node_with(v4, l4, &[SERVER.ip(v4)]);
        let expected = open(&mut node, v4, l4);
        let other = node.add_backend(SVC, far(v4), TARGET);
        node.publish(SVC, &[other]);
        let mut terminating = node.backend(1);
        terminating.state = BE_TERMINATING;
        node.set_backend(1, terminating);
        let (sent, len) = (question(v4, l4), question(v4, l4).len());
        let counters = [("from_pod_local", len), ("service_forward", len)];
        check(&mut node, "from_pod", &sent, REDIRECT, &expected, &counters);
    }
}

#[test]
fn a_flow_whose_backend_is_gone_is_cut_or_moved() {
    for (v4, l4) in ALL {
        let mut node = node_with(v4, l4, &[SERVER.ip(v4)]);
        open(&mut node, v4, l4);
        let other = node.add_backend(SVC, far(v4), TARGET);
        node.publish(SVC, &[other]);
        let mut gone = node.backend(1);
        gone.state = BE_FREE;
        gone.generation += 1;
        node.set_backend(1, gone);
        if proto(l4) == 6 {
            check_dropped(
                &mut node,
                &question(v4, L4::Tcp { flags: ACK }),
                "backend_gone",
            );
        }
        let sent = question(v4, l4);
        let mut expected = sent.clone();
        expected.dst = far(v4);
        expected.dport = TARGET;
        expected.hops -= 1;
        let len = sent.len();
        let counters = [
            ("from_pod_remote", len),
            ("service_forward", len),
            ("conntrack_new", 0),
        ];
        check(&mut node, "from_pod", &sent, REDIRECT, &expected, &counters);
        assert_eq!(node.flows().len(), 2, "the old entries are gone");
        assert_eq!(node.load_of(other), (1, 1));
    }
}

#[test]
fn a_port_used_again_opens_a_new_flow() {
    for v4 in [true, false] {
        let syn = L4::Tcp { flags: SYN };
        let mut node = node_with(v4, syn, &[SERVER.ip(v4)]);
        let got = open(&mut node, v4, syn);
        node.send_as(&SERVER);
        let (verdict, _) = node.run(
            "from_pod",
            &reply(&got, L4::Tcp { flags: RST | ACK }).bytes(),
        );
        assert_eq!(verdict, REDIRECT);
        assert!(
            node.flows()
                .iter()
                .all(|flow| flow.flags == CT_ANSWERED | CT_RST)
        );
        node.take_counters();
        node.send_as(&CLIENT);
        open(&mut node, v4, syn);
        assert_eq!(node.load_of(1), (1, 2), "one ended, one began");
        assert_eq!(node.flows().len(), 2);
    }
}

#[test]
fn a_closing_flow_is_followed_to_its_end() {
    for v4 in [true, false] {
        let syn = L4::Tcp { flags: SYN };
        let fin = L4::Tcp { flags: FIN | ACK };
        let mut node = node_with(v4, syn, &[SERVER.ip(v4)]);
        let got = open(&mut node, v4, syn);
        let (verdict, _) = node.run("from_pod", &question(v4, fin).bytes());
        assert_eq!(verdict, REDIRECT);
        node.send_as(&SERVER);
        let (verdict, _) = node.run("from_pod", &reply(&got, fin).bytes());
        assert_eq!(verdict, REDIRECT);
        let states: Vec<_> = node
            .flows()
            .iter()
            .map(|flow| ebpf::conntrack::state(flow.flags))
            .collect();
        assert_eq!(states, [ebpf::conntrack::State::Closed; 2]);
    }
}

#[test]
fn a_full_table_drops_and_leaves_no_half_flow() {
    for (v4, l4) in ALL {
        let mut node = Node::with(&Config::DEFAULT, &[("ct4", 1), ("ct6", 1)]);
        add_service(&mut node, v4, l4, &[SERVER.ip(v4)]);
        check_dropped(&mut node, &question(v4, l4), "conntrack_full");
        assert!(node.flows().is_empty());
        assert_eq!(node.load_of(1), (0, 0));
    }
}

#[test]
fn two_services_on_one_backend_are_told_apart() {
    for (v4, l4) in ALL {
        let mut node = node_with(v4, l4, &[SERVER.ip(v4)]);
        let second = 2;
        let id = node.add_backend(second, SERVER.ip(v4), TARGET);
        node.publish(second, &[id]);
        node.add_frontend(
            vip(v4),
            90,
            proto(l4),
            Frontend {
                svc: second,
                flags: 0,
                pad: 0,
            },
        );
        open(&mut node, v4, l4);
        let mut sent = question(v4, l4);
        sent.dport = 90;
        check_dropped(&mut node, &sent, "conntrack_conflict");
        assert_eq!(node.flows().len(), 2, "the first flow stays");
        sent.sport += 1;
        let (verdict, _) = node.run("from_pod", &sent.bytes());
        assert_eq!(verdict, REDIRECT, "another port has its own answers");
    }
}

#[test]
fn affinity_brings_a_pod_back_to_its_backend() {
    for (v4, l4) in ALL {
        let mut node = node_with(v4, l4, &[SERVER.ip(v4), far(v4)]);
        node.edit_service(SVC, |service| {
            service.flags = SVC_AFFINITY;
            service.affinity_s = 3600;
        });
        for sport in 0..50 {
            let mut sent = question(v4, l4);
            sent.sport = 30_000 + sport;
            assert_eq!(node.run("from_pod", &sent.bytes()).0, REDIRECT);
        }
        let loads = [node.load_of(1).1, node.load_of(2).1];
        assert!(loads == [50, 0] || loads == [0, 50], "{loads:?}");
        assert_eq!(node.take_counters().get("affinity"), Some(&(49, 0)));
    }
}

#[test]
fn draws_spread_over_all_backends() {
    let mut node = node_with(true, L4::Udp, &[SERVER.ip(true), far(true)]);
    for sport in 0..200 {
        let mut sent = question(true, L4::Udp);
        sent.sport = 30_000 + sport;
        assert_eq!(node.run("from_pod", &sent.bytes()).0, REDIRECT);
    }
    // Fewer than 50 of 200 fair draws: less than once in 10^12.
    let (one, other) = (node.load_of(1).1, node.load_of(2).1);
    assert!(
        one + other == 200 && one >= 50 && other >= 50,
        "{one} and {other}"
    );
}

#[test]
fn a_local_frontend_takes_no_backend_elsewhere() {
    let mut node = node_with(true, L4::Udp, &[far(true)]);
    node.add_frontend(
        vip(true),
        PORT,
        17,
        Frontend {
            svc: SVC,
            flags: FE_LOCAL,
            pad: 0,
        },
    );
    check_dropped(&mut node, &question(true, L4::Udp), "no_backend");
}

#[test]
fn a_packet_cut_short_is_dropped() {
    for (v4, l4) in ALL {
        let mut node = node_with(v4, l4, &[SERVER.ip(v4)]);
        let whole = question(v4, l4).bytes();
        let ip = if v4 { 34 } else { 54 };
        let transport = ip + if proto(l4) == 6 { 20 } else { 8 };
        for len in ip..transport {
            let (verdict, bytes) = node.run("from_pod", &whole[..len]);
            assert_eq!(
                (verdict, bytes.as_slice()),
                (DROP, &whole[..len]),
                "{len} bytes"
            );
            let counters = node.take_counters();
            assert_eq!(
                counters,
                Counters::from([("malformed", (1, len as u64))]),
                "{len} bytes"
            );
        }
    }
}

#[test]
fn what_is_not_ip_is_the_stack_s() {
    let mut node = Node::new();
    let mut arp = vec![0xff; 6];
    arp.extend(CLIENT.mac);
    arp.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp.resize(42, 0);
    assert_eq!(node.run("from_pod", &arp), (PASS, arp.clone()));
    assert_eq!(
        node.take_counters(),
        Counters::from([("from_pod_other", (1, 42))])
    );
    assert_eq!(node.run("to_pod", &arp), (PASS, arp));
    assert_eq!(node.take_counters(), Counters::from([("to_pod", (1, 42))]));
}

#[test]
fn neighbour_discovery_passes() {
    let mut node = Node::new();
    let mut sent = frame(
        &CLIENT,
        false,
        L4::Echo,
        [0xff02, 0, 0, 0, 0, 0, 0, 1].into(),
        0,
        0,
    );
    sent.src = [0xfe80, 0, 0, 0, 0, 0, 0, 5].into();
    check(
        &mut node,
        "from_pod",
        &sent,
        PASS,
        &sent,
        &[("from_pod_other", sent.len())],
    );
}

#[test]
fn what_comes_for_a_pod_from_elsewhere_passes_unchanged() {
    for (v4, l4) in ALL {
        let mut node = node_with(v4, l4, &[SERVER.ip(v4)]);
        let mut sent = frame(&CLIENT, v4, l4, CLIENT.ip(v4), TARGET, 40_000);
        sent.src = far(v4);
        check(
            &mut node,
            "to_pod",
            &sent,
            PASS,
            &sent,
            &[("to_pod", sent.len())],
        );
    }
}

/// What the checksums of a frame are off by: of the IPv4 header, and of TCP or UDP with its pseudo
/// header, as far as the frame has them. Zero is right; what matters is that it does not change.
fn check_sums(frame: &[u8]) -> [u16; 2] {
    let value = |check: [u8; 2]| u16::from_be_bytes(check) % 0xffff;
    let v4 = frame[12..14] == [0x08, 0x00];
    let (pseudo, l4, proto) = if v4 {
        let header = usize::from(frame[14] & 0x0f) * 4;
        (26..34, 14 + header, frame[23])
    } else if frame[12..14] == [0x86, 0xdd] {
        (22..54, 54, frame[20])
    } else {
        return [0; 2];
    };
    let header = if v4 {
        value(frame::checksum(&frame[14..l4.clamp(14, frame.len())]))
    } else {
        0
    };
    let Some(rest) = frame.get(l4..).filter(|_| proto == 6 || proto == 17) else {
        return [header, 0];
    };
    [
        header,
        value(frame::checksum(&[&frame[pseudo], rest].concat())),
    ]
}
