// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Atomic changes of map values: one BPF instruction each (`BPF_ATOMIC`, kernel 5.12).
//!
//! The compiler's BPF target offers no read-modify-write on `core::sync::atomic`, since it has no
//! compare-and-swap for all widths; the intrinsics below it compile to the instruction.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

/// Adds to a counter that all CPUs share; subtraction is addition of the two's complement.
///
/// # Safety
/// `counter` points to an aligned map value that others change atomically only.
#[inline(always)]
pub(crate) unsafe fn add(counter: *mut u64, value: u64) {
    // SAFETY: the caller's condition.
    let _before = unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, value) };
}
