//! From a question and a snapshot to an answer: the semantics of the cluster's zone. Pure.
//!
//! The answer is written at once when the snapshot has it. What it does not have is handed back:
//! names outside, and aliases, which the server follows.

use std::net::IpAddr;

use crate::names;
use crate::snapshot::{Records, RelativeName, Snapshot, Special, Srv, Zone};
use crate::wire::{
    AnswerWriter, CLASS_ANY, CLASS_IN, Flags, HEADER_LEN, Query, Section, rcode, rtype,
};

/// Version of the schema that `dns-version` tells, and how long that holds.
const SCHEMA_VERSION: &[u8] = b"1.1.0";
const SCHEMA_TTL_S: u32 = 28_800;
/// SOA timers. The minimum is the zone's time to live.
const SOA_REFRESH_S: u32 = 7200;
const SOA_RETRY_S: u32 = 1800;
const SOA_EXPIRE_S: u32 = 86_400;
/// All SRV records of an answer weigh this much together.
const SRV_WEIGHT: usize = 100;

/// What became of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The answer is written, with this code.
    Answered(u16),
    /// The name is not the cluster's: ask outside.
    Forward,
    /// The name is an alias of this whole name; the answer needs its records, too.
    Alias(Box<[u8]>),
}

/// Everything an answer depends on beside the question.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) zone: &'a Zone,
    /// `None` until the first state of the cluster has come.
    pub(crate) snapshot: Option<&'a Snapshot>,
    /// Names outside can be asked.
    pub(crate) forwarding: bool,
    /// How far addresses are rotated in this answer.
    pub(crate) rotation: usize,
    /// How long the answer may be.
    pub(crate) limit: usize,
}

/// Answers a question into `out`, if the snapshot can.
pub(crate) fn answer(query: &Query<'_>, context: Context<'_>, out: &mut Vec<u8>) -> Outcome {
    let Context {
        zone,
        snapshot,
        forwarding,
        ..
    } = context;
    if query.edns.is_some_and(|edns| edns.version > 0) {
        return plain(query, context, rcode::BADVERS, out);
    }
    let refused = ![CLASS_IN, CLASS_ANY].contains(&query.qclass)
        || [rtype::AXFR, rtype::IXFR].contains(&query.qtype);
    if refused {
        return plain(query, context, rcode::REFUSED, out);
    }
    let ours = names::before(query.name(), &zone.name);
    let back = names::parse_reverse(query.name());
    let Some(snapshot) = snapshot else {
        // Nothing is known yet: "does not exist" would be a lie that resolvers keep.
        return match (ours, forwarding) {
            (None, true) if back.is_none() => Outcome::Forward,
            _ => plain(query, context, rcode::SERVFAIL, out),
        };
    };
    let answer = Answer {
        query,
        context,
        snapshot,
    };
    if let Some(name) = ours {
        return answer.of_name(name, out);
    }
    let found = back.map_or(&[] as &[RelativeName], |ip| snapshot.reverse(ip));
    match (found, back) {
        ([_, ..], Some(ip)) => answer.of_address(ip, found, out),
        _ if forwarding => Outcome::Forward,
        _ => plain(query, context, rcode::REFUSED, out),
    }
}

/// An answer without records.
pub(crate) fn plain(
    query: &Query<'_>,
    context: Context<'_>,
    rcode: u16,
    out: &mut Vec<u8>,
) -> Outcome {
    let recursion_available = context.forwarding;
    let flags = Flags {
        rcode,
        authoritative: false,
        recursion_available,
    };
    AnswerWriter::new(out, query, context.limit, flags).finish();
    Outcome::Answered(rcode)
}

struct Answer<'a> {
    query: &'a Query<'a>,
    context: Context<'a>,
    snapshot: &'a Snapshot,
}

/// The offset of the question's name: the owner of all direct answers.
const QUESTION: u16 = 12;
const _: () = assert!(QUESTION as usize == HEADER_LEN);

