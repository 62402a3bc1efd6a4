// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `sks`: what a socket was translated for, and the count of sockets open at a backend.

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    btf_maps::SkStorage,
    helpers::generated::bpf_sk_storage_get,
    macros::btf_map,
    programs::SockContext,
};
use ebpf::{
    select::Choice,
    words::{self, AddrWords, PortWord},
};
use ebpf_abi::{
    counter::Metric,
    socket::{SOCKET_COUNTED, SocketRecord},
};

use crate::{backend_maps, call::Call, count};

#[btf_map(name = "sks")]
static SKS: SkStorage<SocketRecord> = SkStorage::new();

/// The socket's record, if it has one.
#[inline(always)]
pub(crate) fn get<'a>(call: &'a Call<'_>) -> Option<&'a mut SocketRecord> {
    lookup(call.socket(), 0)
}

/// The socket's record, made if it has none; `None` without memory.
#[inline(always)]
pub(crate) fn get_or_create<'a>(call: &'a Call<'_>) -> Option<&'a mut SocketRecord> {
    lookup(call.socket(), u64::from(BPF_SK_STORAGE_GET_F_CREATE))
}

/// Forgets what a socket was translated for: it connects elsewhere, or ends.
#[inline(always)]
pub(crate) fn forget(record: &mut SocketRecord) {
    if record.flags & SOCKET_COUNTED != 0 {
        backend_maps::flow_ended(record.backend, record.backend_generation);
    }
    record.flags = 0;
    record.svc = 0;
}

/// Records a translation; a counted one is in flight until [`forget`].
#[inline(always)]
pub(crate) fn remember(
    record: &mut SocketRecord,
    vip: &AddrWords,
    port: PortWord,
    choice: &Choice,
    flags: u16,
) {
    forget(record);
    record.vip = words::to_bytes(*vip);
    record.port = words::port_bytes(port);
    record.svc = choice.svc;
    record.backend = choice.backend;
    record.backend_generation = choice.generation;
    record.flags = flags;
    if flags & SOCKET_COUNTED != 0 {
        backend_maps::flow_opened(choice.backend);
    }
}

/// The socket is closed.
#[inline(always)]
pub(crate) fn release(ctx: &SockContext) {
    let Some(record) = lookup(ctx.sock, 0) else {
        return;
    };
    if record.flags & SOCKET_COUNTED != 0 {
        count::counted(Metric::SocketRelease, 0);
    }
    forget(record);
}

#[inline(always)]
fn lookup<'a>(socket: *mut bpf_sock, flags: u64) -> Option<&'a mut SocketRecord> {
    let map = ptr::from_ref(&SKS).cast_mut().cast();
    // SAFETY: the map is of this kind and the socket valid during the call.
    let record = unsafe { bpf_sk_storage_get(map, socket.cast(), ptr::null_mut(), flags) };
    // SAFETY: the storage lives as long as its socket, which lives during the call; the socket's
    // lock is held in all hooks but recvmsg, which only reads.
    unsafe { record.cast::<SocketRecord>().as_mut() }
}
