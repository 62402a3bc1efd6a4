//! Answers that need others: names outside, and aliases, followed to their end.
//!
//! These are built with hickory-proto: the records come from other servers and may be of any type.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as MessageQuery, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder};

use crate::handler;
use crate::metrics::{Served, Source, Transport};
use crate::names;
use crate::server::Shared;
use crate::snapshot::Snapshot;
use crate::upstream::{Aged, Failed, Question};
use crate::wire::{Query, TCP_BYTES_MAX, UDP_BYTES_MAX, rtype};

/// Aliases followed in one answer.
const ALIASES_MAX: usize = 8;

/// A question that the snapshot alone does not answer.
#[derive(Debug)]
pub(crate) struct Forward {
    pub(crate) shared: Arc<Shared>,
    pub(crate) packet: Vec<u8>,
    pub(crate) client: SocketAddr,
    pub(crate) transport: Transport,
    pub(crate) began: Instant,
}

/// What was gathered for an answer.
#[derive(Debug)]
struct Gathered {
    rcode: ResponseCode,
    authoritative: bool,
    authentic: bool,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
}

impl Forward {
    /// The whole answer. `None`: there is none to give.
    pub(crate) async fn answer(self) -> Option<Vec<u8>> {
        let query = Query::parse(&self.packet).ok()?;
        let limit = match self.transport {
            Transport::Udp => query.udp_limit(),
            Transport::Tcp => TCP_BYTES_MAX,
        };
        let gathered = self.gather(&query).await;
        let rcode = gathered.rcode;
        let message = self.message(&query, gathered)?;
        let mut bytes = message.to_vec().ok()?;
        if bytes.len() > limit {
            let mut truncated = message.truncate();
            truncated.edns.clone_from(&message.edns);
            bytes = truncated.to_vec().ok()?;
        }
        self.shared.metrics.served(Served {
            transport: self.transport,
            client: self.client.ip(),
            qtype: query.qtype,
            rcode: rcode.into(),
            source: Source::Forward,
            request_bytes: self.packet.len(),
            response_bytes: bytes.len(),
            duration: self.began.elapsed(),
        });
        Some(bytes)
    }

    async fn gather(&self, query: &Query<'_>) -> Gathered {
        let name: Box<[u8]> = query.name().into();
        let snapshot = self.shared.snapshot.load_full();
        let zone = &self.shared.zone.name;
        let alias = names::before(&name, zone).and_then(|relative| {
            snapshot
                .as_ref()
                .and_then(|snapshot| snapshot.get(relative)?.cname.clone())
        });
        let followed = match alias {
            Some(target) => self.follow(query, snapshot.as_deref(), name, target).await,
            None => self.outside(query, name).await.map(|aged| self.aged(&aged)),
        };
        followed.unwrap_or_else(|Failed| Gathered::empty(ResponseCode::ServFail))
    }

    async fn outside(&self, query: &Query<'_>, name: Box<[u8]>) -> Result<Aged, Failed> {
        let forwarder = self.shared.forwarder.as_ref().ok_or(Failed)?;
        if query.qtype == rtype::HINFO && forwarder.is_probe(&name) {
            return Err(Failed);
        }
        let question = Question {
            name,
            qtype: query.qtype,
            qclass: query.qclass,
            dnssec_ok: query.dnssec_ok(),
            checking_disabled: query.checking_disabled(),
        };
        forwarder.resolve(question).await
    }

    /// From an alias of ours to the records behind it, in the cluster or outside.
    async fn follow(
        &self,
        query: &Query<'_>,
        snapshot: Option<&Snapshot>,
        name: Box<[u8]>,
        target: Box<[u8]>,
    ) -> Result<Gathered, Failed> {
        let zone = &self.shared.zone;
        let mut aliases = Vec::new();
        let (mut owner, mut target) = (name, target);
        while aliases.len() < ALIASES_MAX {
            let cname = RData::CNAME(CNAME(read_name(&target).ok_or(Failed)?));
            let owner_name = read_name(&owner).ok_or(Failed)?;
            aliases.push(Record::from_rdata(owner_name, zone.ttl_s, cname));
            let Some(relative) = names::before(&target, &zone.name) else {
                let gathered = match self.outside(query, target).await {
                    Ok(aged) => self.aged(&aged),
                    // The alias is known, what is behind it is not.
                    Err(Failed) => Gathered::empty(ResponseCode::ServFail),
                };
                return Ok(gathered.behind(aliases));
            };
            let next = snapshot.and_then(|snapshot| snapshot.get(relative)?.cname.clone());
            match next {
                Some(next) => {
                    owner = target;
                    target = next;
                }
                None => {
                    let gathered = self.inside(query, snapshot, &target, relative)?;
                    return Ok(gathered.behind(aliases));
                }
            }
        }
        Err(Failed)
    }

