// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Packets that are dropped: as they are, counted once, for one reason.

use super::*;

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
