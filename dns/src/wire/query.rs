//! A question, parsed once and strictly. Bad input becomes a response code, never a panic.

use crate::names::{LABEL_BYTES_MAX, NAME_BYTES_MAX};
use crate::wire::{HEADER_LEN, UDP_BYTES_MAX, UDP_BYTES_PLAIN, rcode, rtype};

const FLAG_RESPONSE: u16 = 0x8000;
const FLAG_RECURSION_DESIRED: u16 = 0x0100;
const FLAG_CHECKING_DISABLED: u16 = 0x0010;
const OPCODE_MASK: u16 = 0x7800;

/// What a client says about itself, RFC 6891.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edns {
    pub(crate) udp_bytes: u16,
    pub(crate) version: u8,
    pub(crate) dnssec_ok: bool,
}

/// A well-formed question.
#[derive(Clone, Debug)]
pub(crate) struct Query<'a> {
    pub(crate) id: u16,
    flags: u16,
    /// The question as it was asked: name in its own case, type, class.
    pub(crate) question: &'a [u8],
    lower: [u8; NAME_BYTES_MAX],
    name_len: usize,
    pub(crate) qtype: u16,
    pub(crate) qclass: u16,
    pub(crate) edns: Option<Edns>,
}

/// A packet that is no question for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// Not even worth an answer: no header, or an answer itself.
    Drop,
    /// To be answered with this code and without a question.
    Answer { id: u16, flags: u16, rcode: u16 },
}

impl<'a> Query<'a> {
    /// Parses a packet.
    pub(crate) fn parse(packet: &'a [u8]) -> Result<Self, Rejected> {
        let header: &[u8; HEADER_LEN] = packet.first_chunk().ok_or(Rejected::Drop)?;
        let [i0, i1, f0, f1, q0, q1, a0, a1, n0, n1, r0, r1] = *header;
        let (id, flags) = (u16::from_be_bytes([i0, i1]), u16::from_be_bytes([f0, f1]));
        if flags & FLAG_RESPONSE != 0 {
            return Err(Rejected::Drop);
        }
        let reject = |rcode| Rejected::Answer {
            id,
            flags: echoed(flags),
            rcode,
        };
        if flags & OPCODE_MASK != 0 {
            return Err(reject(rcode::NOTIMP));
        }
        if u16::from_be_bytes([q0, q1]) != 1 {
            return Err(reject(rcode::FORMERR));
        }
        let records = [[a0, a1], [n0, n1], [r0, r1]].map(u16::from_be_bytes);
        Self::parse_body(packet, id, flags, records).ok_or_else(|| reject(rcode::FORMERR))
    }

    fn parse_body(packet: &'a [u8], id: u16, flags: u16, records: [u16; 3]) -> Option<Self> {
        let mut lower = [0; NAME_BYTES_MAX];
        let name_len = read_name(packet.get(HEADER_LEN..)?, &mut lower)?;
        let question_end = HEADER_LEN + name_len + 4;
        let question = packet.get(HEADER_LEN..question_end)?;
        let [t0, t1, c0, c1] = *question.last_chunk::<4>()?;
        let mut rest = packet.get(question_end..)?;
        let mut edns = None;
        for (section, count) in records.into_iter().enumerate() {
            for _ in 0..count {
                let (record, after) = Record::read(rest)?;
                rest = after;
                if record.rtype == rtype::OPT {
                    // One OPT, owned by the root, among the additional records.
                    if edns.is_some() || section != 2 || !record.root {
                        return None;
                    }
                    edns = Some(record.edns());
                }
            }
        }
        if !rest.is_empty() {
            return None;
        }
        let (qtype, qclass) = (u16::from_be_bytes([t0, t1]), u16::from_be_bytes([c0, c1]));
        Some(Self {
            id,
            flags,
            question,
            lower,
            name_len,
            qtype,
            qclass,
            edns,
        })
    }

    /// The name in lower case, in wire form with the root.
    pub(crate) fn name(&self) -> &[u8] {
        &self.lower[..self.name_len]
    }

    /// The flags of an answer that come from the question.
    pub(crate) fn echoed_flags(&self) -> u16 {
        echoed(self.flags)
    }

