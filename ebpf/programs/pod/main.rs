// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Packet hooks of a pod's veth, on its host side: what the pod sends (`from_pod`, ingress) and
//! what the stack sends to it (`to_pod`, egress).
//!
//! A packet to a pod of the same node is handed to that pod's device at once and never meets
//! `to_pod`; so each packet is translated exactly once on its way.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(unsafe_code, reason = "kernel helpers and map values")]
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
    clippy::cast_possible_wrap,
    reason = "fields of the kernel's context are words; helpers return small codes as longs"
)]

#[path = "../shared/atomic.rs"]
mod atomic;
#[path = "../shared/backend_maps.rs"]
mod backend_maps;
#[path = "../shared/clock.rs"]
mod clock;
#[path = "../shared/count.rs"]
mod count;
#[path = "../shared/flow_maps.rs"]
mod flow_maps;
#[path = "../shared/log.rs"]
mod log;
#[path = "../shared/rodata.rs"]
mod rodata;
#[path = "../shared/service_maps.rs"]
mod service_maps;
#[path = "../shared/timeouts.rs"]
mod timeouts;

mod deliver;
mod endpoints;
mod flow;
mod icmp;
mod rewrite;
mod scratch;
mod skb;
mod walk;

use aya_ebpf::{macros::classifier, programs::TcContext};
use ebpf::{
    family::{V4, V6},
    packet::{ETHERTYPE_V4, ETHERTYPE_V6},
};
use ebpf_abi::counter::Metric;

use crate::skb::{PASS, Skb};

#[classifier]
fn from_pod(ctx: TcContext) -> i32 {
    rodata::abi();
    let skb = Skb::new(ctx.skb.skb);
    match skb.ethertype() {
        ETHERTYPE_V4 => walk::from_pod::<V4>(skb),
        ETHERTYPE_V6 => walk::from_pod::<V6>(skb),
        _ => {
            count::counted(Metric::FromPodOther, skb.len());
            PASS
        }
    }
}

#[classifier]
fn to_pod(ctx: TcContext) -> i32 {
    let skb = Skb::new(ctx.skb.skb);
    match skb.ethertype() {
        ETHERTYPE_V4 => walk::to_pod::<V4>(skb),
        ETHERTYPE_V6 => walk::to_pod::<V6>(skb),
        _ => {
            count::counted(Metric::ToPod, skb.len());
            PASS
        }
    }
}
