// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! A node in maps: two pods, a neighbour, and the services a test asks for. The programs are
//! loaded for each test, attached nowhere and pinned nowhere, so nothing is left behind.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, PerCpuArray, lpm_trie::LpmTrie},
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use ebpf_abi::{
    addr::{self, Addr},
    config::{CONFIG_GLOBAL, Config},
    conntrack::{Ct4Key, Ct6Key, CtEntry},
    counter::{Count, DropReason, Metric},
    endpoint::{Endpoint, LocalPod},
    frontend::{Fe4Key, Fe6Key, Frontend},
    map::MAPS,
    route::{ROUTE_DIRECT, Route},
    service::{BE_ACTIVE, Backend, BackendLoad, Head, Service, Slot},
};

use crate::frame::Mac;

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

/// The 16-byte form.
pub(crate) fn wide(ip: IpAddr) -> Addr {
    match ip {
        IpAddr::V4(ip) => addr::from_v4(ip.octets()),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// Counters that are not zero, by name: packets and bytes.
pub(crate) type Counters = BTreeMap<&'static str, (u64, u64)>;

/// The programs and their maps.
pub(crate) struct Node {
    bpf: Ebpf,
    backends: u32,
    slots: u32,
}

/// A built object.
/// Panics with what to run if it is missing.
pub(crate) fn object(name: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let path: PathBuf = root.join("target/bpf").join(name).with_extension("o");
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!(
            "{}: {error}: build the BPF objects with `cargo xtask build-ebpf`",
            path.display()
        )
    })
}

/// A loader with the small profile.
pub(crate) fn load(name: &str, config: &Config, sizes: &[(&'static str, u32)]) -> Ebpf {
    let mut loader = EbpfLoader::new();
    for map in MAPS.iter().filter(|map| map.entries_small != 0) {
        loader.map_max_entries(map.name, map.entries_small);
    }
    for (name, entries) in sizes {
        loader.map_max_entries(name, *entries);
    }
    loader.override_global(CONFIG_GLOBAL, config, true);
    loader
        .load(&object(name))
        .unwrap_or_else(|error| panic!("load {name}: {error:?} (root?)"))
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
            bpf,
            backends: 0,
            slots: 0,
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
            let key = aya::maps::lpm_trie::Key::new(bits, prefix);
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

    /// A new backend of service `svc`; returns its id.
    pub(crate) fn add_backend(&mut self, svc: u32, ip: IpAddr, port: u16) -> u32 {
        self.backends += 1;
        let backend = Backend {
            addr: wide(ip),
            port: port.to_be_bytes(),
            state: BE_ACTIVE,
            flags: 0,
            generation: 1,
            svc,
            node: 0,
        };
        self.set_backend(self.backends, backend);
        self.backends
    }

    pub(crate) fn backend(&mut self, id: u32) -> Backend {
        self.array::<Backend>("be").get(&id, 0).unwrap()
    }

    pub(crate) fn set_backend(&mut self, id: u32, backend: Backend) {
        self.array::<Backend>("be").set(id, backend, 0).unwrap();
    }

    /// Publishes the ready set of a service.
    pub(crate) fn publish(&mut self, svc: u32, backends: &[u32]) {
        let base = self.slots;
        for (backend, index) in backends.iter().zip(base..) {
            let slot = Slot { backend: *backend, ..Slot::default() };
            self.array::<Slot>("slot").set(index, slot, 0).unwrap();
            self.slots = index + 1;
        }
        let mut services = self.array::<Service>("svc");
        let mut service = services.get(&svc, 0).unwrap();
        let generation = Head::unpack(service.head).generation.wrapping_add(1);
        let len = u16::try_from(backends.len()).unwrap();
        service.head = Head {
            base,
            len,
            generation,
        }
        .pack();
        services.set(svc, service, 0).unwrap();
    }

    pub(crate) fn edit_service(&mut self, svc: u32, edit: impl FnOnce(&mut Service)) {
        let mut services = self.array::<Service>("svc");
        let mut service = services.get(&svc, 0).unwrap();
        edit(&mut service);
        services.set(svc, service, 0).unwrap();
    }

    /// A frontend of service `svc`.
    pub(crate) fn add_frontend(&mut self, vip: IpAddr, port: u16, proto: u8, value: Frontend) {
        let port = port.to_be_bytes();
        match vip {
            IpAddr::V4(vip) => {
                let key = Fe4Key {
                    vip: vip.octets(),
                    port,
                    proto,
                    pad: 0,
                };
                self.hash::<Fe4Key, Frontend>("fe4")
                    .insert(key, value, 0)
                    .unwrap();
            }
            IpAddr::V6(vip) => {
                let key = Fe6Key {
                    vip: vip.octets(),
                    port,
                    proto,
                    pad: [0; 5],
                };
                self.hash::<Fe6Key, Frontend>("fe6")
                    .insert(key, value, 0)
                    .unwrap();
            }
        }
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

    /// All counters that are not zero, drops and verdicts, since the last call; and zeroes them.
    pub(crate) fn take_counters(&mut self) -> Counters {
        let drops = DropReason::ALL
            .iter()
            .map(|reason| ("drop", reason.index(), reason.name()));
        let metrics = Metric::ALL
            .iter()
            .map(|metric| ("metric", metric.index(), metric.name()));
        let mut counters = Counters::new();
        for (map, index, name) in drops.chain(metrics).collect::<Vec<_>>() {
            let mut counts: PerCpuArray<_, Count> =
                self.bpf.map_mut(map).unwrap().try_into().unwrap();
            let values = counts.get(&index, 0).unwrap();
            let packets = values.iter().map(|count| count.packets).sum();
            let bytes = values.iter().map(|count| count.bytes).sum();
            if (packets, bytes) != (0, 0) {
                counters.insert(name, (packets, bytes));
            }
            let zero = vec![Count::default(); values.len()];
            counts.set(index, zero.try_into().unwrap(), 0).unwrap();
        }
        counters
    }

    /// Connections open at a backend, and ever opened.
    pub(crate) fn load_of(&mut self, backend: u32) -> (i64, u64) {
        let load = self
            .array::<BackendLoad>("be_load")
            .get(&backend, 0)
            .unwrap();
        (load.in_flight, load.opened)
    }

    /// Entries of both flow tables.
    pub(crate) fn flows(&mut self) -> Vec<CtEntry> {
        let v4: Vec<_> = self
            .hash::<Ct4Key, CtEntry>("ct4")
            .iter()
            .map(|entry| entry.unwrap().1)
            .collect();
        let v6: Vec<_> = self
            .hash::<Ct6Key, CtEntry>("ct6")
            .iter()
            .map(|entry| entry.unwrap().1)
            .collect();
        v4.into_iter().chain(v6).collect()
    }

    fn array<T: aya::Pod>(&mut self, name: &str) -> Array<&mut MapData, T> {
        self.bpf.map_mut(name).unwrap().try_into().unwrap()
    }

    fn hash<K: aya::Pod, V: aya::Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        self.bpf.map_mut(name).unwrap().try_into().unwrap()
    }
}
