// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Step: the last one, to a pod of this node, to another node, or to the stack.

use ebpf::words;
use ebpf_abi::{
    config::{FLAG_REDIRECT_NEIGH, FLAG_REDIRECT_PEER},
    counter::{DropReason, Metric},
    endpoint::{EP_NO_REDIRECT, Endpoint},
    route::{ROUTE_DIRECT, Route},
};

use crate::{
    count, endpoints,
    flow::Tracked,
    rewrite,
    rodata::config,
    scratch::Scratch,
    skb::{self, PASS, Skb},
};

/// Delivers a packet to where `scratch.pod` and `scratch.new` say.
#[inline(never)]
pub(crate) fn deliver<F: Tracked>(skb: Skb, scratch: &Scratch<F>) -> Result<i32, DropReason> {
    // The stack knows how to tell the sender that the hops ran out.
    if scratch.packet.hops > 1 {
        if let Some(pod) = endpoints::pod(scratch.pod) {
            if config!(flags) & FLAG_REDIRECT_PEER != 0 && pod.flags & EP_NO_REDIRECT == 0 {
                return to_local::<F>(skb, scratch, pod);
            }
        } else if config!(flags) & FLAG_REDIRECT_NEIGH != 0
            && let Some(route) = endpoints::remote(&F::widen(&scratch.new.dst))
            && route.flags & ROUTE_DIRECT != 0
        {
            return to_remote::<F>(skb, scratch, route);
        }
    }
    count::counted(Metric::FromPodStack, scratch.bytes);
    Ok(PASS)
}

/// Into a pod of this node.
#[inline(always)]
fn to_local<F: Tracked>(skb: Skb, scratch: &Scratch<F>, pod: &Endpoint) -> Result<i32, DropReason> {
    F::take_hop(skb, scratch.packet.hops, scratch.new.proto)?;
    rewrite::ethernet(skb, &pod.mac, &pod.host_mac)?;
    count::counted(Metric::FromPodLocal, scratch.bytes);
    Ok(skb::redirect_to_pod(pod.ifindex))
}

/// To another node.
#[inline(always)]
fn to_remote<F: Tracked>(skb: Skb, scratch: &Scratch<F>, route: &Route) -> Result<i32, DropReason> {
    F::take_hop(skb, scratch.packet.hops, scratch.new.proto)?;
    count::counted(Metric::FromPodRemote, scratch.bytes);
    Ok(skb::redirect_to_neighbour(
        route.ifindex,
        &words::from_bytes(route.node),
    ))
}
