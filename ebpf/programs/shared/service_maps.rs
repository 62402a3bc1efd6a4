// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `fe4`, `fe6`, `svc`, `slot`, `aff`, and `be` by way of its own module: the kernel's maps behind the library's
//! [`ServiceMaps`].

use core::ptr::read_volatile;

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, HashMap, LruHashMap},
    helpers::bpf_get_prandom_u32,
    macros::btf_map,
};
use ebpf::{
    family::{Family, V4, V6},
    select::{Frontdoor, Service as ServiceWords, ServiceMaps, frontdoor},
    words::{self, AddrWords, PortWord},
};
use ebpf_abi::{
    frontend::{Fe4Key, Fe6Key, Frontend},
    map,
    service::{Backend, Service, Slot},
    socket::{Affinity, AffinityKey},
};

use zerocopy::transmute;

use crate::{
    backend_maps::{self, load},
    clock,
};

const MMAPABLE: usize = BPF_F_MMAPABLE as usize;

#[btf_map(name = "fe4")]
static FE4: HashMap<Fe4Key, Frontend, { map::FE4.entries as usize }> = HashMap::new();

#[btf_map(name = "fe6")]
static FE6: HashMap<Fe6Key, Frontend, { map::FE6.entries as usize }> = HashMap::new();

#[btf_map(name = "svc")]
static SVC: Array<Service, { map::SVC.entries as usize }, MMAPABLE> = Array::new();

#[btf_map(name = "slot")]
static SLOT: Array<Slot, { map::SLOT.entries as usize }, MMAPABLE> = Array::new();

#[btf_map(name = "aff")]
static AFF: LruHashMap<AffinityKey, Affinity, { map::AFF.entries as usize }> = LruHashMap::new();

/// The kernel's maps.
#[derive(Clone, Copy)]
pub(crate) struct KernelMaps;

/// Frontends of one family.
pub(crate) trait Frontends: Family {
    /// What (vip, port, protocol) is.
    fn frontdoor(vip: &Self::Addr, port: PortWord, proto: u8) -> Frontdoor;
}

impl Frontends for V4 {
    #[inline(always)]
    fn frontdoor(vip: &u32, port: PortWord, proto: u8) -> Frontdoor {
        let mut key = Fe4Key {
            vip: transmute!(*vip),
            port: words::port_bytes(port),
            proto,
            pad: 0,
        };
        let exact = frontend(FE4.get_ptr(&key));
        frontdoor(exact, || {
            key.port = [0; 2];
            key.proto = 0;
            frontend(FE4.get_ptr(&key))
        })
    }
}

impl Frontends for V6 {
    #[inline(always)]
    fn frontdoor(vip: &AddrWords, port: PortWord, proto: u8) -> Frontdoor {
        let mut key = Fe6Key {
            vip: words::to_bytes(*vip),
            port: words::port_bytes(port),
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
        backend_maps::backend(index)
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
        clock::now_s()
    }
}
