// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `drop` and `metric`: one addition for each verdict.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use ebpf_abi::{
    counter::{Count, DropReason, Metric},
    map,
};

#[btf_map(name = "drop")]
static DROP: PerCpuArray<Count, { map::DROP_SLOTS as usize }> = PerCpuArray::new();

#[btf_map(name = "metric")]
static METRIC: PerCpuArray<Count, { map::METRIC_SLOTS as usize }> = PerCpuArray::new();

#[inline(always)]
pub(crate) fn dropped(reason: DropReason, bytes: u32) {
    add(DROP.get_ptr_mut(reason.index()), 1, bytes);
}

#[inline(always)]
pub(crate) fn counted(metric: Metric, bytes: u32) {
    add(METRIC.get_ptr_mut(metric.index()), 1, bytes);
}

#[inline(always)]
fn add(count: Option<*mut Count>, packets: u64, bytes: u32) {
    let Some(count) = count else { return };
    // SAFETY: this CPU's copy, valid for the run of the program; no other reference to it exists.
    let count = unsafe { &mut *count };
    count.packets += packets;
    count.bytes += u64::from(bytes);
}
