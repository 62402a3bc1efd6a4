//! The pause program: keeps a pod's namespaces open, reaps orphans, ends at SIGTERM or SIGINT.
//!
//! No standard library and no C library: four system calls. Signals are blocked and waited for,
//! which also works as process 1, where unblocked signals without a handler are thrown away.
#![no_std]
#![no_main]

use core::arch::asm;

const SIGINT: u64 = 2;
const SIGTERM: u64 = 15;
const SIGCHLD: u64 = 17;
/// A kernel signal set: bit n-1 is signal n.
const SIGNALS: u64 = 1 << (SIGINT - 1) | 1 << (SIGTERM - 1) | 1 << (SIGCHLD - 1);
const SIGNAL_SET_BYTES: usize = 8;
const SIG_BLOCK: usize = 0;
const WNOHANG: usize = 1;

#[cfg(target_arch = "x86_64")]
mod number {
    pub(crate) const RT_SIGPROCMASK: usize = 14;
    pub(crate) const RT_SIGTIMEDWAIT: usize = 128;
    pub(crate) const WAIT4: usize = 61;
    pub(crate) const EXIT: usize = 60;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub(crate) const RT_SIGPROCMASK: usize = 135;
    pub(crate) const RT_SIGTIMEDWAIT: usize = 137;
    pub(crate) const WAIT4: usize = 260;
    pub(crate) const EXIT: usize = 93;
}

#[cfg(target_arch = "x86_64")]
fn call(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result: isize;
    // SAFETY: the calls made below read only `SIGNALS`-sized memory that outlives them and write
    // nowhere; the kernel clobbers rcx and r11 only.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result,
             in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

#[cfg(target_arch = "aarch64")]
fn call(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result: isize;
    // SAFETY: as on x86_64; the kernel keeps every register but x0.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a as isize => result,
             in("x1") b, in("x2") c, in("x3") d, options(nostack));
    }
    result
}

// SAFETY: the only symbol of this name; the kernel enters here.
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    let set = SIGNALS;
    let set_address = &raw const set as usize;
    call(number::RT_SIGPROCMASK, SIG_BLOCK, set_address, 0, SIGNAL_SET_BYTES);
    loop {
        let signal = call(number::RT_SIGTIMEDWAIT, set_address, 0, 0, SIGNAL_SET_BYTES);
        if signal == SIGTERM as isize || signal == SIGINT as isize {
            loop {
                call(number::EXIT, 0, 0, 0, 0);
            }
        }
        while call(number::WAIT4, usize::MAX, 0, WNOHANG, 0) > 0 {}
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
