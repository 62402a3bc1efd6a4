// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What each call does: translate there, translate back, or refuse.

use aya_ebpf::{btf_maps::LruHashMap, macros::btf_map};
use ebpf::{
    family::{V4, V6},
    select::{Choice, Chosen, Frontdoor, ServiceMaps as _, choose, still_there},
    words::{self, AddrWords, PortWord},
};
use ebpf_abi::{
    counter::{DropReason, Metric},
    frontend::Frontend,
    map,
    socket::{SOCKET_COUNTED, SocketRecord, UdpFrontend, UdpKey},
};

use crate::{
    call::{ALLOW, Call, refuse},
    count,
    log::say,
    record, rodata,
    service_maps::{Frontends as _, KernelMaps},
};

#[btf_map(name = "udprev")]
static UDPREV: LruHashMap<UdpKey, UdpFrontend, { map::UDPREV.entries as usize }> =
    LruHashMap::new();

/// connect: chooses a backend once, for the life of the connection.
#[inline(always)]
pub(crate) fn connect(call: &Call<'_>) -> i32 {
    rodata::abi();
    let Some(proto) = call.proto() else {
        return ALLOW;
    };
    let (vip, port) = (call.addr(), call.port());
    let frontend = match frontdoor(&vip, port, proto) {
        Frontdoor::Service(frontend) => frontend,
        Frontdoor::UnknownPort => return refuse(DropReason::UnknownPort),
        Frontdoor::None => {
            if let Some(record) = record::get(call) {
                record::forget(record);
            }
            return ALLOW;
        }
    };
    let choice = match chosen(call, frontend) {
        Ok(choice) => choice,
        Err(reason) => return refuse(reason),
    };
    if !call.set(&choice.addr, choice.port) {
        return refuse(DropReason::Inconsistent);
    }
    // Without memory for a record the connection still works; it shows its backend as its peer.
    if let Some(record) = record::get_or_create(call) {
        record::remember(record, &vip, port, &choice, SOCKET_COUNTED);
    }
    count::counted(Metric::SocketConnect, 0);
    say!(
        info,
        "connect to {:i} port {} goes to {:i} port {}",
        words::to_bytes(vip),
        u16::from_be(port),
        words::to_bytes(choice.addr),
        u16::from_be(choice.port)
    );
    ALLOW
}

/// sendmsg with an address, on UDP: the socket stays with the backend of its last datagram to the
/// same service, as a tracked flow would.
#[inline(always)]
pub(crate) fn send(call: &Call<'_>) -> i32 {
    let Some(proto) = call.proto() else {
        return ALLOW;
    };
    let (vip, port) = (call.addr(), call.port());
    let frontend = match frontdoor(&vip, port, proto) {
        Frontdoor::Service(frontend) => frontend,
        Frontdoor::UnknownPort => return refuse(DropReason::UnknownPort),
        Frontdoor::None => return ALLOW,
    };
    let record = record::get_or_create(call);
    let choice = match &record {
        Some(record) => recalled(record, frontend, &vip, port),
        None => None,
    };
    let choice = match choice {
        Some(choice) => choice,
        None => match chosen(call, frontend) {
            Ok(choice) => choice,
            Err(reason) => return refuse(reason),
        },
    };
    if !call.set(&choice.addr, choice.port) {
        return refuse(DropReason::Inconsistent);
    }
    // A connected socket's record is the connection's; it may still send elsewhere.
    if let Some(record) = record
        && record.flags & SOCKET_COUNTED == 0
    {
        record::remember(record, &vip, port, &choice, 0);
    }
    remember_frontend(call, &vip, port, &choice);
    count::counted(Metric::SocketSend, 0);
    say!(
        info,
        "send to {:i} port {} goes to {:i} port {}",
        words::to_bytes(vip),
        u16::from_be(port),
        words::to_bytes(choice.addr),
        u16::from_be(choice.port)
    );
    ALLOW
}

