// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Test program: the selection that all hooks share, many times in a run, each choice checked
//! against what the writer of the maps promises. Run by `BPF_PROG_TEST_RUN` while a writer
//! publishes; not part of a running node.
//!
//! The writer gives a set of generation g only backends whose `node` has bit (g & 1) set. A choice
//! made between two loads of the same head must be of that head's set.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(unsafe_code, reason = "kernel helpers and map values")]
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a field's address and the access to it are one step"
)]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a key by value would be copied onto the stack again"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the macros hand the context over by value"
)]
#![expect(internal_features, reason = "atomic instructions, see atomic.rs")]
#![expect(
    clippy::cast_possible_truncation,
    reason = "sizes and offsets of a few bytes"
)]

#[path = "../shared/atomic.rs"]
mod atomic;
#[expect(dead_code, reason = "shared; this object uses a part of it")]
#[path = "../shared/backend_maps.rs"]
mod backend_maps;
#[path = "../shared/clock.rs"]
mod clock;
#[expect(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "shared; this object uses a part of it"
)]
#[path = "../shared/rodata.rs"]
mod rodata;
#[expect(dead_code, reason = "shared; this object uses a part of it")]
#[path = "../shared/service_maps.rs"]
mod service_maps;

use aya_ebpf::{
    btf_maps::PerCpuArray,
    helpers::generated::{bpf_skb_load_bytes, bpf_skb_store_bytes},
    macros::{btf_map, classifier},
    programs::TcContext,
};
use ebpf::select::{Client, Service as _, ServiceMaps as _, choose};
use ebpf_abi::{
    counter::DropReason,
    frontend::Frontend,
    pick::{PICK_OFFSET, PICKS_PER_RUN, PickRun},
    service::{BE_FREE, Head},
    socket::CLIENT_NETNS,
};

use crate::service_maps::KernelMaps;

/// In a map, so that the verifier does not follow each count's value through the loop.
#[btf_map(name = "pick_run")]
static RUN: PerCpuArray<PickRun, 1> = PerCpuArray::new();

/// The counts are written.
const DONE: i32 = 0;
/// The packet is too short.
const NO_ROOM: i32 = -1;

#[classifier]
fn pick(ctx: TcContext) -> i32 {
    rodata::abi();
    let Some(run) = RUN.get_ptr_mut(0) else {
        return NO_ROOM;
    };
    let len = size_of::<PickRun>() as u32;
    // SAFETY: the helper writes the whole element and checks the packet's bounds itself.
    if unsafe { bpf_skb_load_bytes(ctx.skb.skb.cast(), PICK_OFFSET as u32, run.cast(), len) } != 0 {
        return NO_ROOM;
    }
    // SAFETY: this CPU's element, to which nothing else refers.
    let counts = unsafe { &mut *run };
    let mut i = 0;
    while i < PICKS_PER_RUN {
        one(counts);
        i += 1;
    }
    // SAFETY: the helper reads the whole element and checks the packet's bounds itself.
    match unsafe { bpf_skb_store_bytes(ctx.skb.skb, PICK_OFFSET as u32, run.cast(), len, 0) } {
        0 => DONE,
        _ => NO_ROOM,
    }
}

#[inline(never)]
fn one(counts: &mut PickRun) {
    let Some(service) = KernelMaps.service(counts.svc) else {
        counts.inconsistent += 1;
        return;
    };
    let before = service.head();
    let frontend = Frontend {
        svc: counts.svc,
        flags: 0,
        pad: 0,
    };
    let client = Client {
        id: [0; 4],
        kind: CLIENT_NETNS,
    };
    let choice = match choose(&KernelMaps, frontend, &client) {
        Ok(choice) => choice,
        Err(DropReason::NoBackend) => {
            counts.empty += 1;
            return;
        }
        Err(_) => {
            counts.inconsistent += 1;
            return;
        }
    };
    counts.picked += 1;
    let backend = KernelMaps.backend(choice.backend);
    let Some(backend) = backend else {
        counts.inconsistent += 1;
        return;
    };
    let generation = Head::unpack(before).generation;
    let member = backend.node & (1 << (generation & 1)) != 0;
    if backend.state == BE_FREE || (before == service.head() && !member) {
        counts.wrong += 1;
    }
    counts.last_generation = u32::from(generation);
}
