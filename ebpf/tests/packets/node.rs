// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! A node in maps: two pods, a neighbour, and the services a test asks for. The programs are
//! loaded for each test, attached nowhere and pinned nowhere, so nothing is left behind.

use std::{
    net::IpAddr,
    ops::{Deref, DerefMut},
};

use aya::{
    maps::lpm_trie::{Key, LpmTrie},
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use ebpf_abi::{
    addr::{self, Addr},
    config::Config,
    conntrack::{Ct4Key, Ct6Key, CtEntry},
    endpoint::{Endpoint, LocalPod},
    route::{ROUTE_DIRECT, Route},
};

use crate::{
    frame::Mac,
    maps::{Maps, load, wide},
};

/// Verdicts of a tc program.
pub(crate) const PASS: u32 = 0;
pub(crate) const DROP: u32 = 2;
pub(crate) const REDIRECT: u32 = 7;

/// The loopback device, on which test runs arrive.
const TEST_IFINDEX: u32 = 1;

/// A pod of the node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pod {
    pub(crate) index: u32,
    pub(crate) ip4: [u8; 4],
    pub(crate) ip6: [u16; 8],
    pub(crate) mac: Mac,
    pub(crate) host_mac: Mac,
}

pub(crate) const CLIENT: Pod = Pod {
    index: 1,
    ip4: [10, 244, 1, 10],
    ip6: [0xfd00, 0x10, 0x244, 1, 0, 0, 0, 0xa],
    mac: [2, 0, 0, 0, 1, 1],
    host_mac: [2, 0, 0, 0, 1, 0],
};

pub(crate) const SERVER: Pod = Pod {
    index: 2,
    ip4: [10, 244, 1, 20],
    ip6: [0xfd00, 0x10, 0x244, 1, 0, 0, 0, 0x14],
    mac: [2, 0, 0, 0, 2, 1],
    host_mac: [2, 0, 0, 0, 2, 0],
};

/// A pod on the neighbour node.
pub(crate) const FAR4: [u8; 4] = [10, 244, 2, 30];
pub(crate) const FAR6: [u16; 8] = [0xfd00, 0x10, 0x244, 2, 0, 0, 0, 0x1e];

pub(crate) fn far(v4: bool) -> IpAddr {
    if v4 { FAR4.into() } else { FAR6.into() }
}

impl Pod {
    pub(crate) fn ip(&self, v4: bool) -> IpAddr {
        if v4 { self.ip4.into() } else { self.ip6.into() }
    }
}

/// The programs and their maps.
pub(crate) struct Node {
    maps: Maps,
}

impl Deref for Node {
    type Target = Maps;

    fn deref(&self) -> &Maps {
        &self.maps
    }
}

impl DerefMut for Node {
    fn deref_mut(&mut self) -> &mut Maps {
        &mut self.maps
    }
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::with(&Config::DEFAULT, &[])
    }

    pub(crate) fn with(config: &Config, sizes: &[(&'static str, u32)]) -> Self {
        let mut bpf = load("pod", config, sizes);
        for program in ["from_pod", "to_pod"] {
            let program: &mut SchedClassifier =
                bpf.program_mut(program).unwrap().try_into().unwrap();
            program.load().unwrap_or_else(|error| panic!("{error:?}"));
        }
        let mut node = Self {
            maps: Maps::new(bpf),
        };
        node.add_pod(&CLIENT, TEST_IFINDEX);
        node.add_pod(&SERVER, 7);
        node.add_route();
        node
    }

    fn add_pod(&mut self, pod: &Pod, ifindex: u32) {
        let endpoint = Endpoint {
            ifindex,
            netns_cookie: 1000 + u64::from(pod.index),
            ip4: pod.ip4,
            ip6: std::net::Ipv6Addr::from(pod.ip6).octets(),
            mac: pod.mac,
            host_mac: pod.host_mac,
            ..Endpoint::default()
        };
        self.array::<Endpoint>("ep")
            .set(pod.index, endpoint, 0)
            .unwrap();
        self.hash::<u32, u32>("ifx")
            .insert(ifindex, pod.index, 0)
            .unwrap();
        let local = LocalPod {
            ep: pod.index,
            pad: 0,
        };
        for v4 in [true, false] {
            self.hash::<Addr, LocalPod>("local")
                .insert(wide(pod.ip(v4)), local, 0)
                .unwrap();
        }
    }

    fn add_route(&mut self) {
        let route = Route {
            node: addr::from_v4([10, 88, 0, 12]),
            ifindex: 5,
            flags: ROUTE_DIRECT,
        };
        let mut routes: LpmTrie<_, Addr, Route> =
            self.bpf.map_mut("route").unwrap().try_into().unwrap();
        for (prefix, bits) in [(wide(far(true)), 120), (wide(far(false)), 64)] {
            let key = Key::new(bits, prefix);
            routes.insert(&key, route, 0).unwrap();
        }
    }

    /// Changes a pod's flags.
    pub(crate) fn set_flags(&mut self, pod: &Pod, flags: u32) {
        let mut eps = self.array::<Endpoint>("ep");
        let mut endpoint = eps.get(&pod.index, 0).unwrap();
        endpoint.flags = flags;
        eps.set(pod.index, endpoint, 0).unwrap();
    }

    /// From now on packets come from `pod`: a test run always arrives on the loopback device.
    pub(crate) fn send_as(&mut self, pod: &Pod) {
        self.hash::<u32, u32>("ifx")
            .insert(TEST_IFINDEX, pod.index, 0)
            .unwrap();
    }

    /// No pod is behind the device any more.
    pub(crate) fn forget_sender(&mut self) {
        self.hash::<u32, u32>("ifx").remove(&TEST_IFINDEX).unwrap();
    }

    /// Runs a program over a frame; returns the verdict and the frame as it is then.
    pub(crate) fn run(&mut self, program: &str, frame: &[u8]) -> (u32, Vec<u8>) {
        let program: &mut SchedClassifier =
            self.bpf.program_mut(program).unwrap().try_into().unwrap();
        let mut out = vec![0; frame.len() + 256];
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                ..TestRunOptions::default()
            })
            .unwrap();
        out.truncate(result.data_size_out as usize);
        (result.return_value, out)
    }

    /// Entries of both flow tables.
    pub(crate) fn flows(&mut self) -> Vec<CtEntry> {
        let mut flows: Vec<CtEntry> = self
            .hash::<Ct4Key, CtEntry>("ct4")
            .iter()
            .map(|pair| pair.unwrap().1)
            .collect();
        flows.extend(
            self.hash::<Ct6Key, CtEntry>("ct6")
                .iter()
                .map(|pair| pair.unwrap().1),
        );
        flows
    }
}
