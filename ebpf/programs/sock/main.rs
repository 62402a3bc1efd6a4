// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Socket hooks: a connect or send to a service leaves the socket already addressed to a backend.
//!
//! Attached to the cgroup root of a node. One record in the socket says what was translated; it
//! dies with the socket. Only unconnected UDP needs a table of its own (`udprev`).
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(unsafe_code, reason = "kernel helpers and context fields")]
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
    reason = "fields of the kernel's context are words that hold 16 bits"
)]

#[path = "../shared/atomic.rs"]
mod atomic;
#[path = "../shared/backend_maps.rs"]
mod backend_maps;
#[path = "../shared/clock.rs"]
mod clock;
#[path = "../shared/count.rs"]
mod count;
#[path = "../shared/log.rs"]
mod log;
#[path = "../shared/rodata.rs"]
mod rodata;
#[path = "../shared/service_maps.rs"]
mod service_maps;

mod call;
mod record;
mod translate;

use aya_ebpf::{
    macros::{cgroup_sock, cgroup_sock_addr},
    programs::{SockAddrContext, SockContext},
};

use crate::call::Call;

#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    translate::connect(&Call::v4(&ctx))
}

#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    translate::connect(&Call::v6(&ctx))
}

#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(ctx: SockAddrContext) -> i32 {
    translate::send(&Call::v4(&ctx))
}

#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(ctx: SockAddrContext) -> i32 {
    translate::send(&Call::v6(&ctx))
}

#[cgroup_sock_addr(recvmsg4)]
fn recvmsg4(ctx: SockAddrContext) -> i32 {
    translate::receive(&Call::v4(&ctx))
}

#[cgroup_sock_addr(recvmsg6)]
fn recvmsg6(ctx: SockAddrContext) -> i32 {
    translate::receive(&Call::v6(&ctx))
}

#[cgroup_sock_addr(getpeername4)]
fn getpeername4(ctx: SockAddrContext) -> i32 {
    translate::peer_name(&Call::v4(&ctx))
}

#[cgroup_sock_addr(getpeername6)]
fn getpeername6(ctx: SockAddrContext) -> i32 {
    translate::peer_name(&Call::v6(&ctx))
}

#[cgroup_sock(sock_release)]
fn sock_release(ctx: SockContext) -> i32 {
    record::release(&ctx);
    call::ALLOW
}
