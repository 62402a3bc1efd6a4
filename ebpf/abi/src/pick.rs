// SPDX-License-Identifier: Apache-2.0 OR MIT OR GPL-2.0-only
//! What the test program `pick` reads and reports: it runs the programs' own selection many times
//! by `BPF_PROG_TEST_RUN` and checks every choice against what the writer promises.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Offset of [`PickRun`] in the packet, behind an Ethernet header.
pub const PICK_OFFSET: usize = 14;

/// Length of the packet to hand in.
pub const PICK_PACKET_LEN: usize = PICK_OFFSET + size_of::<PickRun>();

/// Choices in one run of the program; raise the repeat count of the test run for more.
pub const PICKS_PER_RUN: u32 = 16;

/// In: `svc`. Out: the counts, added to what was there.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PickRun {
    /// Choices that found a backend.
    pub picked: u64,
    /// Choices on an empty set.
    pub empty: u64,
    /// Choices whose backend is free, or not of the set that was published before and after.
    pub wrong: u64,
    /// Choices that found no slot or backend behind an index, or one of another service.
    pub inconsistent: u64,
    /// Index into `svc`.
    pub svc: u32,
    /// Generation of the last head seen.
    pub last_generation: u32,
}
super::layout!(PickRun, size 40, align 8);
