//! DNS messages on the wire: questions in, answers about the cluster out.
//!
//! Only what a server of one small zone needs, written for the hot path: no allocation, no copy of
//! records. What comes from other servers goes through hickory-proto instead (`upstream`), which
//! is also what the tests check these bytes with.

mod answer;
mod query;

pub(crate) use answer::{AnswerWriter, Flags, Section};
pub(crate) use query::{Query, Rejected};

/// Record types, as numbers on the wire.
pub(crate) mod rtype {
    pub(crate) const A: u16 = 1;
    pub(crate) const NS: u16 = 2;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const HINFO: u16 = 13;
    pub(crate) const MX: u16 = 15;
    pub(crate) const TXT: u16 = 16;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const SRV: u16 = 33;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const HTTPS: u16 = 65;
    pub(crate) const IXFR: u16 = 251;
    pub(crate) const AXFR: u16 = 252;
    pub(crate) const ANY: u16 = 255;
}

/// Classes.
pub(crate) const CLASS_IN: u16 = 1;
pub(crate) const CLASS_ANY: u16 = 255;

/// Response codes.
pub(crate) mod rcode {
    pub(crate) const NOERROR: u16 = 0;
    pub(crate) const FORMERR: u16 = 1;
    pub(crate) const SERVFAIL: u16 = 2;
    pub(crate) const NXDOMAIN: u16 = 3;
    pub(crate) const NOTIMP: u16 = 4;
    pub(crate) const REFUSED: u16 = 5;
    pub(crate) const BADVERS: u16 = 16;
}

/// Bytes of a header.
pub(crate) const HEADER_LEN: usize = 12;
/// Largest UDP answer to a client without EDNS, RFC 1035 section 4.2.1.
pub(crate) const UDP_BYTES_PLAIN: usize = 512;
/// Largest UDP answer at all: what passes every path without fragments (DNS flag day 2020).
pub(crate) const UDP_BYTES_MAX: usize = 1232;
/// Largest TCP message.
pub(crate) const TCP_BYTES_MAX: usize = 65_535;
