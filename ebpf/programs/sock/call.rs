// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! One call into a socket address hook: its context's fields, read and written one word at a time
//! as the verifier wants them.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval},
    programs::SockAddrContext,
};
use ebpf::{
    packet::{PROTO_TCP, PROTO_UDP},
    select::Client,
    words::{self, AddrWords, PortWord},
};
use ebpf_abi::{config::FLAG_SET_RETVAL, counter::DropReason, socket::CLIENT_NETNS};
use zerocopy::transmute;

use crate::{count, log::say, rodata::config};

/// The call goes on.
pub(crate) const ALLOW: i32 = 1;
/// The call fails.
const DENY: i32 = 0;

const ECONNREFUSED: i32 = 111;
const SOCK_STREAM: u32 = 1;
/// A stream socket of this protocol speaks TCP on the wire (Linux `IPPROTO_MPTCP`).
const PROTO_MPTCP: u32 = 262;
/// A connected socket's `state`, also of a UDP socket (Linux `TCP_ESTABLISHED`).
const STATE_CONNECTED: u32 = 1;

/// Which of the two hooks of a call runs: what the context's address fields hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hook {
    V4,
    V6,
}

/// One call.
pub(crate) struct Call<'a> {
    ctx: &'a SockAddrContext,
    hook: Hook,
}

/// One word of the context.
macro_rules! field {
    ($ctx:expr, $($field:tt)+) => {
        // SAFETY: the kernel hands in a valid context; each access is one aligned word.
        unsafe { read_volatile(&raw const (*$ctx.sock_addr).$($field)+) }
    };
}

impl<'a> Call<'a> {
    #[inline(always)]
    pub(crate) const fn v4(ctx: &'a SockAddrContext) -> Self {
        Self {
            ctx,
            hook: Hook::V4,
        }
    }

    #[inline(always)]
    pub(crate) const fn v6(ctx: &'a SockAddrContext) -> Self {
        Self {
            ctx,
            hook: Hook::V6,
        }
    }

    /// The socket's protocol as a frontend's; `None` if services do not speak it.
    #[inline(always)]
    pub(crate) fn proto(&self) -> Option<u8> {
        let protocol = field!(self.ctx, protocol);
        let stream = field!(self.ctx, type_) == SOCK_STREAM;
        if stream && (protocol == u32::from(PROTO_TCP) || protocol == PROTO_MPTCP) {
            Some(PROTO_TCP)
        } else if protocol == u32::from(PROTO_UDP) {
            Some(PROTO_UDP)
        } else {
            None
        }
    }

    /// The address of the call: whom it connects or sends to, or whom it received from.
    #[inline(always)]
    pub(crate) fn addr(&self) -> AddrWords {
        match self.hook {
            Hook::V4 => words::from_v4(field!(self.ctx, user_ip4)),
            Hook::V6 => [
                field!(self.ctx, user_ip6[0]),
                field!(self.ctx, user_ip6[1]),
                field!(self.ctx, user_ip6[2]),
                field!(self.ctx, user_ip6[3]),
            ],
        }
    }

    /// The port of the call.
    #[inline(always)]
    pub(crate) fn port(&self) -> PortWord {
        field!(self.ctx, user_port) as PortWord
    }

    /// Gives the call another address; `false`, and nothing written, if the hook's family cannot
    /// hold it.
    #[inline(always)]
    pub(crate) fn set(&self, to: &AddrWords, port: PortWord) -> bool {
        let ctx = self.ctx.sock_addr;
        match self.hook {
            Hook::V4 => {
                let Some(v4) = words::as_v4(to) else {
                    return false;
                };
                write(ctx, v4, |ctx| &raw mut ctx.user_ip4);
            }
            Hook::V6 => {
                write(ctx, to[0], |ctx| &raw mut ctx.user_ip6[0]);
                write(ctx, to[1], |ctx| &raw mut ctx.user_ip6[1]);
                write(ctx, to[2], |ctx| &raw mut ctx.user_ip6[2]);
                write(ctx, to[3], |ctx| &raw mut ctx.user_ip6[3]);
            }
        }
        write(ctx, u32::from(port), |ctx| &raw mut ctx.user_port);
        true
    }

    /// The socket.
    #[inline(always)]
    pub(crate) fn socket(&self) -> *mut bpf_sock {
        field!(self.ctx, __bindgen_anon_1.sk)
    }

    /// True for a socket that is connected now.
    #[inline(always)]
    pub(crate) fn connected(&self) -> bool {
        // SAFETY: the context's socket is valid during the call.
        let state = unsafe { read_volatile(&raw const (*self.socket()).state) };
        state == STATE_CONNECTED
    }

    #[inline(always)]
    pub(crate) fn cookie(&self) -> u64 {
        // SAFETY: the helper takes the context of this program type.
        unsafe { bpf_get_socket_cookie(self.ctx.sock_addr.cast()) }
    }

    /// Who calls, for session affinity: the network namespace, that is the pod or the host.
    #[inline(always)]
    pub(crate) fn client(&self) -> Client {
        // SAFETY: the helper takes the context of this program type.
        let cookie = unsafe { bpf_get_netns_cookie(self.ctx.sock_addr.cast()) };
        let [low, high]: [u32; 2] = transmute!(cookie);
        Client {
            id: [low, high, 0, 0],
            kind: CLIENT_NETNS,
        }
    }
}

/// Refuses a call and says why. Where the kernel can (6.0), the caller sees `ECONNREFUSED`, which
/// is what a closed port would have told it; else `EPERM`.
#[inline(always)]
pub(crate) fn refuse(reason: DropReason) -> i32 {
    count::dropped(reason, 0);
    say!(warn, "refused: reason {}", reason.index());
    if config!(flags) & FLAG_SET_RETVAL != 0 {
        // SAFETY: the helper has no condition in connect and sendmsg hooks.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
    }
    DENY
}

#[inline(always)]
fn write(ctx: *mut bpf_sock_addr, value: u32, field: impl FnOnce(&mut bpf_sock_addr) -> *mut u32) {
    // SAFETY: the kernel hands in a valid context; the field is one aligned word in it.
    unsafe { write_volatile(field(&mut *ctx), value) };
}