    pub(crate) fn recursion_desired(&self) -> bool {
        self.flags & FLAG_RECURSION_DESIRED != 0
    }

    pub(crate) fn checking_disabled(&self) -> bool {
        self.flags & FLAG_CHECKING_DISABLED != 0
    }

    pub(crate) fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// How long an answer over UDP may be.
    pub(crate) fn udp_limit(&self) -> usize {
        self.edns.map_or(UDP_BYTES_PLAIN, |edns| {
            usize::from(edns.udp_bytes).clamp(UDP_BYTES_PLAIN, UDP_BYTES_MAX)
        })
    }
}

fn echoed(flags: u16) -> u16 {
    flags & (OPCODE_MASK | FLAG_RECURSION_DESIRED | FLAG_CHECKING_DISABLED)
}

/// Copies a name without pointers in lower case and returns its length with the root.
fn read_name(bytes: &[u8], lower: &mut [u8; NAME_BYTES_MAX]) -> Option<usize> {
    let mut at = 0;
    loop {
        let len = usize::from(*bytes.get(at)?);
        if len > LABEL_BYTES_MAX {
            return None;
        }
        let end = at + 1 + len;
        // The root must still fit behind a label.
        if end > NAME_BYTES_MAX - usize::from(len > 0) {
            return None;
        }
        let label = bytes.get(at + 1..end)?;
        lower[at] = *bytes.get(at)?;
        for (to, from) in lower[at + 1..end].iter_mut().zip(label) {
            *to = from.to_ascii_lowercase();
        }
        if len == 0 {
            return Some(end);
        }
        at = end;
    }
}

/// The head of a record that is skipped or read as OPT.
struct Record {
    root: bool,
    rtype: u16,
    class: u16,
    ttl: [u8; 4],
}

impl Record {
    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let name_len = skip_name(bytes)?;
        let (head, rest) = bytes.get(name_len..)?.split_first_chunk::<10>()?;
        let [t0, t1, c0, c1, ttl @ .., l0, l1] = *head;
        let rest = rest.get(usize::from(u16::from_be_bytes([l0, l1]))..)?;
        let (rtype, class) = (u16::from_be_bytes([t0, t1]), u16::from_be_bytes([c0, c1]));
        Some((
            Self {
                root: name_len == 1,
                rtype,
                class,
                ttl,
            },
            rest,
        ))
    }

    fn edns(&self) -> Edns {
        let [_, version, flags, _] = self.ttl;
        Edns {
            udp_bytes: self.class,
            version,
            dnssec_ok: flags & 0x80 != 0,
        }
    }
}

