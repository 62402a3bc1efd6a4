// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `be`, `be_load`: backends, and what is open at them.

use core::ptr::read_volatile;

use aya_ebpf::{bindings::BPF_F_MMAPABLE, btf_maps::Array, macros::btf_map};
use ebpf_abi::{
    map,
    service::{Backend, BackendLoad},
};

use crate::atomic;

const MMAPABLE: usize = BPF_F_MMAPABLE as usize;

#[btf_map(name = "be")]
static BE: Array<Backend, { map::BE.entries as usize }, MMAPABLE> = Array::new();

#[btf_map(name = "be_load")]
static BE_LOAD: Array<BackendLoad, { map::BE_LOAD.entries as usize }, MMAPABLE> = Array::new();

/// One field of an array's element by one load: user space writes it while we read.
macro_rules! load {
    ($element:expr, $field:ident) => {
        // SAFETY: the pointer comes from an array lookup, so it is aligned and stays mapped.
        unsafe { read_volatile(&raw const (*$element).$field) }
    };
}

pub(crate) use load;

/// Element of `be`.
#[inline(always)]
pub(crate) fn backend(index: u32) -> Option<Backend> {
    BE.get(index).copied()
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