impl Answer<'_> {
    fn writer<'b>(&self, rcode: u16, out: &'b mut Vec<u8>) -> AnswerWriter<'b> {
        let recursion_available = self.context.forwarding;
        let flags = Flags {
            rcode,
            authoritative: true,
            recursion_available,
        };
        AnswerWriter::new(out, self.query, self.context.limit, flags)
    }

    /// The offset of the last `len` bytes of the question's name.
    fn suffix(&self, len: usize) -> u16 {
        u16::try_from(HEADER_LEN + self.query.name().len() - len).unwrap_or(QUESTION)
    }

    fn zone_at(&self) -> u16 {
        self.suffix(self.context.zone.name.len())
    }

    fn of_name(&self, name: &[u8], out: &mut Vec<u8>) -> Outcome {
        let zone = self.context.zone;
        let Some(records) = self.snapshot.get(name) else {
            let Some(ip) = self.snapshot.pod(name, zone.pod_names) else {
                return self.negative(rcode::NXDOMAIN, self.zone_at(), out);
            };
            return self.of_pod(ip, out);
        };
        if let Some(target) = &records.cname {
            return self.of_alias(target, out);
        }
        let mut writer = self.writer(rcode::NOERROR, out);
        let any = match (self.query.qtype, records.special) {
            (rtype::A | rtype::AAAA, _) => self.addresses(&mut writer, records),
            (rtype::SRV, _) => self.services(&mut writer, &records.srv),
            (rtype::TXT, Special::Version) => {
                writer.record(Section::Answer, QUESTION, rtype::TXT, SCHEMA_TTL_S, |out| {
                    out.push(u8::try_from(SCHEMA_VERSION.len()).unwrap_or(0));
                    out.extend_from_slice(SCHEMA_VERSION);
                })
            }
            (rtype::SOA, Special::Apex) => {
                self.soa(&mut writer, Section::Answer, self.zone_at());
                true
            }
            (rtype::NS, Special::Apex) => self.name_server(&mut writer),
            _ => false,
        };
        if any {
            writer.finish();
            return Outcome::Answered(rcode::NOERROR);
        }
        self.negative(rcode::NOERROR, self.zone_at(), out)
    }

    fn of_pod(&self, ip: IpAddr, out: &mut Vec<u8>) -> Outcome {
        let ttl = self.context.zone.ttl_s;
        let mut writer = self.writer(rcode::NOERROR, out);
        let any = match (self.query.qtype, ip) {
            (rtype::A, IpAddr::V4(ip)) => writer.a(Section::Answer, QUESTION, ttl, ip),
            (rtype::AAAA, IpAddr::V6(ip)) => writer.aaaa(Section::Answer, QUESTION, ttl, ip),
            _ => false,
        };
        if any {
            writer.finish();
            return Outcome::Answered(rcode::NOERROR);
        }
        self.negative(rcode::NOERROR, self.zone_at(), out)
    }

    /// An alias answers every type: CNAME itself here, all others with what the target has.
    fn of_alias(&self, target: &[u8], out: &mut Vec<u8>) -> Outcome {
        if ![rtype::CNAME, rtype::ANY].contains(&self.query.qtype) {
            return Outcome::Alias(target.into());
        }
        let mut writer = self.writer(rcode::NOERROR, out);
        let ttl = self.context.zone.ttl_s;
        writer.record(Section::Answer, QUESTION, rtype::CNAME, ttl, |out| {
            out.extend_from_slice(target);
        });
        writer.finish();
        Outcome::Answered(rcode::NOERROR)
    }

    /// Addresses of the asked family, rotated. Returns whether the name has any.
    fn addresses(&self, writer: &mut AnswerWriter<'_>, records: &Records) -> bool {
        let ttl = self.context.zone.ttl_s;
        if self.query.qtype == rtype::A {
            for ip in rotated(&records.v4, self.context.rotation) {
                if !writer.a(Section::Answer, QUESTION, ttl, *ip) {
                    break;
                }
            }
            return !records.v4.is_empty();
        }
        for ip in rotated(&records.v6, self.context.rotation) {
            if !writer.aaaa(Section::Answer, QUESTION, ttl, *ip) {
                break;
            }
        }
        !records.v6.is_empty()
    }

    /// SRV records and, as far as they fit, the addresses of their targets.
    fn services(&self, writer: &mut AnswerWriter<'_>, records: &[Srv]) -> bool {
        let (zone, ttl) = (self.context.zone, self.context.zone.ttl_s);
        let weight = u16::try_from(SRV_WEIGHT / records.len().max(1)).unwrap_or(1);
        let mut targets: Vec<(&RelativeName, usize)> = Vec::new();
        for srv in rotated(records, self.context.rotation) {
            let mut target_at = 0;
            let fits = writer.record(Section::Answer, QUESTION, rtype::SRV, ttl, |out| {
                out.extend_from_slice(&0_u16.to_be_bytes());
                out.extend_from_slice(&weight.to_be_bytes());
                out.extend_from_slice(&srv.port.to_be_bytes());
                target_at = out.len();
                // Not compressed, RFC 2782.
                out.extend_from_slice(&srv.target);
                out.extend_from_slice(&zone.name);
            });
            if !fits {
                return true;
            }
            if !targets.iter().any(|(target, _)| **target == srv.target) {
                targets.push((&srv.target, target_at));
            }
        }
        for (target, at) in targets {
            self.glue(writer, target, at);
        }
        !records.is_empty()
    }

    fn glue(&self, writer: &mut AnswerWriter<'_>, target: &[u8], at: usize) {
        let ttl = self.context.zone.ttl_s;
        let (Some(records), Ok(at)) = (self.snapshot.get(target), u16::try_from(at)) else {
            return;
        };
        for ip in &records.v4 {
            if !writer.a(Section::Additional, at, ttl, *ip) {
                return;
            }
        }
        for ip in &records.v6 {
            if !writer.aaaa(Section::Additional, at, ttl, *ip) {
                return;
            }
        }
    }

    fn name_server(&self, writer: &mut AnswerWriter<'_>) -> bool {
        let ttl = self.context.zone.ttl_s;
        let mut at = 0;
        let zone_at = self.zone_at();
        let fits = writer.record(Section::Answer, QUESTION, rtype::NS, ttl, |out| {
            at = out.len();
            out.extend_from_slice(b"\x02ns\x03dns");
            out.extend_from_slice(&(0xc000 | zone_at).to_be_bytes());
        });
        if fits {
            self.glue(writer, b"\x02ns\x03dns", at);
        }
        true
    }

    /// PTR records of an address of ours.
    fn of_address(&self, ip: IpAddr, found: &[RelativeName], out: &mut Vec<u8>) -> Outcome {
        let zone = self.context.zone;
        if self.query.qtype != rtype::PTR {
            let arpa = match ip {
                IpAddr::V4(_) => names::IN_ADDR_ARPA,
                IpAddr::V6(_) => names::IP6_ARPA,
            };
            return self.negative(rcode::NOERROR, self.suffix(arpa.len()), out);
        }
        let mut writer = self.writer(rcode::NOERROR, out);
        for name in rotated(found, self.context.rotation) {
            writer.record(Section::Answer, QUESTION, rtype::PTR, zone.ttl_s, |out| {
                out.extend_from_slice(name);
                out.extend_from_slice(&zone.name);
            });
        }
        writer.finish();
        Outcome::Answered(rcode::NOERROR)
    }

    /// NXDOMAIN or NODATA, with the SOA record that says how long that holds.
    fn negative(&self, rcode: u16, zone_at: u16, out: &mut Vec<u8>) -> Outcome {
        let mut writer = self.writer(rcode, out);
        self.soa(&mut writer, Section::Authority, zone_at);
        writer.finish();
        Outcome::Answered(rcode)
    }

    fn soa(&self, writer: &mut AnswerWriter<'_>, section: Section, zone_at: u16) {
        let zone = self.context.zone;
        writer.record(section, zone_at, rtype::SOA, zone.ttl_s, |out| {
            write_soa(out, zone, self.snapshot.serial);
        });
    }
}

/// The data of the zone's SOA record.
pub(crate) fn write_soa(out: &mut Vec<u8>, zone: &Zone, serial: u32) {
    out.extend_from_slice(b"\x02ns\x03dns");
    out.extend_from_slice(&zone.name);
    out.extend_from_slice(b"\x0ahostmaster");
    out.extend_from_slice(&zone.name);
    for number in [serial, SOA_REFRESH_S, SOA_RETRY_S, SOA_EXPIRE_S, zone.ttl_s] {
        out.extend_from_slice(&number.to_be_bytes());
    }
}

fn rotated<T>(items: &[T], by: usize) -> impl Iterator<Item = &T> {
    let (head, tail) = items.split_at(by % items.len().max(1));
    tail.iter().chain(head)
}

#[cfg(test)]
mod tests;
