// SPDX-License-Identifier: Apache-2.0 OR MIT OR GPL-2.0-only
//! `meta`: who wrote these maps. One element, written by the agent only.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First word of a [`Meta`] that has been written: "skepmeta".
pub const META_MAGIC: u64 = u64::from_be_bytes(*b"skepmeta");

/// Value of `meta`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Meta {
    /// [`META_MAGIC`]; 0 in a fresh map.
    pub magic: u64,
    /// [`crate::ABI_VERSION`] of the writer.
    pub abi_version: u32,
    /// Always zero.
    pub pad: u32,
    /// Raised by each agent that takes the maps over: one writer at a time.
    pub writer_generation: u64,
    /// Revision of the desired state that is published in full.
    pub applied_revision: u64,
    /// `CLOCK_MONOTONIC` of the agent's last sign of life, nanoseconds.
    pub heartbeat_ns: u64,
    /// Kernel boot id (`/proc/sys/kernel/random/boot_id`) as 16 bytes.
    pub boot_id: [u8; 16],
    /// Reserved: features of the loaded programs.
    pub features: u64,
}
super::layout!(Meta, size 64, align 8);
