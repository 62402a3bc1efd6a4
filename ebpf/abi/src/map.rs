// SPDX-License-Identifier: Apache-2.0 OR MIT OR GPL-2.0-only
//! The maps: names, kinds, sizes and what they cost. Each is pinned by its name.

use crate::{conntrack, counter, endpoint, frontend, meta, route, service, socket};

/// Kind of a map, as the kernel names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MapKind {
    /// `BPF_MAP_TYPE_HASH`, preallocated.
    Hash,
    /// `BPF_MAP_TYPE_LRU_HASH`.
    LruHash,
    /// `BPF_MAP_TYPE_ARRAY` with `BPF_F_MMAPABLE`.
    MappedArray,
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`.
    PerCpuArray,
    /// `BPF_MAP_TYPE_LPM_TRIE` with `BPF_F_NO_PREALLOC`.
    LpmTrie,
    /// `BPF_MAP_TYPE_SK_STORAGE` with `BPF_F_NO_PREALLOC`.
    SocketStorage,
}

/// One map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MapSpec {
    /// Name in the objects and of the pin.
    pub name: &'static str,
    /// Kind.
    pub kind: MapKind,
    /// Bytes.
    pub key_size: u32,
    /// Bytes.
    pub value_size: u32,
    /// Elements on an ordinary node; 0 where the kernel wants 0.
    pub entries: u32,
    /// Elements of the small profile (a laptop with several nodes).
    pub entries_small: u32,
}

/// Header of a hash element (`struct htab_elem` is 48 bytes on 64 bit) and its share of the
/// bucket array (16 bytes, buckets rounded up to a power of two).
const HASH_OVERHEAD: u64 = 48 + 16;

impl MapSpec {
    /// Memory in bytes that the kernel takes at creation for `entries` elements on `cpus` CPUs,
    /// within a few per cent. Tries and socket storage grow with use: the full size is given for
    /// a trie, 0 for socket storage (about 100 bytes for each translated socket).
    pub const fn memory(&self, entries: u32, cpus: u32) -> u64 {
        let key = (self.key_size as u64).next_multiple_of(8);
        let value = (self.value_size as u64).next_multiple_of(8);
        let entries = entries as u64;
        match self.kind {
            MapKind::Hash | MapKind::LruHash => entries * (HASH_OVERHEAD + key + value),
            MapKind::MappedArray => entries * value,
            MapKind::PerCpuArray => entries * value * cpus as u64,
            MapKind::LpmTrie => entries * (40 + key + value) * 2,
            MapKind::SocketStorage => 0,
        }
    }
}

const fn size<T>() -> u32 {
    let size = size_of::<T>();
    assert!(size <= u32::MAX as usize);
    #[expect(clippy::cast_possible_truncation, reason = "asserted above")]
    let size = size as u32;
    size
}

const fn spec<K, V>(
    name: &'static str,
    kind: MapKind,
    entries: u32,
    entries_small: u32,
) -> MapSpec {
    MapSpec {
        name,
        kind,
        key_size: size::<K>(),
        value_size: size::<V>(),
        entries,
        entries_small,
    }
}

/// Slots of `drop`, with room for reasons to come.
pub const DROP_SLOTS: u32 = 64;
/// Slots of `metric`, with room for metrics to come.
pub const METRIC_SLOTS: u32 = 64;

/// IPv4 frontends: 65,536 x 80 B = 5 MiB; small 8,192: 640 KiB.
pub const FE4: MapSpec =
    spec::<frontend::Fe4Key, frontend::Frontend>("fe4", MapKind::Hash, 65_536, 8_192);
/// IPv6 frontends: 65,536 x 96 B = 6 MiB; small 8,192: 768 KiB.
pub const FE6: MapSpec =
    spec::<frontend::Fe6Key, frontend::Frontend>("fe6", MapKind::Hash, 65_536, 8_192);
/// Services: 65,536 x 64 B = 4 MiB; small 8,192: 512 KiB.
pub const SVC: MapSpec = spec::<u32, service::Service>("svc", MapKind::MappedArray, 65_536, 8_192);
/// Slots: 1,048,576 x 8 B = 8 MiB; small 131,072: 1 MiB.
pub const SLOT: MapSpec =
    spec::<u32, service::Slot>("slot", MapKind::MappedArray, 1_048_576, 131_072);
/// Backends: 262,144 x 32 B = 8 MiB; small 32,768: 1 MiB.
pub const BE: MapSpec = spec::<u32, service::Backend>("be", MapKind::MappedArray, 262_144, 32_768);
/// Load of backends, as many as backends: 8 MiB; small 1 MiB.
pub const BE_LOAD: MapSpec =
    spec::<u32, service::BackendLoad>("be_load", MapKind::MappedArray, 262_144, 32_768);
/// IPv4 flows of the packet path, two entries a flow: 262,144 x 160 B = 40 MiB; small 32,768:
/// 5 MiB.
pub const CT4: MapSpec =
    spec::<conntrack::Ct4Key, conntrack::CtEntry>("ct4", MapKind::Hash, 262_144, 32_768);
/// IPv6 flows of the packet path, two entries a flow: 131,072 x 184 B = 23 MiB; small 16,384:
/// 2.9 MiB.
pub const CT6: MapSpec =
    spec::<conntrack::Ct6Key, conntrack::CtEntry>("ct6", MapKind::Hash, 131_072, 16_384);
/// Session affinity: 65,536 x 104 B = 6.5 MiB; small 8,192: 832 KiB.
pub const AFF: MapSpec =
    spec::<socket::AffinityKey, socket::Affinity>("aff", MapKind::LruHash, 65_536, 8_192);
/// Sockets: grows with translated sockets.
pub const SKS: MapSpec = spec::<u32, socket::SocketRecord>("sks", MapKind::SocketStorage, 0, 0);
/// Unconnected UDP sockets: 65,536 x 120 B = 7.5 MiB; small 8,192: 960 KiB.
pub const UDPREV: MapSpec =
    spec::<socket::UdpKey, socket::UdpFrontend>("udprev", MapKind::LruHash, 65_536, 8_192);
/// Pods by device: 1,024 x 80 B = 80 KiB, both profiles.
pub const IFX: MapSpec =
    spec::<endpoint::IfxKey, endpoint::IfxValue>("ifx", MapKind::Hash, 1_024, 1_024);
/// Pods: 1,024 x 64 B = 64 KiB, both profiles.
pub const EP: MapSpec = spec::<u32, endpoint::Endpoint>("ep", MapKind::MappedArray, 1_024, 1_024);
/// Pods by address, two for each: 2,048 x 88 B = 176 KiB, both profiles.
pub const LOCAL: MapSpec =
    spec::<endpoint::LocalKey, endpoint::LocalPod>("local", MapKind::Hash, 2_048, 2_048);
/// Pod ranges of other nodes: at most 16,384 x 176 B = 2.8 MiB; small 2,048: 352 KiB.
pub const ROUTE: MapSpec =
    spec::<route::RouteKey, route::Route>("route", MapKind::LpmTrie, 16_384, 2_048);
/// Drops by reason: 1 KiB a CPU.
pub const DROP: MapSpec =
    spec::<u32, counter::Count>("drop", MapKind::PerCpuArray, DROP_SLOTS, DROP_SLOTS);
/// Verdicts: 1 KiB a CPU.
pub const METRIC: MapSpec =
    spec::<u32, counter::Count>("metric", MapKind::PerCpuArray, METRIC_SLOTS, METRIC_SLOTS);
/// Who wrote this: one page.
pub const META: MapSpec = spec::<u32, meta::Meta>("meta", MapKind::MappedArray, 1, 1);

/// All maps of a node: about 119 MiB, small 17 MiB.
pub const MAPS: &[MapSpec] = &[
    FE4, FE6, SVC, SLOT, BE, BE_LOAD, CT4, CT6, AFF, SKS, UDPREV, IFX, EP, LOCAL, ROUTE, DROP,
    METRIC, META,
];

/// Directory of a node's pins inside its bpffs directory: `v` and [`crate::ABI_VERSION`].
pub const PIN_DIR: &str = "v1";
