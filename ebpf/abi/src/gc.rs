// SPDX-License-Identifier: Apache-2.0 OR MIT OR GPL-2.0-only
//! What `gc` reports: it is run by `BPF_PROG_TEST_RUN` and writes this into its packet.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Offset of [`GcReport`] in the packet, behind an Ethernet header.
pub const GC_REPORT_OFFSET: usize = 14;

/// Length of the packet to hand in: the report behind an Ethernet header, all zero.
pub const GC_PACKET_LEN: usize = GC_REPORT_OFFSET + size_of::<GcReport>();

/// Counts of one run over one table.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct GcReport {
    /// Entries looked at, both directions.
    pub scanned: u64,
    /// Entries removed, both directions.
    pub removed: u64,
    /// Flows still open (forward entries kept).
    pub live_flows: u64,
    /// Boot time in seconds that the run compared with.
    pub now_s: u32,
    /// 0, or the negative error of the kernel's walk.
    pub error: i32,
}
super::layout!(GcReport, size 32, align 8);
