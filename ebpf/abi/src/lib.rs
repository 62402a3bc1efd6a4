// SPDX-License-Identifier: Apache-2.0 OR MIT OR GPL-2.0-only
//! Layouts shared by the BPF programs and user space: map keys and values, counters, drop reasons
//! and the read-only configuration.
//!
//! Byte order: an address or a port as it stands in a packet is a byte array in network order
//! (`[u8; 4]`, `[u8; 16]`, `[u8; 2]`); every integer field is in the order of the host. A 16-byte
//! address holds an IPv4 address in its IPv4-mapped form `::ffff:a.b.c.d` ([`addr`]), so the
//! address tells its own family. Padding is explicit and always zero: hash keys are compared
//! byte by byte.
//!
//! Keys and values are aligned to words although their fields are bytes: a BPF program reads
//! bytes of unknown alignment one by one.
//!
//! A type here is proved to hold no hidden padding (zerocopy's derive refuses it) and its size
//! and alignment are asserted. Whatever changes a layout or a meaning raises [`ABI_VERSION`].
#![no_std]

pub mod addr;
pub mod config;
pub mod conntrack;
pub mod counter;
pub mod endpoint;
pub mod frontend;
pub mod gc;
pub mod map;
pub mod meta;
pub mod pick;
pub mod program;
pub mod route;
pub mod service;
pub mod socket;
#[cfg(test)]
mod tests;

/// Version of every layout and meaning in this crate.
///
/// It stands in the read-only data of each object ([`config::ABI_GLOBAL`]), in [`meta::Meta`] and
/// in the pin directory's name ([`map::PIN_DIR`]), so programs and maps of two versions can
/// lie side by side.
pub const ABI_VERSION: u32 = 1;

/// Asserts size and alignment of a layout at compile time.
macro_rules! layout {
    ($type:ty, size $size:literal, align $align:literal) => {
        const _: () = assert!(core::mem::size_of::<$type>() == $size);
        const _: () = assert!(core::mem::align_of::<$type>() == $align);
        #[cfg(feature = "user")]
        // SAFETY: zerocopy's derives prove that every bit pattern is valid and that there is no
        // padding; the type is `Copy` and holds no pointer.
        #[expect(unsafe_code, reason = "aya asks for its own marker trait")]
        unsafe impl aya::Pod for $type {}
    };
}
pub(crate) use layout;
