// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Collection of flows that have ended: one walk over the table inside the kernel, so that no
//! packet comes between the look at an entry and its removal but on another CPU, and there within
//! nanoseconds.
//!
//! Run by `BPF_PROG_TEST_RUN` with a packet of `GC_PACKET_LEN` bytes; the report is in the packet.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(unsafe_code, reason = "kernel helpers and map values")]
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a field's address and the access to it are one step"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the macros hand the context over by value"
)]
#![expect(internal_features, reason = "atomic instructions, see atomic.rs")]
#![expect(
    clippy::cast_possible_truncation,
    reason = "helpers return small codes as longs"
)]

#[path = "../shared/atomic.rs"]
mod atomic;
#[expect(
    dead_code,
    unused_imports,
    reason = "shared; this object uses a part of it"
)]
#[path = "../shared/backend_maps.rs"]
mod backend_maps;
#[path = "../shared/clock.rs"]
mod clock;
#[expect(dead_code, reason = "shared; this object uses a part of it")]
#[path = "../shared/count.rs"]
mod count;
#[expect(dead_code, reason = "shared; this object uses a part of it")]
#[path = "../shared/flow_maps.rs"]
mod flow_maps;
#[path = "../shared/rodata.rs"]
mod rodata;
#[path = "../shared/timeouts.rs"]
mod timeouts;

mod visit;

use core::ptr;

use aya_ebpf::{
    helpers::generated::{bpf_for_each_map_elem, bpf_skb_store_bytes},
    macros::classifier,
    programs::TcContext,
};
use ebpf_abi::gc::{GC_REPORT_OFFSET, GcReport};

use crate::{
    flow_maps::{CT4, CT6},
    visit::{visit4, visit6, walk},
};

/// The report is written.
const DONE: i32 = 0;
/// The packet is too short for the report.
const NO_ROOM: i32 = -1;

#[classifier]
fn gc4(ctx: TcContext) -> i32 {
    rodata::abi();
    let map = ptr::from_ref(&CT4).cast_mut().cast();
    start();
    // SAFETY: the callback has the signature the kernel calls it by.
    let visited = unsafe { bpf_for_each_map_elem(map, visit4 as *mut _, ptr::null_mut(), 0) };
    finish(&ctx, visited)
}

#[classifier]
fn gc6(ctx: TcContext) -> i32 {
    let map = ptr::from_ref(&CT6).cast_mut().cast();
    start();
    // SAFETY: the callback has the signature the kernel calls it by.
    let visited = unsafe { bpf_for_each_map_elem(map, visit6 as *mut _, ptr::null_mut(), 0) };
    finish(&ctx, visited)
}

#[inline(always)]
fn start() {
    if let Some(walk) = walk() {
        walk.report = GcReport {
            scanned: 0,
            removed: 0,
            live_flows: 0,
            now_s: clock::now_s(),
            error: 0,
        };
    }
}

#[inline(always)]
fn finish(ctx: &TcContext, visited: i64) -> i32 {
    let Some(walk) = walk() else { return NO_ROOM };
    if visited < 0 {
        walk.report.error = visited as i32;
    }
    let (from, len) = (
        (&raw const walk.report).cast(),
        size_of::<GcReport>() as u32,
    );
    // SAFETY: the helper reads the whole report and checks the packet's bounds itself.
    match unsafe { bpf_skb_store_bytes(ctx.skb.skb, GC_REPORT_OFFSET as u32, from, len, 0) } {
        0 => DONE,
        _ => NO_ROOM,
    }
}