/// The length of a name that may end in a pointer.
fn skip_name(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < NAME_BYTES_MAX {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            len @ 1..=63 => at += 1 + usize::from(len),
            192.. => return bytes.get(at + 1).map(|_| at + 2),
            64..=191 => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Edns as HickoryEdns, Message, Query as HickoryQuery};
    use hickory_proto::rr::{Name, RecordType};
    use proptest::prelude::*;

    use super::*;
    use crate::names;

    fn packet(name: &str, rtype: RecordType, edns: Option<(u16, u8)>) -> Vec<u8> {
        let mut message = Message::query();
        message.metadata.id = 77;
        message.metadata.recursion_desired = true;
        message.add_query(HickoryQuery::query(Name::from_ascii(name).unwrap(), rtype));
        if let Some((payload, version)) = edns {
            let mut edns = HickoryEdns::new();
            edns.set_max_payload(payload)
                .set_version(version)
                .set_dnssec_ok(true);
            message.set_edns(edns);
        }
        message.to_vec().unwrap()
    }

    #[test]
    fn a_question_is_read_as_it_was_written() {
        let bytes = packet("WwW.Example.COM.", RecordType::AAAA, Some((4096, 0)));
        let query = Query::parse(&bytes).unwrap();
        assert_eq!((query.id, query.qtype, query.qclass), (77, rtype::AAAA, 1));
        assert_eq!(names::text(query.name()), "www.example.com.");
        assert_eq!(&query.question[..4], b"\x03WwW");
        assert_eq!(
            query.edns,
            Some(Edns {
                udp_bytes: 4096,
                version: 0,
                dnssec_ok: true
            })
        );
        assert!(query.recursion_desired() && !query.checking_disabled());
        assert_eq!(query.udp_limit(), UDP_BYTES_MAX);
    }

    #[test]
    fn the_answer_over_udp_is_as_long_as_the_client_and_the_path_allow() {
        for (edns, limit) in [
            (None, 512),
            (Some(0), 512),
            (Some(512), 512),
            (Some(1000), 1000),
            (Some(1233), 1232),
        ] {
            let bytes = packet("a.", RecordType::A, edns.map(|payload| (payload, 0)));
            // hickory raises small payloads to 512 itself, so write the number directly.
            let mut bytes = bytes;
            if let Some(payload) = edns {
                let at = bytes.len() - 8;
                bytes[at..at + 2].copy_from_slice(&u16::to_be_bytes(payload));
            }
            assert_eq!(Query::parse(&bytes).unwrap().udp_limit(), limit, "{edns:?}");
        }
    }

    fn rejected(bytes: &[u8]) -> Option<u16> {
        match Query::parse(bytes) {
            Ok(_) => panic!("{bytes:?} is a question"),
            Err(Rejected::Drop) => None,
            Err(Rejected::Answer { rcode, .. }) => Some(rcode),
        }
    }

    #[test]
    fn what_is_no_question_gets_the_code_that_says_so() {
        let good = packet("a.b.", RecordType::A, Some((1232, 0)));
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        assert_eq!(rejected(&[]), None);
        assert_eq!(rejected(&good[..11]), None);
        assert_eq!(rejected(&with(2, 0x81)), None, "an answer");
        for opcode in 1..16 {
            assert_eq!(rejected(&with(2, opcode << 3)), Some(rcode::NOTIMP));
        }
        assert_eq!(rejected(&with(5, 0)), Some(rcode::FORMERR), "no question");
        assert_eq!(rejected(&with(5, 2)), Some(rcode::FORMERR), "two questions");
        assert_eq!(rejected(&with(12, 0xc0)), Some(rcode::FORMERR), "a pointer");
        assert_eq!(
            rejected(&with(12, 64)),
            Some(rcode::FORMERR),
            "a long label"
        );
        assert_eq!(
            rejected(&with(11, 2)),
            Some(rcode::FORMERR),
            "a record that is not there"
        );
        assert_eq!(
            rejected(&with(11, 0)),
            Some(rcode::FORMERR),
            "bytes behind the end"
        );
        for end in HEADER_LEN..good.len() {
            assert_eq!(rejected(&good[..end]), Some(rcode::FORMERR), "cut at {end}");
        }
        let mut twice = with(11, 2);
        let opt = good[good.len() - 11..].to_vec();
        twice.extend(opt);
        assert_eq!(rejected(&twice), Some(rcode::FORMERR), "two OPT records");
    }

    #[test]
    fn a_name_of_255_bytes_is_read_and_one_of_256_is_not() {
        let label = "a".repeat(63);
        for (last, fits) in [(61, true), (62, false)] {
            let mut bytes = packet("a.", RecordType::A, None);
            let name = format!("{label}.{label}.{label}.{}.", "b".repeat(last));
            let mut wire = Vec::new();
            for label in name.trim_end_matches('.').split('.') {
                wire.push(u8::try_from(label.len()).unwrap());
                wire.extend(label.bytes());
            }
            bytes.splice(12..14, wire);
            assert_eq!(Query::parse(&bytes).is_ok(), fits, "{last}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_rejected(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            drop(Query::parse(&bytes));
        }

        #[test]
        fn a_changed_question_is_parsed_or_rejected(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = packet("hello.default.svc.cluster.local.", RecordType::A, Some((1232, 0)));
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(query) = Query::parse(&bytes) {
                prop_assert_eq!(query.name().last(), Some(&0));
                prop_assert!(query.name().len() <= NAME_BYTES_MAX);
                prop_assert_eq!(query.question.len(), query.name().len() + 4);
            }
        }
    }
}
