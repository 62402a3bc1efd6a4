// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The clock that time-outs are measured by.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;

/// `CLOCK_MONOTONIC` in seconds. Coarse: up to a tick (10 ms) old, at half the cost.
#[inline(always)]
pub(crate) fn now_s() -> u32 {
    // SAFETY: the helper has no condition (kernel 5.11).
    let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
    (now_ns / 1_000_000_000) as u32
}
