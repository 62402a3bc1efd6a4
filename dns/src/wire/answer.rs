//! An answer, written straight into the buffer that is sent.
//!
//! The question is repeated byte for byte, so its case comes back (0x20) and every answer's owner
//! is a pointer to it. A record that does not fit is left out whole: in the answer section that
//! sets TC, elsewhere it does not (RFC 2181 section 9).

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::wire::{CLASS_IN, HEADER_LEN, Query, UDP_BYTES_MAX, rcode, rtype};

const FLAG_RESPONSE: u16 = 0x8000;
const FLAG_AUTHORITATIVE: u16 = 0x0400;
const FLAG_TRUNCATED: u16 = 0x0200;
const FLAG_RECURSION_AVAILABLE: u16 = 0x0080;
/// Bytes of an OPT record without options.
const OPT_LEN: usize = 11;
/// The largest offset a pointer can hold.
const POINTER_MAX: usize = 0x3fff;

/// What an answer says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) rcode: u16,
    pub(crate) authoritative: bool,
    pub(crate) recursion_available: bool,
}

/// Where a record goes. Sections are written in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Answer,
    Authority,
    Additional,
}

/// Writes one answer. `finish` must be called last.
#[derive(Debug)]
pub(crate) struct AnswerWriter<'b> {
    out: &'b mut Vec<u8>,
    /// Room for records: the message's limit without its OPT.
    end: usize,
    flags: u16,
    rcode: u16,
    counts: [u16; 3],
    edns: Option<bool>,
}

impl<'b> AnswerWriter<'b> {
    /// Begins an answer to `query` that may have `limit` bytes.
    pub(crate) fn new(out: &'b mut Vec<u8>, query: &Query<'_>, limit: usize, flags: Flags) -> Self {
        out.clear();
        out.extend_from_slice(&query.id.to_be_bytes());
        out.extend_from_slice(&[0; HEADER_LEN - 2]);
        out.extend_from_slice(query.question);
        let edns = query.edns.map(|edns| edns.dnssec_ok);
        let bits = query.echoed_flags() | flag_bits(flags);
        let end = limit - if edns.is_some() { OPT_LEN } else { 0 };
        Self {
            out,
            end,
            flags: bits,
            rcode: flags.rcode,
            counts: [0; 3],
            edns,
        }
    }

    /// A whole answer without a question, for a packet that had none.
    pub(crate) fn rejection(out: &mut Vec<u8>, id: u16, flags: u16, rcode: u16) {
        out.clear();
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&(flags | FLAG_RESPONSE | (rcode & 0xf)).to_be_bytes());
        out.extend_from_slice(&[0; HEADER_LEN - 4]);
    }

    /// Adds a record and returns whether it fitted. `owner`: where its name is in the message.
    pub(crate) fn record(
        &mut self,
        section: Section,
        owner: u16,
        rtype: u16,
        ttl: u32,
        rdata: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let start = self.out.len();
        self.out.extend_from_slice(&(0xc000 | owner).to_be_bytes());
        self.out.extend_from_slice(&rtype.to_be_bytes());
        self.out.extend_from_slice(&CLASS_IN.to_be_bytes());
        self.out.extend_from_slice(&ttl.to_be_bytes());
        let length_at = self.out.len();
        self.out.extend_from_slice(&[0; 2]);
        rdata(self.out);
        let length = u16::try_from(self.out.len() - length_at - 2);
        let fits = self.out.len() <= self.end && usize::from(owner) <= POINTER_MAX;
        match length {
            Ok(length) if fits => {
                self.out[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
                self.counts[section as usize] += 1;
                true
            }
            _ => {
                self.out.truncate(start);
                if section == Section::Answer {
                    self.flags |= FLAG_TRUNCATED;
                }
                false
            }
        }
    }

    pub(crate) fn a(&mut self, section: Section, owner: u16, ttl: u32, ip: Ipv4Addr) -> bool {
        self.record(section, owner, rtype::A, ttl, |out| {
            out.extend_from_slice(&ip.octets())
        })
    }

    pub(crate) fn aaaa(&mut self, section: Section, owner: u16, ttl: u32, ip: Ipv6Addr) -> bool {
        self.record(section, owner, rtype::AAAA, ttl, |out| {
            out.extend_from_slice(&ip.octets())
        })
    }

    /// Closes the message: OPT, flags, counts.
    pub(crate) fn finish(self) {
        let Self {
            out,
            end: _,
            flags,
            rcode,
            mut counts,
            edns,
        } = self;
        if let Some(dnssec_ok) = edns {
            counts[Section::Additional as usize] += 1;
            let udp_bytes = u16::try_from(UDP_BYTES_MAX).unwrap_or(u16::MAX);
            out.push(0);
            out.extend_from_slice(&rtype::OPT.to_be_bytes());
            out.extend_from_slice(&udp_bytes.to_be_bytes());
            let high = u8::try_from(rcode >> 4).unwrap_or(0);
            out.extend_from_slice(&[high, 0, if dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
        }
        out[2..4].copy_from_slice(&(flags | (rcode & 0xf)).to_be_bytes());
        let counts = [1, counts[0], counts[1], counts[2]];
        for (to, count) in out[4..HEADER_LEN].chunks_exact_mut(2).zip(counts) {
            to.copy_from_slice(&count.to_be_bytes());
        }
    }
}

fn flag_bits(flags: Flags) -> u16 {
    let set = |on: bool, bit: u16| if on { bit } else { 0 };
    // The extended part of a code needs an OPT; without one the nearest plain code stands for it.
    debug_assert!(flags.rcode <= rcode::BADVERS, "codes above are not used");
    FLAG_RESPONSE
        | set(flags.authoritative, FLAG_AUTHORITATIVE)
        | set(flags.recursion_available, FLAG_RECURSION_AVAILABLE)
}
