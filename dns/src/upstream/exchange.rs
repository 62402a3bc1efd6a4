//! One question to one server and back, over hickory's transports: UDP, and TCP when UDP does not
//! do.
//!
//! hickory sends the question from a fresh port with a random number and random case (0x20), and
//! takes an answer only from the asked address with that number and that question. A server that
//! does not keep the case is asked over TCP instead, where nobody else can answer. This is the layer
//! below its pool of name servers: the answer comes as it was sent, with its response code, all its
//! sections and unknown types.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{DnsRequest, DnsRequestOptions, Message, Query};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder};
use hickory_resolver::config::{ConnectionConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::xfer::{DnsExchange, DnsHandle as _, FirstAnswer as _};
use hickory_resolver::{ConnectionProvider as _, PoolContext, TlsConfig};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};

use crate::upstream::provider::Provider;
use crate::upstream::{Question, Resolved};
use crate::wire::UDP_BYTES_MAX;

/// Why a server gave no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    #[error("no answer in time")]
    Timeout,
    #[error("the question's name cannot be sent")]
    Name,
    #[error("the answer is to another question")]
    Mismatch,
    #[error("the exchange failed")]
    Net(#[from] NetError),
}

/// One server and the way to it.
pub(crate) struct Server {
    address: SocketAddr,
    provider: Provider,
    context: Arc<PoolContext>,
    /// Opens a socket for each question.
    udp: OnceCell<DnsExchange<Provider>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// What connections are opened with. `attempt`: the longest time of one.
pub(crate) fn context(attempt: Duration) -> Result<Arc<PoolContext>, NetError> {
    let mut options = ResolverOpts::default();
    options.timeout = attempt;
    // The kernel's range for clients, at random. hickory would take any port from 1024 on, so node
    // ports and the tunnel's, too.
    options.os_port_selection = true;
    Ok(Arc::new(PoolContext::new(options, TlsConfig::new()?)))
}

impl Server {
    pub(crate) fn new(address: SocketAddr, provider: Provider, context: Arc<PoolContext>) -> Self {
        Self {
            address,
            provider,
            context,
            udp: OnceCell::new(),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks; the answer must come before `until`.
    pub(crate) async fn ask(
        &self,
        question: &Question,
        until: Instant,
    ) -> Result<Resolved, ExchangeError> {
        let request = request(question, self.context.options.timeout)?;
        let asked = async {
            match self.over_udp(request.clone()).await {
                Ok(answer) if !answer.metadata.truncation => Ok(answer),
                Ok(_) | Err(NetError::QueryCaseMismatch) => self.over_tcp(request.clone()).await,
                Err(error) => Err(error),
            }
        };
        let answer = match timeout_at(until, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(NetError::Timeout)) | Err(_) => return Err(ExchangeError::Timeout),
            Ok(Err(error)) => return Err(error.into()),
        };
        // Names compare without case here; of UDP hickory has compared that, too.
        if answer.queries != request.queries {
            return Err(ExchangeError::Mismatch);
        }
        Ok(resolved(answer))
    }

    async fn over_udp(&self, request: DnsRequest) -> Result<Message, NetError> {
        let connection = self
            .udp
            .get_or_try_init(|| self.connect(ConnectionConfig::udp()))
            .await?;
        answer(connection, request).await
    }

    /// A connection of its own: too rare to keep one.
    async fn over_tcp(&self, request: DnsRequest) -> Result<Message, NetError> {
        answer(&self.connect(ConnectionConfig::tcp()).await?, request).await
    }

    async fn connect(
        &self,
        mut config: ConnectionConfig,
    ) -> Result<DnsExchange<Provider>, NetError> {
        config.port = self.address.port();
        self.provider
            .new_connection(self.address.ip(), &config, &self.context)?
            .await
    }
}

async fn answer(
    connection: &DnsExchange<Provider>,
    request: DnsRequest,
) -> Result<Message, NetError> {
    let answer = connection.send(request).first_answer().await?;
    Ok(answer.into_message())
}

fn request(question: &Question, attempt: Duration) -> Result<DnsRequest, ExchangeError> {
    let name = Name::read(&mut BinDecoder::new(&question.name))
        .map_err(|_undecodable| ExchangeError::Name)?;
    let mut asked = Query::query(name, RecordType::from(question.qtype));
    asked.set_query_class(DNSClass::from(question.qclass));
    let mut options = DnsRequestOptions::default();
    options.case_randomization = true;
    options.edns_payload_len = u16::try_from(UDP_BYTES_MAX).unwrap_or(u16::MAX);
    options.edns_set_dnssec_ok = question.dnssec_ok;
    // Who is asked again, and when, is the group's business.
    options.retry_interval = attempt;
    let mut request = DnsRequest::from_query(asked, options);
    request.metadata.checking_disabled = question.checking_disabled;
    Ok(request)
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

    #[test]
    fn a_question_carries_what_the_client_asked_for() {
        let question = Question {
            name: crate::names::absolute("www.some-longer-name.example").unwrap(),
            qtype: 65_280,
            qclass: 1,
            dnssec_ok: true,
            checking_disabled: true,
        };
        let request = request(&question, Duration::from_secs(1)).unwrap();
        assert!(request.metadata.recursion_desired && request.metadata.checking_disabled);
        let edns = request.edns.as_ref().unwrap();
        assert_eq!((edns.flags().dnssec_ok, edns.max_payload()), (true, 1232));
        let asked = &request.queries[0];
        assert_eq!(asked.query_type(), RecordType::Unknown(65_280));
        assert_eq!(
            asked.name().to_lowercase().to_ascii(),
            "www.some-longer-name.example."
        );
        let cases = asked.name().to_ascii();
        // By chance once in 2^25 runs.
        assert!(
            cases.bytes().any(|byte| byte.is_ascii_uppercase()),
            "{cases}"
        );
    }
}
