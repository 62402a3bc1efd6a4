// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Packets that are for no service: where they go, and that nothing else happens to them.

use super::*;

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
