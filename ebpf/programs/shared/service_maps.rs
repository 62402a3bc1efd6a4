// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `fe4`, `fe6`, `svc`, `slot`, `be`, `be_load`, `aff`: the kernel's maps behind the library's
//! [`ServiceMaps`].

use core::ptr::read_volatile;

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, HashMap, LruHashMap},
    helpers::{bpf_get_prandom_u32, generated::bpf_ktime_get_coarse_ns},
    macros::btf_map,
};
use ebpf::{
    family::{V4, V6},
    select::{Frontdoor, Service as ServiceWords, ServiceMaps, frontdoor},
};
use ebpf_abi::{
    frontend::{Fe4Key, Fe6Key, Frontend},
    map,
    service::{Backend, BackendLoad, Service, Slot},
    socket::{Affinity, AffinityKey},
};

use crate::atomic;

const MMAPABLE: usize = BPF_F_MMAPABLE as usize;

#[btf_map(name = "fe4")]
static FE4: HashMap<Fe4Key, Frontend, { map::FE4.entries as usize }> = HashMap::new();

#[btf_map(name = "fe6")]
static FE6: HashMap<Fe6Key, Frontend, { map::FE6.entries as usize }> = HashMap::new();

#[btf_map(name = "svc")]
static SVC: Array<Service, { map::SVC.entries as usize }, MMAPABLE> = Array::new();

#[btf_map(name = "slot")]
static SLOT: Array<Slot, { map::SLOT.entries as usize }, MMAPABLE> = Array::new();

#[btf_map(name = "be")]
static BE: Array<Backend, { map::BE.entries as usize }, MMAPABLE> = Array::new();

#[btf_map(name = "be_load")]
static BE_LOAD: Array<BackendLoad, { map::BE_LOAD.entries as usize }, MMAPABLE> = Array::new();

#[btf_map(name = "aff")]
static AFF: LruHashMap<AffinityKey, Affinity, { map::AFF.entries as usize }> = LruHashMap::new();

/// The kernel's maps.
#[derive(Clone, Copy)]
pub(crate) struct KernelMaps;

/// Frontends of one family.
pub(crate) trait Frontends {
    /// What (vip, port, protocol) is.
    fn frontdoor(vip: &Self::Addr, port: [u8; 2], proto: u8) -> Frontdoor
    where
        Self: ebpf::family::Family;
}

impl Frontends for V4 {
    #[inline(always)]
    fn frontdoor(vip: &[u8; 4], port: [u8; 2], proto: u8) -> Frontdoor {
        let key = Fe4Key {
            vip: *vip,
            port,
            proto,
            pad: 0,
        };
        frontdoor(frontend(FE4.get_ptr(&key)), || {
            let wildcard = Fe4Key {
                vip: *vip,
                port: [0; 2],
                proto: 0,
                pad: 0,
            };
            frontend(FE4.get_ptr(&wildcard))
        })
    }
}

impl Frontends for V6 {
    #[inline(always)]
    fn frontdoor(vip: &[u8; 16], port: [u8; 2], proto: u8) -> Frontdoor {
        let mut key = Fe6Key {
            vip: *vip,
            port,
            proto,
            pad: [0; 5],
        };
        let exact = frontend(FE6.get_ptr(&key));
        frontdoor(exact, || {
            key.port = [0; 2];
            key.proto = 0;
            frontend(FE6.get_ptr(&key))
        })
    }
}

/// Reads a frontend by one load: a preallocated element may be given to another key meanwhile.
#[inline(always)]
fn frontend(value: Option<*const Frontend>) -> Option<Frontend> {
    let value: *const u64 = value?.cast();
    // SAFETY: the element is 8 bytes, aligned to 8, and its memory stays mapped during the run.
    let word = unsafe { read_volatile(value) };
    Some(Frontend {
        svc: word as u32,
        flags: (word >> 32) as u16,
        pad: 0,
    })
}

/// An element of `svc`.
#[derive(Clone, Copy)]
pub(crate) struct ServiceElement(*const Service);

/// One field of an array's element by one load: user space writes it while we read.
macro_rules! load {
    ($element:expr, $field:ident) => {
        // SAFETY: the pointer comes from an array lookup, so it is aligned and stays mapped.
        unsafe { read_volatile(&raw const (*$element).$field) }
    };
}

impl ServiceWords for ServiceElement {
    #[inline(always)]
    fn head(&self) -> u64 {
        load!(self.0, head)
    }

    #[inline(always)]
    fn local_head(&self) -> u64 {
        load!(self.0, local_head)
    }

    #[inline(always)]
    fn terminating_head(&self) -> u64 {
        load!(self.0, terminating_head)
    }

    #[inline(always)]
    fn flags(&self) -> u32 {
        load!(self.0, flags)
    }

    #[inline(always)]
    fn affinity_s(&self) -> u32 {
        load!(self.0, affinity_s)
    }
}

impl ServiceMaps for KernelMaps {
    type Service = ServiceElement;

    #[inline(always)]
    fn service(&self, index: u32) -> Option<ServiceElement> {
        SVC.get_ptr(index).map(ServiceElement)
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<Slot> {
        let value: *const u64 = SLOT.get_ptr(index)?.cast();
        // SAFETY: a slot is 8 bytes, aligned to 8; array memory stays mapped during the run.
        let word = unsafe { read_volatile(value) };
        Some(Slot {
            backend: word as u32,
            alias: (word >> 32) as u16,
            alias_share: (word >> 48) as u16,
        })
    }

    #[inline(always)]
    fn backend(&self, index: u32) -> Option<Backend> {
        BE.get(index).copied()
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        // SAFETY: copied at once. An element that is evicted meanwhile reads as another client's
        // choice; the caller checks service and generation, and stickiness is all that is lost.
        unsafe { AFF.get(key) }.copied()
    }

    #[inline(always)]
    fn set_affinity(&self, key: &AffinityKey, value: &Affinity) {
        // Fails only without memory for an element: the next choice is then drawn anew.
        let _stored = AFF.insert(key, value, 0);
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: the helper has no condition.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn now_s(&self) -> u32 {
        // SAFETY: the helper has no condition. Coarse: a tick (at most 10 ms) old, half the cost.
        let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
        (now_ns / 1_000_000_000) as u32
    }
}

/// Counts a connection or flow that begins at a backend.
#[inline(always)]
pub(crate) fn flow_opened(backend: u32) {
    let Some(load) = BE_LOAD.get_ptr_mut(backend) else {
        return;
    };
    // SAFETY: an element of an array, aligned to 8; the programs change it atomically only.
    unsafe { atomic::add((&raw mut (*load).in_flight).cast(), 1) };
    // SAFETY: as above.
    unsafe { atomic::add(&raw mut (*load).opened, 1) };
}

/// Counts a connection or flow that ends, if the backend's id is still the one it began with: the
/// agent has zeroed the counters of an id that it gave away.
#[inline(always)]
pub(crate) fn flow_ended(backend: u32, generation: u32) {
    match BE.get_ptr(backend) {
        Some(now) if load!(now, generation) == generation => {}
        _ => return,
    }
    let Some(load) = BE_LOAD.get_ptr_mut(backend) else {
        return;
    };
    // SAFETY: an element of an array, aligned to 8; the programs change it atomically only.
    unsafe { atomic::add((&raw mut (*load).in_flight).cast(), u64::MAX) };
}
