// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `ifx`, `ep`, `local`, `route`: who sends, and where an address lives.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, HashMap, LpmTrie, lpm_trie::Key},
    macros::btf_map,
};
use ebpf::words::{self, AddrWords};
use ebpf_abi::{
    addr::Addr,
    endpoint::{Endpoint, IfxKey, IfxValue, LocalPod},
    map,
    route::Route,
};

#[btf_map(name = "ifx")]
static IFX: HashMap<IfxKey, IfxValue, { map::IFX.entries as usize }> = HashMap::new();

#[btf_map(name = "ep")]
static EP: Array<Endpoint, { map::EP.entries as usize }, { BPF_F_MMAPABLE as usize }> =
    Array::new();

#[btf_map(name = "local")]
static LOCAL: HashMap<Addr, LocalPod, { map::LOCAL.entries as usize }> = HashMap::new();

#[btf_map(name = "route")]
static ROUTE: LpmTrie<
    Addr,
    Route,
    { map::ROUTE.entries as usize },
    { BPF_F_NO_PREALLOC as usize },
> = LpmTrie::new();

/// The pod behind the host-side device `ifindex`.
#[inline(always)]
pub(crate) fn sender(ifindex: u32) -> Option<&'static Endpoint> {
    // SAFETY: a word, copied at once.
    let index = *unsafe { IFX.get(&ifindex) }?;
    pod(index)
}

/// Index of the pod of this node that has `addr`.
#[inline(always)]
pub(crate) fn local(addr: &AddrWords) -> Option<u32> {
    // SAFETY: a word, copied at once.
    Some(unsafe { LOCAL.get(aligned(addr)) }?.ep)
}

/// The node that has `addr` in its range.
#[inline(always)]
pub(crate) fn remote(addr: &AddrWords) -> Option<&'static Route> {
    ROUTE.get(&Key::new(128, words::to_bytes(*addr)))
}

/// The key in place: words and bytes have the same memory.
#[inline(always)]
const fn aligned(addr: &AddrWords) -> &Addr {
    zerocopy::transmute_ref!(addr)
}

/// The pod at `index`; 0 is none.
#[inline(always)]
pub(crate) fn pod(index: u32) -> Option<&'static Endpoint> {
    if index == 0 {
        return None;
    }
    EP.get(index).filter(|ep| ep.ifindex != 0)
}