/// recvmsg on UDP: an answer of the backend shows as one of the service.
#[inline(always)]
pub(crate) fn receive(call: &Call<'_>) -> i32 {
    if call.connected() {
        // The kernel lets nothing in but from the peer, and the peer is the record's backend.
        if let Some(record) = record::get(call)
            && record.flags & SOCKET_COUNTED != 0
        {
            show(
                call,
                &words::from_bytes(record.vip),
                words::port(record.port),
                Metric::SocketReceive,
            );
            return ALLOW;
        }
    }
    let key = UdpKey {
        cookie: call.cookie(),
        addr: words::to_bytes(call.addr()),
        port: words::port_bytes(call.port()),
        pad: [0; 6],
    };
    // SAFETY: copied at once; if the element is evicted meanwhile, the table was far too small
    // and this sender shows as another frontend of this node.
    if let Some(frontend) = unsafe { UDPREV.get(&key) }.copied() {
        show(
            call,
            &words::from_bytes(frontend.vip),
            words::port(frontend.port),
            Metric::SocketReceive,
        );
    }
    ALLOW
}

/// getpeername: a translated socket's peer is the service.
#[inline(always)]
pub(crate) fn peer_name(call: &Call<'_>) -> i32 {
    if let Some(record) = record::get(call)
        && record.flags & SOCKET_COUNTED != 0
    {
        show(
            call,
            &words::from_bytes(record.vip),
            words::port(record.port),
            Metric::SocketPeerName,
        );
    }
    ALLOW
}

#[inline(always)]
fn show(call: &Call<'_>, vip: &AddrWords, port: PortWord, metric: Metric) {
    if call.set(vip, port) {
        count::counted(metric, 0);
    }
}

#[inline(always)]
fn frontdoor(vip: &AddrWords, port: PortWord, proto: u8) -> Frontdoor {
    match words::as_v4(vip) {
        Some(v4) => V4::frontdoor(&v4, port, proto),
        None => V6::frontdoor(vip, port, proto),
    }
}

#[inline(always)]
fn chosen(call: &Call<'_>, frontend: Frontend) -> Result<Choice, DropReason> {
    let choice = choose(&KernelMaps, frontend, &call.client())?;
    match choice.chosen {
        Chosen::Drawn => {}
        Chosen::Terminating => count::counted(Metric::TerminatingFallback, 0),
        Chosen::Recalled => count::counted(Metric::Affinity, 0),
    }
    Ok(choice)
}

/// The backend of the socket's last datagram to the same frontend, if it still takes new work.
#[inline(always)]
fn recalled(
    record: &SocketRecord,
    frontend: Frontend,
    vip: &AddrWords,
    port: PortWord,
) -> Option<Choice> {
    let same = record.svc == frontend.svc
        && words::port(record.port) == port
        && words::from_bytes(record.vip) == *vip;
    if !same || !still_there(&KernelMaps, record.backend, record.backend_generation) {
        return None;
    }
    let backend = KernelMaps.backend(record.backend)?;
    if backend.state != ebpf_abi::service::BE_ACTIVE {
        return None;
    }
    Some(Choice {
        svc: record.svc,
        backend: record.backend,
        generation: record.backend_generation,
        addr: words::from_bytes(backend.addr),
        port: words::port(backend.port),
        chosen: Chosen::Drawn,
    })
}

/// Writes `udprev` unless it says so already: a lookup keeps the element young and is cheaper.
#[inline(always)]
fn remember_frontend(call: &Call<'_>, vip: &AddrWords, port: PortWord, choice: &Choice) {
    let key = UdpKey {
        cookie: call.cookie(),
        addr: words::to_bytes(choice.addr),
        port: words::port_bytes(choice.port),
        pad: [0; 6],
    };
    // SAFETY: compared at once; a torn element compares unequal and is written again.
    let same = unsafe { UDPREV.get(&key) }.is_some_and(|known| {
        known.svc == choice.svc
            && words::port(known.port) == port
            && words::from_bytes(known.vip) == *vip
    });
    if !same {
        let value = UdpFrontend {
            vip: words::to_bytes(*vip),
            port: words::port_bytes(port),
            pad: [0; 2],
            svc: choice.svc,
        };
        // Without memory the answer shows the backend's address.
        let _stored = UDPREV.insert(&key, &value, 0);
    }
}
