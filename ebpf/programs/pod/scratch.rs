// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What the steps of one packet's walk hand to each other.
//!
//! It lies in a map, not on the stack, for two reasons: the stack holds 512 bytes over all frames,
//! and the verifier forgets what it knew of a value that was written to a map. So the steps behind
//! a step are verified once, not once for each way through it.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use ebpf::{
    conntrack::Opening,
    family::{Family, Tuple, V4, V6},
    packet::Packet,
};
use ebpf_abi::{conntrack::CtEntry, counter::DropReason, frontend::Frontend};

/// One packet on its walk.
#[repr(C)]
pub(crate) struct Scratch<F: Family> {
    /// As it came.
    pub(crate) packet: Packet<F::Addr>,
    /// The tuple it leaves with; its own until it is translated.
    pub(crate) new: Tuple<F::Addr>,
    /// What is to be done with it.
    pub(crate) way: Way,
    /// The packet is to be rewritten to `new`.
    pub(crate) translated: bool,
    /// The service it goes to, on [`Way::Forward`].
    pub(crate) frontend: Frontend,
    /// Index into `ep` of the pod it goes to, 0 if that is not on this node.
    pub(crate) pod: u32,
    /// Its length.
    pub(crate) bytes: u32,
    /// Keys and values of the flow.
    pub(crate) key: F::CtKey,
    pub(crate) other_key: F::CtKey,
    pub(crate) opening: Opening<F::Addr>,
    pub(crate) entry: CtEntry,
}

/// What is to be done with a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Way {
    /// Never leaves the link: the stack's.
    Link,
    /// Deliver as it is.
    Plain,
    /// From a client to a service.
    Forward,
    /// Perhaps from a backend to its client: so if there is such a flow.
    Reverse,
    /// ICMP to a client, perhaps an error about a flow.
    Icmp,
}

#[btf_map(name = "pod_scratch4")]
static SCRATCH4: PerCpuArray<Scratch<V4>, 1> = PerCpuArray::new();

#[btf_map(name = "pod_scratch6")]
static SCRATCH6: PerCpuArray<Scratch<V6>, 1> = PerCpuArray::new();

/// Families that have a scratch.
pub(crate) trait Scratched: Family + Sized {
    /// This CPU's scratch. A program runs to its end before another starts on the same CPU, so
    /// nothing else refers to it.
    /// # Errors
    /// [`DropReason::Inconsistent`] never happens: the map has its one element.
    fn scratch<'a>() -> Result<&'a mut Scratch<Self>, DropReason>;
}

impl Scratched for V4 {
    #[inline(always)]
    fn scratch<'a>() -> Result<&'a mut Scratch<Self>, DropReason> {
        let scratch = SCRATCH4.get_ptr_mut(0).ok_or(DropReason::Inconsistent)?;
        // SAFETY: this CPU's element, to which nothing else refers.
        Ok(unsafe { &mut *scratch })
    }
}

impl Scratched for V6 {
    #[inline(always)]
    fn scratch<'a>() -> Result<&'a mut Scratch<Self>, DropReason> {
        let scratch = SCRATCH6.get_ptr_mut(0).ok_or(DropReason::Inconsistent)?;
        // SAFETY: this CPU's element, to which nothing else refers.
        Ok(unsafe { &mut *scratch })
    }
}
