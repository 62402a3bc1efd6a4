// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! One entry of the table: keep or remove.
//!
//! A flow is judged at its forward entry, by the later of its two entries' last packets, and goes
//! as a whole. A reverse entry without its forward one goes when its own time is up.

use core::{ffi::c_void, ptr::read_volatile};

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use ebpf::{
    conntrack::{expired, timeout_s, twin_key},
    family::{V4, V6},
};
use ebpf_abi::{
    conntrack::{CT_FORWARD, Ct4Key, Ct6Key, CtEntry},
    counter::Metric,
    gc::GcReport,
};

use crate::{backend_maps, count, flow_maps::Flows, timeouts::timeouts};

/// Go on with the next entry.
const NEXT: i64 = 0;

/// One walk. In a map, so that the verifier does not follow each time-out through the callback.
pub(crate) struct Walk {
    /// Counts so far.
    pub(crate) report: GcReport,
    limit_s: u32,
}

#[btf_map(name = "gc_walk")]
static WALK: PerCpuArray<Walk, 1> = PerCpuArray::new();

/// This CPU's walk. The kernel runs it to its end before another starts on the same CPU.
#[inline(always)]
pub(crate) fn walk<'a>() -> Option<&'a mut Walk> {
    let walk = WALK.get_ptr_mut(0)?;
    // SAFETY: this CPU's element, to which nothing else refers.
    Some(unsafe { &mut *walk })
}

/// What the kernel calls for each entry of `ct4`.
pub(crate) unsafe extern "C" fn visit4(
    _map: *mut c_void,
    key: *const Ct4Key,
    entry: *mut CtEntry,
    _context: *mut c_void,
) -> i64 {
    // SAFETY: the kernel hands in a key and a value of the map.
    unsafe { visit::<V4>(&*key, &*entry) }
}

/// What the kernel calls for each entry of `ct6`.
pub(crate) unsafe extern "C" fn visit6(
    _map: *mut c_void,
    key: *const Ct6Key,
    entry: *mut CtEntry,
    _context: *mut c_void,
) -> i64 {
    // SAFETY: the kernel hands in a key and a value of the map.
    unsafe { visit::<V6>(&*key, &*entry) }
}

#[inline(always)]
fn visit<F: Flows>(key: &F::CtKey, entry: &CtEntry) -> i64 {
    let Some(walk) = walk() else { return NEXT };
    walk.report.scanned += 1;
    let key = *key;
    let (tuple, dir) = F::ct_tuple(&key);
    set_limit(walk, tuple.proto, entry.flags);
    // SAFETY: a word of this CPU's element, written just now; see `Walk`.
    let limit_s = unsafe { read_volatile(&raw const walk.limit_s) };
    let now_s = walk.report.now_s;
    let twin_key = twin_key::<F>(&key, entry);
    let twin = match &twin_key {
        Some(twin_key) => F::flow(twin_key),
        None => None,
    };
    if dir != CT_FORWARD && twin.is_some() {
        return NEXT;
    }
    let twin_over = match twin {
        Some(twin) => over(twin, now_s, limit_s),
        None => true,
    };
    // The last look, next to the removal.
    if !twin_over || !over(entry, now_s, limit_s) {
        walk.report.live_flows += u64::from(dir == CT_FORWARD);
        return NEXT;
    }
    if let Some(twin_key) = &twin_key
        && F::remove(twin_key)
    {
        walk.report.removed += 1;
    }
    let (backend, generation) = (entry.backend, entry.backend_generation);
    if F::remove(&key) {
        walk.report.removed += 1;
        if dir == CT_FORWARD {
            backend_maps::flow_ended(backend, generation);
            count::counted(Metric::ConntrackExpired, 0);
        }
    }
    NEXT
}

#[inline(never)]
fn set_limit(walk: &mut Walk, proto: u8, flags: u64) {
    walk.limit_s = timeout_s(proto, flags, &timeouts());
}

#[inline(always)]
fn over(entry: *const CtEntry, now_s: u32, limit_s: u32) -> bool {
    // SAFETY: a map value, aligned, mapped during the run.
    let last_s = unsafe { read_volatile(&raw const (*entry).last_s) };
    expired(now_s, last_s, limit_s)
}
