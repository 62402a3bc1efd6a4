// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The maps of a loaded object, written as an agent would: shared by the tests of packets and of
//! sockets. Nothing is pinned, so nothing is left behind.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, PerCpuArray},
};
use ebpf_abi::{
    addr::{self, Addr},
    config::{CONFIG_GLOBAL, Config},
    counter::{Count, DropReason, Metric},
    frontend::{Fe4Key, Fe6Key, Frontend},
    map::MAPS,
    service::{BE_ACTIVE, Backend, BackendLoad, Head, Service, Slot},
};

/// The 16-byte form.
pub(crate) fn wide(ip: IpAddr) -> Addr {
    match ip {
        IpAddr::V4(ip) => addr::from_v4(ip.octets()),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// Counters that are not zero, by name: packets and bytes.
pub(crate) type Counters = BTreeMap<&'static str, (u64, u64)>;

/// A built object.
/// Panics with what to run if it is missing.
pub(crate) fn object(name: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let path = root.join("target/bpf").join(name).with_extension("o");
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

/// The maps.
pub(crate) struct Maps {
    pub(crate) bpf: Ebpf,
    backends: u32,
    slots: u32,
}

impl Maps {
    pub(crate) fn new(bpf: Ebpf) -> Self {
        Self {
            bpf,
            backends: 0,
            slots: 0,
        }
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
            let slot = Slot {
                backend: *backend,
                ..Slot::default()
            };
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

    /// All counters that are not zero, drops and verdicts, since the last call; and zeroes them.
    pub(crate) fn take_counters(&mut self) -> Counters {
        let drops = DropReason::ALL
            .iter()
            .map(|reason| ("drop", reason.index(), reason.name()));
        let metrics = Metric::ALL
            .iter()
            .map(|metric| ("metric", metric.index(), metric.name()));
        let mut counters = Counters::new();
        for (map, index, name) in drops.chain(metrics) {
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

    pub(crate) fn array<T: aya::Pod>(&mut self, name: &str) -> Array<&mut MapData, T> {
        self.bpf.map_mut(name).unwrap().try_into().unwrap()
    }

    pub(crate) fn hash<K: aya::Pod, V: aya::Pod>(
        &mut self,
        name: &str,
    ) -> HashMap<&mut MapData, K, V> {
        self.bpf.map_mut(name).unwrap().try_into().unwrap()
    }
}
