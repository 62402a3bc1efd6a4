// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What a packet costs in the hooks: `cargo bench -p ebpf`. The kernel's own run-time statistics
//! over test runs of one packet each; the least mean of several rounds, since other work only adds.
//! Needs root and the built objects.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measurement fails by panicking and prints its figures"
)]
#![expect(dead_code, reason = "the tests use more of the shared modules")]

#[path = "../tests/packets/frame.rs"]
mod frame;
#[path = "../tests/maps/mod.rs"]
mod maps;
#[path = "../tests/packets/node.rs"]
mod node;

use std::net::IpAddr;

use aya::{
    programs::SchedClassifier,
    sys::{Stats, enable_stats},
};
use ebpf_abi::frontend::{FE_WILDCARD, Frontend};

use crate::{
    frame::{ACK, Frame, L4, SYN},
    node::{CLIENT, Node, Pod, SERVER, far},
};

const ROUNDS: u32 = 20;
const RUNS: u32 = 2_000;
const SVC: u32 = 1;

fn main() {
    let _statistics = enable_stats(Stats::RunTime).unwrap();
    println!("ns per packet, least of {ROUNDS} rounds of {RUNS}; includes about 20 ns of counting");
    for v4 in [true, false] {
        let family = if v4 { "IPv4" } else { "IPv6" };
        let mut node = node_with_service(v4);
        let ack = L4::Tcp { flags: ACK };
        let vip = vip(v4);
        node.run(
            "from_pod",
            &tcp(&CLIENT, vip, 80, L4::Tcp { flags: SYN }).bytes(),
        );
        let cases = [
            (
                "pod to pod",
                "from_pod",
                tcp(&CLIENT, SERVER.ip(v4), 8080, ack),
            ),
            (
                "pod to another node",
                "from_pod",
                tcp(&CLIENT, far(v4), 8080, ack),
            ),
            ("client to service", "from_pod", tcp(&CLIENT, vip, 80, ack)),
            (
                "stack to pod, no flow",
                "to_pod",
                tcp(&SERVER, CLIENT.ip(v4), 1, ack),
            ),
            ("stack to pod, answer", "to_pod", answer(v4)),
            ("unknown port", "from_pod", tcp(&CLIENT, vip, 81, ack)),
        ];
        for (name, program, frame) in cases {
            let cost = measure(&mut node, program, |_| frame.bytes());
            println!("{family}  {name:<24} {cost:>6.0}");
        }
        let cost = measure(&mut node, "from_pod", |run| {
            let mut frame = tcp(&CLIENT, vip, 80, L4::Tcp { flags: SYN });
            frame.sport = u16::try_from(run % 30_000).unwrap() + 1;
            frame.bytes()
        });
        println!("{family}  {:<24} {cost:>6.0}", "client to service, new");
    }
}

fn vip(v4: bool) -> IpAddr {
    if v4 {
        [10, 96, 0, 10].into()
    } else {
        [0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0xa].into()
    }
}

fn node_with_service(v4: bool) -> Node {
    let mut node = Node::with(
        &ebpf_abi::config::Config::DEFAULT,
        &[("ct4", 131_072), ("ct6", 131_072)],
    );
    let id = node.add_backend(SVC, SERVER.ip(v4), 8080);
    node.publish(SVC, &[id]);
    node.add_frontend(
        vip(v4),
        80,
        6,
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
    node
}

fn tcp(from: &Pod, dst: IpAddr, dport: u16, l4: L4) -> Frame {
    Frame {
        eth_dst: from.host_mac,
        eth_src: from.mac,
        src: from.ip(dst.is_ipv4()),
        dst,
        sport: 40_000,
        dport,
        hops: 64,
        l4,
        fragment: None,
        options: 0,
        payload: vec![0; 64],
    }
}

fn answer(v4: bool) -> Frame {
    Frame {
        sport: 8080,
        ..tcp(&SERVER, CLIENT.ip(v4), 40_000, L4::Tcp { flags: ACK })
    }
}

fn measure(node: &mut Node, program: &str, mut frame: impl FnMut(u32) -> Vec<u8>) -> f64 {
    let mut least = f64::INFINITY;
    for round in 0..ROUNDS {
        let before = statistics(node, program);
        for run in 0..RUNS {
            node.run(program, &frame(round * RUNS + run));
        }
        let after = statistics(node, program);
        least = least.min((after.0 - before.0) / (after.1 - before.1));
    }
    least
}

/// Nanoseconds and runs of a program so far.
fn statistics(node: &mut Node, program: &str) -> (f64, f64) {
    let program: &mut SchedClassifier = node.bpf.program_mut(program).unwrap().try_into().unwrap();
    let info = program.info().unwrap();
    let runs = u32::try_from(info.run_count()).unwrap();
    (info.run_time().as_secs_f64() * 1e9, f64::from(runs))
}
