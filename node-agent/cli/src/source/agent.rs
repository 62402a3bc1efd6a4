//! The agent's Unix socket.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use node_agent_datapath::inspect::Query;
use node_agent_datapath::inspect::names::{BackendName, NameTable, ServiceName};
use proto::inspect::v1 as pb;
use proto::inspect::v1::inspect_client::InspectClient;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::cluster::Node;
use crate::failure::{DENIED, Failure, INTERNAL, NOT_FOUND, TIMEOUT};

/// An agent that does not take a connection within this time is taken for dead.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// An answer reads whole maps.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// A dump of a large map is large.
const ANSWER_LEN_MAX: usize = 256 << 20;

/// Why an agent did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AgentError {
    /// This user may not use the socket.
    Denied,
    Silent(String),
}

impl fmt::Display for AgentError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied => formatter.write_str("permission denied"),
            Self::Silent(reason) => formatter.write_str(reason),
        }
    }
}

impl AgentError {
    pub(super) fn failure(&self, node: &Node) -> Failure {
        let (name, socket) = (&node.name, node.agent_socket.display());
        match self {
            Self::Denied => Failure::new(
                DENIED,
                format!("node {name}: using {socket} needs root; try again with sudo"),
            ),
            Self::Silent(reason) => Failure::new(INTERNAL, format!("node {name}: {reason}")),
        }
    }
}

/// A connection to one agent.
#[derive(Debug)]
pub(super) struct AgentClient {
    client: InspectClient<Channel>,
}

fn from_io(error: &io::Error) -> AgentError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => AgentError::Denied,
        io::ErrorKind::NotFound => AgentError::Silent("there is no socket".to_owned()),
        io::ErrorKind::ConnectionRefused => AgentError::Silent("nobody listens".to_owned()),
        _ => AgentError::Silent(error.to_string()),
    }
}

/// Why a call was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CallError {
    /// The agent is gone: it has died since the connection was made.
    Lost(AgentError),
    /// It answered that it cannot, or not in time.
    Refused(Failure),
}

fn refused(status: &tonic::Status) -> CallError {
    let code = match status.code() {
        Code::NotFound => NOT_FOUND,
        Code::PermissionDenied => DENIED,
        Code::DeadlineExceeded | Code::Cancelled => TIMEOUT,
        _ => INTERNAL,
    };
    match std::error::Error::source(status) {
        // An answer of the agent has no cause on this side.
        Some(cause) if code != TIMEOUT => {
            CallError::Lost(AgentError::Silent(crate::failure::chain(cause)))
        }
        Some(_) | None => CallError::Refused(Failure::new(code, status.message())),
    }
}

impl AgentClient {
    pub(super) async fn connect(socket: &Path) -> Result<Self, AgentError> {
        // Tried first by hand: the channel would hide the reason.
        let connect = timeout(CONNECT_TIMEOUT, UnixStream::connect(socket)).await;
        match connect {
            Ok(Ok(stream)) => drop(stream),
            Ok(Err(error)) => return Err(from_io(&error)),
            Err(_elapsed) => return Err(AgentError::Silent("it takes no connection".to_owned())),
        }
        let socket = socket.to_owned();
        let connector = tower::service_fn(move |_uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://agent.invalid")
            .timeout(ANSWER_TIMEOUT)
            .connect_with_connector(connector)
            .await
            .map_err(|error| AgentError::Silent(crate::failure::chain(&error)))?;
        let client = InspectClient::new(channel).max_decoding_message_size(ANSWER_LEN_MAX);
        Ok(Self { client })
    }

    pub(super) async fn status(&mut self) -> Result<pb::StatusResponse, CallError> {
        let response = self.client.status(pb::StatusRequest {}).await;
        Ok(response.map_err(|status| refused(&status))?.into_inner())
    }

    pub(super) async fn names(&mut self) -> Result<NameTable, CallError> {
        let response = self.client.names(pb::NamesRequest {}).await;
        let names = response.map_err(|status| refused(&status))?.into_inner();
        let service = |name: pb::ServiceName| {
            let value = ServiceName {
                namespace: name.namespace,
                name: name.name,
                port_name: name.port_name,
            };
            (name.index, value)
        };
        let backend = |name: pb::BackendName| {
            let value = BackendName {
                namespace: name.namespace,
                pod: name.pod,
                node: name.node,
            };
            (name.index, value)
        };
        Ok(NameTable {
            node: String::new(),
            services: names.services.into_iter().map(service).collect(),
            backends: names.backends.into_iter().map(backend).collect(),
        })
    }

    pub(super) async fn read(&mut self, query: &Query) -> Result<Vec<u8>, CallError> {
        let (view, name) = match query {
            Query::LoadBalancer => (pb::View::LoadBalancer, ""),
            Query::Maps => (pb::View::Maps, ""),
            Query::Map { name } => (pb::View::Map, name.as_str()),
            Query::Flows => (pb::View::Flows, ""),
            Query::Counters => (pb::View::Counters, ""),
            Query::Programs => (pb::View::Programs, ""),
            Query::Pods => (pb::View::Pods, ""),
            Query::Routes => (pb::View::Routes, ""),
            Query::Writer => (pb::View::Writer, ""),
        };
        let request = pb::ReadRequest {
            view: view.into(),
            name: name.to_owned(),
        };
        let response = self.client.read(request).await;
        Ok(response
            .map_err(|status| refused(&status))?
            .into_inner()
            .document)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_died_is_lost_and_one_that_answers_has_refused() {
        let broken = io::Error::new(io::ErrorKind::BrokenPipe, "broken pipe");
        let lost = refused(&tonic::Status::from_error(Box::new(broken)));
        assert_eq!(
            lost,
            CallError::Lost(AgentError::Silent("broken pipe".to_owned()))
        );
        let answer = refused(&tonic::Status::not_found("no map is called x"));
        let failure = Failure::new(NOT_FOUND, "no map is called x");
        assert_eq!(answer, CallError::Refused(failure));
        let slow = refused(&tonic::Status::cancelled("Timeout expired"));
        assert!(matches!(slow, CallError::Refused(failure) if failure.code == TIMEOUT));
    }
}
