// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The walk of a packet, from the first look to the verdict.
//!
//! Each step is a function of its own that leaves its result in the [`Scratch`], so that the
//! verifier's work adds up over the steps instead of multiplying.

use ebpf::{
    packet::{ETH_LEN, Transport},
    select::Frontdoor,
};
use ebpf_abi::{
    counter::{DropReason, Metric},
    endpoint::{EP_ANY_SOURCE, Endpoint},
    frontend::Frontend,
};

use crate::{
    count, deliver, endpoints,
    flow::{self, Tracked},
    icmp::{self, IcmpFamily},
    log::say,
    rewrite,
    scratch::{Scratch, Way},
    service_maps::Frontends,
    skb::{DROP, PASS, Skb},
};

/// A packet that a pod sends.
#[inline(never)]
pub(crate) fn from_pod<F: Tracked + IcmpFamily + Frontends>(skb: Skb) -> i32 {
    finish(skb, from_pod_steps::<F>(skb))
}

/// A packet that the stack sends to a pod.
#[inline(never)]
pub(crate) fn to_pod<F: Tracked + IcmpFamily>(skb: Skb) -> i32 {
    finish(skb, to_pod_steps::<F>(skb))
}

#[inline(always)]
fn finish(skb: Skb, verdict: Result<i32, DropReason>) -> i32 {
    verdict.unwrap_or_else(|reason| {
        count::dropped(reason, skb.len());
        say!(
            warn,
            "dropped {} bytes on device {}: reason {}",
            skb.len(),
            skb.ifindex(),
            reason.index()
        );
        DROP
    })
}

#[inline(always)]
fn from_pod_steps<F: Tracked + IcmpFamily + Frontends>(skb: Skb) -> Result<i32, DropReason> {
    let ep = endpoints::sender(skb.ifindex()).ok_or(DropReason::NoEndpoint)?;
    let scratch = F::scratch()?;
    parse::<F>(skb, scratch)?;
    classify::<F>(ep, scratch)?;
    if scratch.way == Way::Link {
        count::counted(Metric::FromPodOther, skb.len());
        return Ok(PASS);
    }
    match scratch.way {
        Way::Link | Way::Plain => {}
        Way::Icmp => icmp::error::<F>(skb, scratch)?,
        Way::Forward | Way::Reverse => flow::translate::<F>(ep, scratch)?,
    }
    if scratch.translated {
        rewrite::tuple::<F>(skb, scratch)?;
        scratch.pod = endpoints::local(&F::widen(&scratch.new.dst)).unwrap_or(0);
    }
    deliver::deliver::<F>(skb, scratch)
}

#[inline(always)]
fn to_pod_steps<F: Tracked + IcmpFamily>(skb: Skb) -> Result<i32, DropReason> {
    let scratch = F::scratch()?;
    parse::<F>(skb, scratch)?;
    match to_a_pod::<F>(scratch) {
        Way::Reverse => flow::answer::<F>(scratch)?,
        Way::Icmp => icmp::error::<F>(skb, scratch)?,
        Way::Link | Way::Plain | Way::Forward => {}
    }
    if scratch.translated {
        rewrite::tuple::<F>(skb, scratch)?;
    }
    count::counted(Metric::ToPod, skb.len());
    Ok(PASS)
}

/// Step: reads the packet.
#[inline(never)]
fn parse<F: Tracked>(skb: Skb, scratch: &mut Scratch<F>) -> Result<(), DropReason> {
    scratch.packet = F::parse(&skb, ETH_LEN).map_err(|_short| DropReason::Malformed)?;
    scratch.new = scratch.packet.tuple;
    scratch.translated = false;
    scratch.pod = 0;
    scratch.bytes = skb.len();
    Ok(())
}

/// Step: says what is to be done with a pod's packet.
#[inline(never)]
fn classify<F: Tracked + IcmpFamily + Frontends>(
    ep: &Endpoint,
    scratch: &mut Scratch<F>,
) -> Result<(), DropReason> {
    let (src, dst) = (&scratch.packet.tuple.src, &scratch.packet.tuple.dst);
    if !F::owns(ep, src) {
        if F::link_scope(src, dst) {
            scratch.way = Way::Link;
            return Ok(());
        }
        if ep.flags & EP_ANY_SOURCE == 0 {
            return Err(DropReason::Spoofed);
        }
    }
    // A pod's address is no service's: most packets stop here.
    scratch.pod = endpoints::local(&F::widen(dst)).unwrap_or(0);
    let answer = scratch.pod != 0 || *dst == F::hairpin();
    scratch.way = if answer {
        to_a_pod::<F>(scratch)
    } else if let Some(frontend) = frontdoor::<F>(scratch)? {
        scratch.frontend = frontend;
        Way::Forward
    } else {
        Way::Plain
    };
    Ok(())
}

/// The service that a packet goes to, if it goes to one and can be translated.
/// # Errors
/// A packet to a service's address that cannot be translated is dropped: nothing behind that
/// address would know what to do with it.
#[inline(always)]
fn frontdoor<F: Tracked + IcmpFamily + Frontends>(
    scratch: &Scratch<F>,
) -> Result<Option<Frontend>, DropReason> {
    let tuple = &scratch.packet.tuple;
    // Without ports the wildcard, stored under port 0 and protocol 0, is what can be asked for.
    let (port, proto, otherwise) = match scratch.packet.transport {
        Transport::Ports => (tuple.dport, tuple.proto, DropReason::UnknownPort),
        Transport::FirstFragment => (tuple.dport, tuple.proto, DropReason::Fragment),
        Transport::LaterFragment => (0, 0, DropReason::Fragment),
        Transport::Other => (0, 0, DropReason::Protocol),
        Transport::LongChain => (0, 0, DropReason::HeaderChain),
    };
    match F::frontdoor(&tuple.dst, port, proto) {
        Frontdoor::None => Ok(None),
        Frontdoor::Service(frontend) if otherwise == DropReason::UnknownPort => Ok(Some(frontend)),
        Frontdoor::Service(_) | Frontdoor::UnknownPort => Err(otherwise),
    }
}

/// What a packet to a pod's address may be.
#[inline(always)]
fn to_a_pod<F: Tracked>(scratch: &Scratch<F>) -> Way {
    match scratch.packet.transport {
        Transport::Ports | Transport::FirstFragment => Way::Reverse,
        Transport::Other if scratch.packet.tuple.proto == F::ICMP => Way::Icmp,
        Transport::LaterFragment | Transport::Other | Transport::LongChain => Way::Plain,
    }
}
