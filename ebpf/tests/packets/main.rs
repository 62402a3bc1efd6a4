// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Packets through the loaded programs, by `BPF_PROG_TEST_RUN`: every byte of what comes out and
//! every counter is compared. Needs root and the built objects.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod delivery;
mod frame;
mod icmp;
#[path = "../maps/mod.rs"]
mod maps;
mod mutated;
mod node;
mod refusals;
mod services;

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
