//! An upstream server that does as the test says: answers, is silent, cuts, lies.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

/// Runs until it is dropped.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<std::convert::Infallible>,
}

#[derive(Default)]
struct State {
    silent: AtomicBool,
    failing: AtomicBool,
    udp: AtomicUsize,
    tcp: AtomicUsize,
    seen: parking_lot::Mutex<HashMap<String, usize>>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = udp.local_addr().unwrap();
        let tcp = TcpListener::bind(address).await.unwrap();
        let state = Arc::new(State::default());
        let mut tasks = JoinSet::new();
        let (for_udp, for_tcp) = (Arc::clone(&state), Arc::clone(&state));
        tasks.spawn(async { serve_udp(for_udp, udp).await });
        tasks.spawn(async { serve_tcp(for_tcp, tcp).await });
        Self {
            address,
            state,
            _tasks: tasks,
        }
    }

    pub(crate) fn silent(&self, silent: bool) {
        self.state.silent.store(silent, Ordering::SeqCst);
    }

    pub(crate) fn failing(&self, failing: bool) {
        self.state.failing.store(failing, Ordering::SeqCst);
    }

    /// Questions for a name, and all over TCP.
    pub(crate) fn asked(&self, name: &str) -> usize {
        self.state.seen.lock().get(name).copied().unwrap_or(0)
    }

    pub(crate) fn asked_over_tcp(&self) -> usize {
        self.state.tcp.load(Ordering::SeqCst)
    }
}

async fn serve_udp(state: Arc<State>, socket: UdpSocket) -> ! {
    let mut buffer = [0; 4096];
    loop {
        let (len, client) = socket.recv_from(&mut buffer).await.unwrap();
        let Ok(question) = Message::from_vec(&buffer[..len]) else {
            continue;
        };
        state.udp.fetch_add(1, Ordering::SeqCst);
        let Some(mut answer) = state.answer(&question) else {
            continue;
        };
        let name = question.queries[0].name().to_lowercase().to_ascii();
        match name.as_str() {
            "cut.example.com." => {
                answer.answers.clear();
                answer.metadata.truncation = true;
            }
            "lower.example.com." => {
                let name = answer.queries[0].name().to_lowercase();
                answer.queries[0].set_name(name);
                // The question is all letters, so chance does not make both cases equal.
            }
            "spoofed.example.com." => {
                let mut lie = answer.clone();
                lie.metadata.id ^= 1;
                lie.answers[0].data = RData::A(A::new(6, 6, 6, 6));
                socket
                    .send_to(&lie.to_vec().unwrap(), client)
                    .await
                    .unwrap();
                socket.send_to(b"noise", client).await.unwrap();
            }
            _ => {}
        }
        socket
            .send_to(&answer.to_vec().unwrap(), client)
            .await
            .unwrap();
    }
}

async fn serve_tcp(state: Arc<State>, listener: TcpListener) -> ! {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let len = stream.read_u16().await.unwrap();
        let mut buffer = vec![0; len.into()];
        stream.read_exact(&mut buffer).await.unwrap();
        state.tcp.fetch_add(1, Ordering::SeqCst);
        let question = Message::from_vec(&buffer).unwrap();
        let Some(answer) = state.answer(&question) else {
            continue;
        };
        let answer = answer.to_vec().unwrap();
        stream
            .write_u16(u16::try_from(answer.len()).unwrap())
            .await
            .unwrap();
        stream.write_all(&answer).await.unwrap();
    }
}

impl State {
    fn answer(&self, question: &Message) -> Option<Message> {
        let query = &question.queries[0];
        let name = query.name().to_lowercase().to_ascii();
        if query.query_type() != RecordType::HINFO {
            *self.seen.lock().entry(name.clone()).or_default() += 1;
        }
        if self.silent.load(Ordering::SeqCst) || name == "silent.example.com." {
            return None;
        }
        let mut answer = question.clone();
        answer.metadata.message_type = MessageType::Response;
        answer.metadata.recursion_available = true;
        if self.failing.load(Ordering::SeqCst) {
            answer.metadata.response_code = ResponseCode::ServFail;
            return Some(answer);
        }
        let record = |name: &Name, ttl, data| Record::from_rdata(name.clone(), ttl, data);
        let address = RData::A(A::new(192, 0, 2, 1));
        match (name.as_str(), query.query_type()) {
            (name, _) if !name.ends_with(".example.com.") || name.starts_with("none.") => {
                answer.metadata.response_code = ResponseCode::NXDomain;
                answer.authorities.push(soa());
            }
            ("short.example.com.", RecordType::A) => {
                answer.answers.push(record(query.name(), 1, address));
            }
            ("chain.example.com.", RecordType::A) => {
                let www = Name::from_ascii("www.example.com.").unwrap();
                let cname = RData::CNAME(CNAME(www.clone()));
                answer.answers.push(record(query.name(), 300, cname));
                answer.answers.push(record(&www, 300, address));
            }
            (_, RecordType::A) => answer.answers.push(record(query.name(), 300, address)),
            _ => answer.authorities.push(soa()),
        }
        Some(answer)
    }
}

fn soa() -> Record {
    let name = Name::from_ascii("example.com.").unwrap();
    let soa = SOA::new(name.clone(), name.clone(), 1, 2, 3, 4, 60);
    Record::from_rdata(name, 60, RData::SOA(soa))
}
