// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! ICMP errors about translated packets.

use super::*;

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
