//! One question to one server and back: UDP from a random port, TCP when UDP does not do.
//!
//! An answer counts only if it comes from the asked address to the asking port with the asked
//! number and the question in exactly the case it was sent (0x20). A server that does not keep the
//! case is asked over TCP instead, where nobody else can answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout_at};

use crate::upstream::{Question, Resolved};
use crate::wire::UDP_BYTES_MAX;

/// Wrong packets that are skipped while waiting for the right one.
const STRAY_MAX: usize = 64;

/// Why a server gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    #[error("no answer in time")]
    Timeout,
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
    #[error("the question cannot be sent or the answer cannot be read")]
    Message,
    #[error("the answer is to another question")]
    Mismatch,
}

/// Asks `server`; the answer must come before `until`.
pub(crate) async fn exchange(
    server: SocketAddr,
    question: &Question,
    until: Instant,
) -> Result<Resolved, ExchangeError> {
    let query = query(question)?;
    let bytes = query
        .to_vec()
        .map_err(|_unencodable| ExchangeError::Message)?;
    let asked = async {
        match over_udp(server, &query, &bytes).await? {
            Some(answer) => Ok(answer),
            None => over_tcp(server, &query, &bytes).await,
        }
    };
    match timeout_at(until, asked).await {
        Ok(answer) => answer.map(resolved),
        Err(_) => Err(ExchangeError::Timeout),
    }
}

fn query(question: &Question) -> Result<Message, ExchangeError> {
    let mut name = Name::read(&mut BinDecoder::new(&question.name))
        .map_err(|_undecodable| ExchangeError::Message)?;
    name.randomize_label_case();
    let mut asked = Query::query(name, RecordType::from(question.qtype));
    asked.set_query_class(DNSClass::from(question.qclass));
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.metadata.checking_disabled = question.checking_disabled;
    message.add_query(asked);
    let mut edns = Edns::new();
    edns.set_max_payload(u16::try_from(UDP_BYTES_MAX).unwrap_or(u16::MAX));
    edns.set_dnssec_ok(question.dnssec_ok);
    message.set_edns(edns);
    Ok(message)
}

/// `None`: the answer must be fetched over TCP.
async fn over_udp(
    server: SocketAddr,
    query: &Message,
    bytes: &[u8],
) -> Result<Option<Message>, ExchangeError> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // A fresh port for each question; connected, so that others cannot answer.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = [0; 4096];
    for _ in 0..STRAY_MAX {
        let len = socket.recv(&mut buffer).await?;
        let Ok(answer) = Message::from_vec(&buffer[..len]) else {
            continue;
        };
        match verdict(query, &answer) {
            Verdict::Ours if answer.metadata.truncation => return Ok(None),
            Verdict::Ours => return Ok(Some(answer)),
            Verdict::OtherCase => return Ok(None),
            Verdict::Stray => {}
        }
    }
    Err(ExchangeError::Mismatch)
}

async fn over_tcp(
    server: SocketAddr,
    query: &Message,
    bytes: &[u8],
) -> Result<Message, ExchangeError> {
    let len = u16::try_from(bytes.len()).map_err(|_too_long| ExchangeError::Message)?;
    let mut stream = TcpStream::connect(server).await?;
    stream
        .write_all(&[&len.to_be_bytes(), bytes].concat())
        .await?;
    let mut buffer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut buffer).await?;
    let answer = Message::from_vec(&buffer).map_err(|_undecodable| ExchangeError::Message)?;
    match verdict(query, &answer) {
        Verdict::Ours | Verdict::OtherCase => Ok(answer),
        Verdict::Stray => Err(ExchangeError::Mismatch),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ours,
    /// The right question in another case: the server does not keep it, or somebody guesses.
    OtherCase,
    Stray,
}

fn verdict(query: &Message, answer: &Message) -> Verdict {
    let ([asked], [echoed]) = (query.queries.as_slice(), answer.queries.as_slice()) else {
        return Verdict::Stray;
    };
    let same = answer.metadata.id == query.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && asked.query_type() == echoed.query_type()
        && asked.query_class() == echoed.query_class()
        && asked.name() == echoed.name();
    match (same, asked.name().eq_case(echoed.name())) {
        (true, true) => Verdict::Ours,
        (true, false) => Verdict::OtherCase,
        (false, _) => Verdict::Stray,
    }
}

fn resolved(answer: Message) -> Resolved {
    Resolved {
        rcode: answer.metadata.response_code,
        authentic: answer.metadata.authentic_data,
        answers: answer.answers,
        authorities: answer.authorities,
        additionals: answer.additionals,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        Question {
            name: crate::names::absolute("www.some-longer-name.example").unwrap(),
            qtype: 1,
            qclass: 1,
            dnssec_ok: true,
            checking_disabled: true,
        }
    }

    #[test]
    fn only_the_answer_to_this_very_question_counts() {
        let query = query(&question()).unwrap();
        let change = |change: fn(&mut Message)| {
            let mut answer = query.clone();
            answer.metadata.message_type = MessageType::Response;
            change(&mut answer);
            verdict(&query, &answer)
        };
        assert_eq!(change(|_| {}), Verdict::Ours);
        assert_eq!(change(|answer| answer.metadata.id ^= 1), Verdict::Stray);
        assert_eq!(change(|answer| answer.queries.clear()), Verdict::Stray);
        let as_query = |answer: &mut Message| answer.metadata.message_type = MessageType::Query;
        assert_eq!(change(as_query), Verdict::Stray);
        let other_type = |answer: &mut Message| {
            answer.queries[0].set_query_type(RecordType::AAAA);
        };
        assert_eq!(change(other_type), Verdict::Stray);
        let other_name = |answer: &mut Message| {
            answer.queries[0].set_name(Name::from_ascii("www.example.").unwrap());
        };
        assert_eq!(change(other_name), Verdict::Stray);
        let swapped = |answer: &mut Message| {
            let text = answer.queries[0].name().to_ascii();
            let swap = |c: char| {
                if c.is_ascii_lowercase() {
                    c.to_ascii_uppercase()
                } else {
                    c.to_ascii_lowercase()
                }
            };
            let swapped: String = text.chars().map(swap).collect();
            answer.queries[0].set_name(Name::from_ascii(swapped).unwrap());
        };
        assert_eq!(change(swapped), Verdict::OtherCase);
    }

    #[test]
    fn a_question_carries_what_the_client_asked_for() {
        let query = query(&question()).unwrap();
        assert!(query.metadata.recursion_desired && query.metadata.checking_disabled);
        assert!(query.edns.as_ref().unwrap().flags().dnssec_ok);
        assert_eq!(
            query.queries[0].name().to_lowercase().to_ascii(),
            "www.some-longer-name.example."
        );
    }
}
