// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The life of a flow that the packet path translates: its states, its time-outs and how its two
//! entries find each other. Pure; the programs keep the table.

use ebpf_abi::{
    config::Config,
    conntrack::{
        CT_ANSWERED, CT_FIN_FORWARD, CT_FIN_REVERSE, CT_FORWARD, CT_HAIRPIN, CT_REVERSE, CT_RST,
        CtEntry,
    },
};

use crate::{
    family::{Family, Tuple},
    packet::{PROTO_TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
    words::{self, AddrWords, PortWord},
};

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Client to VIP.
    Forward,
    /// Backend to client.
    Reverse,
}

/// State of a flow, a function of its bits; only ever moves down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// No answer yet.
    New,
    /// Packets both ways.
    Established,
    /// TCP: FIN from one side.
    Closing,
    /// TCP: FIN from both sides, or RST.
    Closed,
}

/// The state that a flow's bits mean.
#[inline(always)]
pub const fn state(flags: u64) -> State {
    const BOTH: u64 = CT_FIN_FORWARD | CT_FIN_REVERSE;
    if flags & CT_RST != 0 || flags & BOTH == BOTH {
        State::Closed
    } else if flags & BOTH != 0 {
        State::Closing
    } else if flags & CT_ANSWERED != 0 {
        State::Established
    } else {
        State::New
    }
}

/// The bits that a packet adds to its flow. `tcp_flags` is 0 for other protocols.
#[inline(always)]
pub const fn bits(direction: Direction, tcp_flags: u8) -> u64 {
    let mut bits = match direction {
        Direction::Forward => 0,
        Direction::Reverse => CT_ANSWERED,
    };
    if tcp_flags & TCP_RST != 0 {
        bits |= CT_RST;
    }
    if tcp_flags & TCP_FIN != 0 {
        bits |= match direction {
            Direction::Forward => CT_FIN_FORWARD,
            Direction::Reverse => CT_FIN_REVERSE,
        };
    }
    bits
}

/// True if this packet of the client opens a new flow although there is an entry: a SYN on a flow
/// that is closing or closed (the port is used again).
#[inline(always)]
pub const fn reopens(flags: u64, tcp_flags: u8) -> bool {
    let syn = tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST) == TCP_SYN;
    syn && matches!(state(flags), State::Closing | State::Closed)
}

/// Seconds without a packet in either direction after which a flow ends.
#[inline(always)]
pub const fn timeout_s(proto: u8, flags: u64, config: &Config) -> u32 {
    let state = state(flags);
    if proto == PROTO_TCP {
        match state {
            State::New => config.tcp_syn_s,
            State::Established => config.tcp_established_s,
            State::Closing => config.tcp_fin_s,
            State::Closed if flags & CT_RST != 0 => config.tcp_rst_s,
            State::Closed => config.tcp_fin_s,
        }
    } else {
        match state {
            State::New => config.udp_new_s,
            State::Established | State::Closing | State::Closed => config.udp_assured_s,
        }
    }
}

/// True if a flow last seen at `last_s` has ended by `now_s`. A clock that another CPU has read a
/// moment later does not end a flow.
#[inline(always)]
pub const fn expired(now_s: u32, last_s: u32, timeout_s: u32) -> bool {
    now_s.saturating_sub(last_s) > timeout_s
}

/// The choice that opens a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening<A> {
    /// Address of the backend.
    pub addr: A,
    /// Port of the backend.
    pub port: PortWord,
    /// New source, if the backend is the client itself.
    pub hairpin: Option<A>,
    /// Index into `svc`.
    pub svc: u32,
    /// Index into `be`.
    pub backend: u32,
    /// Generation of the backend.
    pub backend_generation: u32,
}

const NO_ADDR: AddrWords = [0; 4];

/// The forward entry of a new flow.
#[inline(always)]
pub fn forward_entry<F: Family>(opening: &Opening<F::Addr>) -> CtEntry {
    let (flags, hairpin_addr) = match &opening.hairpin {
        Some(hairpin) => (CT_HAIRPIN, F::widen(hairpin)),
        None => (0, NO_ADDR),
    };
    CtEntry {
        packets: 0,
        bytes: 0,
        last_s: 0,
        flags,
        nat_addr: words::to_bytes(F::widen(&opening.addr)),
        hairpin_addr: words::to_bytes(hairpin_addr),
        svc: opening.svc,
        backend: opening.backend,
        backend_generation: opening.backend_generation,
        nat_port: words::port_bytes(opening.port),
        pad: [0; 6],
    }
}

