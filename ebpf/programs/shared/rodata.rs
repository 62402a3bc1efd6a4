// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What every object carries: licence, ABI version, configuration, panic handler.

use core::ptr::read_volatile;

use ebpf_abi::{ABI_VERSION, config::Config};

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[unsafe(no_mangle)]
static ABI: u32 = ABI_VERSION;

#[unsafe(no_mangle)]
static CONFIG: Config = Config::DEFAULT;

/// One field of the configuration. The loader may have changed it, so the compiler must not know
/// it; the verifier does, and prunes.
macro_rules! config {
    ($field:ident) => {
        // SAFETY: the pointer is derived from a static.
        unsafe { core::ptr::read_volatile(&raw const crate::rodata::raw().$field) }
    };
}
pub(crate) use config;

pub(crate) const fn raw() -> &'static Config {
    &CONFIG
}

/// Keeps `ABI` in the object: read by the first instruction that needs nothing.
#[inline(always)]
pub(crate) fn abi() -> u32 {
    // SAFETY: the pointer is derived from a static.
    unsafe { read_volatile(&raw const ABI) }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // No program can panic: the linker drops this, and the verifier would refuse the loop.
    loop {}
}
