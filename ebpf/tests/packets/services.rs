// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Packets to services and their answers: translated there and back, flow by flow.

use super::*;

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