/// The reverse entry of a new flow that the packet `tuple` opens.
#[inline(always)]
pub fn reverse_entry<F: Family>(tuple: &Tuple<F::Addr>, opening: &Opening<F::Addr>) -> CtEntry {
    let mut entry = forward_entry::<F>(opening);
    entry.nat_addr = words::to_bytes(F::widen(&tuple.dst));
    entry.nat_port = words::port_bytes(tuple.dport);
    if opening.hairpin.is_some() {
        entry.hairpin_addr = words::to_bytes(F::widen(&tuple.src));
    }
    entry
}

/// Key of the reverse entry of a flow: what the backend's answers look like.
#[inline(always)]
pub fn reverse_key<F: Family>(tuple: &Tuple<F::Addr>, opening: &Opening<F::Addr>) -> F::CtKey {
    let answer = Tuple {
        src: opening.addr,
        dst: opening.hairpin.unwrap_or(tuple.src),
        sport: opening.port,
        dport: tuple.sport,
        proto: tuple.proto,
    };
    F::ct_key(&answer, CT_REVERSE)
}

/// Key of the reverse entry of the flow that an ICMP error is about: the error quotes the client's
/// packet as it was translated.
#[inline(always)]
pub fn error_key<F: Family>(quoted: &Tuple<F::Addr>) -> F::CtKey {
    let answer = Tuple {
        src: quoted.dst,
        dst: quoted.src,
        sport: quoted.dport,
        dport: quoted.sport,
        proto: quoted.proto,
    };
    F::ct_key(&answer, CT_REVERSE)
}

/// Key of the other entry of the same flow; `None` if the entry's addresses are of the other
/// family, which only a broken table holds.
#[inline(always)]
pub fn twin_key<F: Family>(key: &F::CtKey, entry: &CtEntry) -> Option<F::CtKey> {
    let (tuple, dir) = F::ct_tuple(key);
    let nat = F::narrow(&words::from_bytes(entry.nat_addr))?;
    let peer = if entry.flags & CT_HAIRPIN == 0 {
        if dir == CT_FORWARD {
            tuple.src
        } else {
            tuple.dst
        }
    } else {
        F::narrow(&words::from_bytes(entry.hairpin_addr))?
    };
    Some(if dir == CT_FORWARD {
        let answer = Tuple {
            src: nat,
            dst: peer,
            sport: words::port(entry.nat_port),
            dport: tuple.sport,
            proto: tuple.proto,
        };
        F::ct_key(&answer, CT_REVERSE)
    } else {
        let question = Tuple {
            src: peer,
            dst: nat,
            sport: tuple.dport,
            dport: words::port(entry.nat_port),
            proto: tuple.proto,
        };
        F::ct_key(&question, CT_FORWARD)
    })
}

/// The tuple of a packet after its flow's translation; `None` as in [`twin_key`].
#[inline(always)]
pub fn translated<F: Family>(
    tuple: &Tuple<F::Addr>,
    entry: &CtEntry,
    direction: Direction,
) -> Option<Tuple<F::Addr>> {
    let nat = F::narrow(&words::from_bytes(entry.nat_addr))?;
    let hairpin = if entry.flags & CT_HAIRPIN == 0 {
        None
    } else {
        Some(F::narrow(&words::from_bytes(entry.hairpin_addr))?)
    };
    Some(match direction {
        Direction::Forward => Tuple {
            src: hairpin.unwrap_or(tuple.src),
            dst: nat,
            sport: tuple.sport,
            dport: words::port(entry.nat_port),
            proto: tuple.proto,
        },
        Direction::Reverse => Tuple {
            src: nat,
            dst: hairpin.unwrap_or(tuple.dst),
            sport: words::port(entry.nat_port),
            dport: tuple.dport,
            proto: tuple.proto,
        },
    })
}

#[cfg(test)]
mod tests;