    /// What an alias's target in the cluster has.
    fn inside(
        &self,
        query: &Query<'_>,
        snapshot: Option<&Snapshot>,
        target: &[u8],
        relative: &[u8],
    ) -> Result<Gathered, Failed> {
        let (snapshot, zone) = (snapshot.ok_or(Failed)?, &self.shared.zone);
        let owner = read_name(target).ok_or(Failed)?;
        let records = snapshot.get(relative);
        let rcode = records.map_or(ResponseCode::NXDomain, |_| ResponseCode::NoError);
        let data: Vec<RData> = match (query.qtype, records) {
            (rtype::A, Some(records)) => records.v4.iter().map(|ip| RData::A(A(*ip))).collect(),
            (rtype::AAAA, Some(records)) => {
                records.v6.iter().map(|ip| RData::AAAA(AAAA(*ip))).collect()
            }
            _ => Vec::new(),
        };
        let mut gathered = Gathered::empty(rcode);
        if data.is_empty() {
            gathered
                .authorities
                .push(soa(zone, snapshot.serial).ok_or(Failed)?);
        }
        let record = |data| Record::from_rdata(owner.clone(), zone.ttl_s, data);
        gathered.answers = data.into_iter().map(record).collect();
        Ok(gathered)
    }

    /// Records from outside with their times to live as they are now.
    fn aged(&self, aged: &Aged) -> Gathered {
        let max = self
            .shared
            .forwarder
            .as_ref()
            .map_or(0, |forwarder| forwarder.ttl_max_s());
        let age = |records: &[Record]| -> Vec<Record> {
            let mut records = records.to_vec();
            for record in &mut records {
                record.ttl = aged.age.ttl(record.ttl, max);
            }
            records
        };
        let resolved = &aged.resolved;
        Gathered {
            rcode: resolved.rcode,
            authoritative: false,
            authentic: resolved.authentic,
            answers: age(&resolved.answers),
            authorities: age(&resolved.authorities),
            additionals: age(&resolved.additionals),
        }
    }

    fn message(&self, query: &Query<'_>, gathered: Gathered) -> Option<Message> {
        let mut message = Message::new(query.id, MessageType::Response, OpCode::Query);
        message.metadata.response_code = gathered.rcode;
        message.metadata.authoritative = gathered.authoritative;
        message.metadata.authentic_data = gathered.authentic && query.dnssec_ok();
        message.metadata.recursion_desired = query.recursion_desired();
        message.metadata.checking_disabled = query.checking_disabled();
        message.metadata.recursion_available = self.shared.forwarder.is_some();
        // The name in the case it was asked in.
        let name = Name::read(&mut BinDecoder::new(query.question)).ok()?;
        let mut asked = MessageQuery::query(name, RecordType::from(query.qtype));
        asked.set_query_class(DNSClass::from(query.qclass));
        message.add_query(asked);
        message.answers = gathered.answers;
        message.authorities = gathered.authorities;
        message.additionals = gathered.additionals;
        if query.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(u16::try_from(UDP_BYTES_MAX).unwrap_or(u16::MAX));
            edns.set_dnssec_ok(query.dnssec_ok());
            message.set_edns(edns);
        }
        Some(message)
    }
}

impl Gathered {
    fn empty(rcode: ResponseCode) -> Self {
        Self {
            rcode,
            authoritative: false,
            authentic: false,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
        }
    }

    /// The same behind aliases of ours: the first owner is ours, so the answer is.
    fn behind(mut self, aliases: Vec<Record>) -> Self {
        self.answers.splice(0..0, aliases);
        self.authoritative = true;
        self.authentic = false;
        self
    }
}

fn read_name(name: &[u8]) -> Option<Name> {
    Name::read(&mut BinDecoder::new(name)).ok()
}

fn soa(zone: &crate::snapshot::Zone, serial: u32) -> Option<Record> {
    let mut data = Vec::new();
    handler::write_soa(&mut data, zone, serial);
    let data = SOA::read(&mut BinDecoder::new(&data)).ok()?;
    Some(Record::from_rdata(
        read_name(&zone.name)?,
        zone.ttl_s,
        RData::SOA(data),
    ))
}
