// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The packet buffer: reads and writes by helper, so that data outside the linear part and cloned
//! buffers are the kernel's business and no pointer has to be checked again after a change.

use core::{mem::MaybeUninit, ptr::read_volatile};

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, TC_ACT_OK, TC_ACT_SHOT, bpf_redir_neigh,
        bpf_redir_neigh__bindgen_ty_1,
    },
    helpers::generated::{
        bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_redirect_neigh, bpf_redirect_peer,
        bpf_skb_load_bytes, bpf_skb_store_bytes,
    },
};
use ebpf::{
    packet::Bytes,
    words::{self, AddrWords},
};
use ebpf_abi::counter::DropReason;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// On to the stack, or to the pod.
pub(crate) const PASS: i32 = TC_ACT_OK;
/// Drop.
pub(crate) const DROP: i32 = TC_ACT_SHOT;

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// One packet.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Skb {
    raw: *mut __sk_buff,
}

/// One word of the context.
macro_rules! field {
    ($skb:expr, $field:ident) => {
        // SAFETY: the kernel hands in a valid context; each access is one aligned word.
        unsafe { read_volatile(&raw const (*$skb.raw).$field) }
    };
}

impl Skb {
    #[inline(always)]
    pub(crate) const fn new(raw: *mut __sk_buff) -> Self {
        Self { raw }
    }

    /// EtherType of the packet.
    #[inline(always)]
    pub(crate) fn ethertype(&self) -> u16 {
        u16::from_be(field!(self, protocol) as u16)
    }

    /// Bytes from the Ethernet header on.
    #[inline(always)]
    pub(crate) fn len(&self) -> u32 {
        field!(self, len)
    }

    /// The device whose hook runs.
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        field!(self, ifindex)
    }

    /// Writes a header, or a part of one, at `offset`.
    /// # Errors
    /// [`DropReason::Rewrite`] if the kernel refuses.
    #[inline(always)]
    pub(crate) fn store<T: IntoBytes + Immutable>(
        &self,
        offset: u32,
        value: &T,
    ) -> Result<(), DropReason> {
        let from = core::ptr::from_ref(value).cast();
        // SAFETY: the helper reads the bytes of `value`, all of them initialised, and checks the
        // packet's bounds itself.
        done(unsafe { bpf_skb_store_bytes(self.raw, offset, from, size_of::<T>() as u32, 0) })
    }

    /// Adds a difference to the IPv4 header checksum at `offset`.
    #[inline(always)]
    pub(crate) fn update_header_checksum(&self, offset: u32, diff: u32) -> Result<(), DropReason> {
        // SAFETY: the helper checks the packet's bounds itself.
        done(unsafe { bpf_l3_csum_replace(self.raw, offset, 0, u64::from(diff), 0) })
    }

    /// Adds differences to a transport checksum at `offset`: of the pseudo header (addresses) and
    /// of the header (ports). The helper knows what a checksum left to the device still covers,
    /// and leaves a UDP checksum of zero alone (RFC 768: none).
    #[inline(always)]
    pub(crate) fn update_transport_checksum(
        &self,
        offset: u32,
        addrs: u32,
        ports: u32,
    ) -> Result<(), DropReason> {
        let pseudo = u64::from(BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0);
        // SAFETY: the helper checks the packet's bounds itself.
        done(unsafe { bpf_l4_csum_replace(self.raw, offset, 0, u64::from(addrs), pseudo) })?;
        let plain = u64::from(BPF_F_MARK_MANGLED_0);
        // SAFETY: as above.
        done(unsafe { bpf_l4_csum_replace(self.raw, offset, 0, u64::from(ports), plain) })
    }

    /// Adds a difference to an ICMP checksum at `offset`.
    #[inline(always)]
    pub(crate) fn update_icmp_checksum(self, offset: u32, diff: u32) -> Result<(), DropReason> {
        // SAFETY: the helper checks the packet's bounds itself.
        done(unsafe { bpf_l4_csum_replace(self.raw, offset, 0, u64::from(diff), 0) })
    }
}

impl Bytes for Skb {
    #[inline(always)]
    fn load<T: FromBytes>(&self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        let to = value.as_mut_ptr().cast();
        // SAFETY: the helper writes all bytes of `value`, zeroes on failure, and checks the
        // packet's bounds itself.
        let code =
            unsafe { bpf_skb_load_bytes(self.raw.cast(), offset, to, size_of::<T>() as u32) };
        if code != 0 {
            return None;
        }
        // SAFETY: the helper has written all bytes, and any bytes are a `T`.
        Some(unsafe { value.assume_init() })
    }
}

/// Into the pod behind `ifindex`, as if it had come out of the pod's own device.
#[inline(always)]
pub(crate) fn redirect_to_pod(ifindex: u32) -> i32 {
    // SAFETY: the helper has no condition at ingress.
    unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
}

/// Out of `ifindex` to the neighbour `next`; the kernel fills in the Ethernet header.
#[inline(always)]
pub(crate) fn redirect_to_neighbour(ifindex: u32, next: &AddrWords) -> i32 {
    let (nh_family, ipv6_nh) = match words::as_v4(next) {
        Some(v4) => (AF_INET, [v4, 0, 0, 0]),
        None => (AF_INET6, *next),
    };
    // The IPv4 address shares its place with the first word.
    let hop = bpf_redir_neigh__bindgen_ty_1 { ipv6_nh };
    let mut params = bpf_redir_neigh {
        nh_family,
        __bindgen_anon_1: hop,
    };
    let len = size_of::<bpf_redir_neigh>() as i32;
    // SAFETY: the parameters are whole and of the length given.
    unsafe { bpf_redirect_neigh(ifindex, &raw mut params, len, 0) as i32 }
}

#[inline(always)]
const fn done(code: i64) -> Result<(), DropReason> {
    if code == 0 {
        Ok(())
    } else {
        Err(DropReason::Rewrite)
    }
}
