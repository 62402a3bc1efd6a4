//! One forwarded connection: from the agent into a pod's network namespace and back.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use node_agent_network::connect_inside;
use proto::cri::v1 as cri;
use proto_api::types::Object as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use super::{StreamError, StreamHandler};
use crate::pod::model;
use crate::runtime::labels;
use crate::worker::PodSummary;

/// How long a pod may take to accept.
const CONNECT: Duration = Duration::from_secs(10);
const BLOCK_BYTES: usize = 32 * 1024;

/// What a user asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardSession {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Uid of the pod; empty for the newest of that name.
    pub uid: String,
    /// TCP port in the pod.
    pub port: u16,
    /// Where in the pod.
    pub at: ForwardAt,
}

/// The address in the pod that is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardAt {
    /// 127.0.0.1, else ::1, as `kubectl port-forward` expects.
    Loopback,
    /// The pod's own, as the API's proxy expects.
    PodAddress,
}

/// What comes from the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardInput {
    /// Bytes for the pod.
    Data(Bytes),
    /// No more bytes; the pod may still answer.
    Close,
}

/// What goes to the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardOutput {
    /// Bytes from the pod.
    Data(Bytes),
    /// The pod sends no more; it may still read.
    Closed,
}

impl StreamHandler {
    /// Connects to a port of a pod and carries both directions until both have ended, or until
    /// `input` or `output` is dropped.
    ///
    /// # Errors
    /// [`StreamError`] in the words of upstream when nobody listens there or the connection breaks.
    pub async fn port_forward(
        &self,
        session: &ForwardSession,
        input: mpsc::Receiver<ForwardInput>,
        output: mpsc::Sender<ForwardOutput>,
    ) -> Result<(), StreamError> {
        let summary = self.pod(&session.namespace, &session.pod, &session.uid)?;
        let connection = self.connect(&summary, session).await?;
        carry(connection, input, output).await.map_err(|error| {
            StreamError::internal(failure(session.port, &summary, &go_words(&error)))
        })
    }

    async fn connect(
        &self,
        summary: &PodSummary,
        session: &ForwardSession,
    ) -> Result<TcpStream, StreamError> {
        let sandbox = self.ready_sandbox(summary).await?;
        let namespace = self.runtime.network_namespace(&sandbox).await;
        let namespace = namespace.map_err(|error| StreamError::internal(error.to_string()))?;
        let port = session.port;
        let addresses: Vec<IpAddr> = match session.at {
            ForwardAt::Loopback => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            ForwardAt::PodAddress => {
                let ips = summary.status.pod_ips.iter();
                ips.filter_map(|ip| ip.ip.parse().ok()).collect()
            }
        };
        let mut attempts = Vec::new();
        for address in addresses {
            match connect_inside(&namespace, SocketAddr::new(address, port), CONNECT).await {
                Ok(stream) => return Ok(stream),
                Err(error) => attempts.push((address, error)),
            }
        }
        let message = unreachable(port, &sandbox, &namespace, &attempts);
        Err(StreamError {
            code: 502,
            message: failure(port, summary, &message),
        })
    }

    /// The pod's sandbox, in whose namespaces its containers run.
    async fn ready_sandbox(&self, summary: &PodSummary) -> Result<String, StreamError> {
        let node = model::spec(&summary.pod).node_name.as_deref();
        let selector = labels::of_pod(node.unwrap_or_default(), summary.pod.uid());
        let found = self.runtime.list_sandboxes(&selector).await;
        let found = found.map_err(|error| StreamError::internal(error.to_string()))?;
        let ready = found
            .into_iter()
            .filter(|sandbox| sandbox.state() == cri::PodSandboxState::SandboxReady)
            .max_by_key(|sandbox| sandbox.created_at);
        ready.map(|sandbox| sandbox.id).ok_or_else(|| {
            let phase = summary.status.phase.as_deref().unwrap_or("Unknown");
            StreamError::bad_request(format!(
                "unable to forward port because pod is not running. Current status={phase}"
            ))
        })
    }
}

/// The sentence that kubectl shows after its own.
fn failure(port: u16, summary: &PodSummary, why: &str) -> String {
    format!(
        "error forwarding port {port} to pod {}, uid {}: {why}",
        summary.pod.name(),
        summary.pod.uid()
    )
}

fn unreachable(
    port: u16,
    sandbox: &str,
    namespace: &Path,
    attempts: &[(IpAddr, io::Error)],
) -> String {
    let mut message = format!(
        "failed to execute portforward in network namespace \"{}\": failed to connect to \
         localhost:{port} inside namespace \"{sandbox}\"",
        namespace.display()
    );
    for (address, error) in attempts {
        let (family, network) = match address {
            IpAddr::V4(_) => ("IPv4:", "tcp4"),
            IpAddr::V6(_) => ("IPv6", "tcp6"),
        };
        let at = SocketAddr::new(*address, port);
        let separator = if family == "IPv4:" { ", " } else { " " };
        message.push_str(&format!(
            "{separator}{family} dial {network} {at}: connect: {}",
            go_words(error)
        ));
    }
    message
}

/// How the errors that users meet are called elsewhere.
fn go_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        io::ErrorKind::BrokenPipe => "broken pipe".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        io::ErrorKind::AddrNotAvailable => "cannot assign requested address".to_owned(),
        _ => error.to_string(),
    }
}

async fn carry(
    connection: TcpStream,
    input: mpsc::Receiver<ForwardInput>,
    output: mpsc::Sender<ForwardOutput>,
) -> io::Result<()> {
    let (read, write) = connection.into_split();
    let up = from_pod(read, output);
    let down = to_pod(write, input);
    let (mut up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
    tokio::select! {
        ended = &mut up => match ended? {
            // The user is gone.
            Side::Gone => Ok(()),
            Side::Finished => down.await.map(drop),
        },
        ended = &mut down => match ended? {
            Side::Gone => Ok(()),
            Side::Finished => up.await.map(drop),
        },
    }
}

/// How one direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// By its end: the other direction goes on.
    Finished,
    /// The user is not there any more.
    Gone,
}

async fn from_pod(
    mut read: OwnedReadHalf,
    output: mpsc::Sender<ForwardOutput>,
) -> io::Result<Side> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(BLOCK_BYTES);
        let count = tokio::select! {
            count = read.read_buf(&mut buffer) => count?,
            () = output.closed() => return Ok(Side::Gone),
        };
        let message = match count {
            0 => ForwardOutput::Closed,
            _ => ForwardOutput::Data(buffer.split().freeze()),
        };
        let sent = output.send(message).await;
        match (sent, count) {
            (Err(_), _) => return Ok(Side::Gone),
            (Ok(()), 0) => return Ok(Side::Finished),
            (Ok(()), _) => {}
        }
    }
}

async fn to_pod(
    mut write: OwnedWriteHalf,
    mut input: mpsc::Receiver<ForwardInput>,
) -> io::Result<Side> {
    loop {
        match input.recv().await {
            Some(ForwardInput::Data(bytes)) => match write.write_all(&bytes).await {
                Ok(()) => {}
                // The pod reads no more; what it still sends counts.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Ok(Side::Finished);
                }
                Err(error) => return Err(error),
            },
            Some(ForwardInput::Close) => {
                // The other side may have closed first.
                drop(write.shutdown().await);
                return Ok(Side::Finished);
            }
            None => return Ok(Side::Gone),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A connection that is carried, and the pod's end of it.
    async fn carried() -> (
        mpsc::Sender<ForwardInput>,
        mpsc::Receiver<ForwardOutput>,
        TcpStream,
        tokio::task::JoinHandle<io::Result<()>>,
    ) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap());
        let (ours, theirs) = tokio::join!(ours, listener.accept());
        let (input, from_user) = mpsc::channel(2);
        let (to_user, output) = mpsc::channel(2);
        let task = tokio::spawn(carry(ours.unwrap(), from_user, to_user));
        (input, output, theirs.unwrap().0, task)
    }

    #[tokio::test]
    async fn the_pod_answers_after_the_user_has_finished() {
        let (input, mut output, mut pod, task) = carried().await;
        let question = ForwardInput::Data(Bytes::from_static(b"question"));
        input.send(question).await.unwrap();
        input.send(ForwardInput::Close).await.unwrap();
        let mut asked = String::new();
        pod.read_to_string(&mut asked).await.unwrap();
        assert_eq!(asked, "question");
        pod.write_all(b"answer").await.unwrap();
        drop(pod);
        let answer = ForwardOutput::Data(Bytes::from_static(b"answer"));
        assert_eq!(output.recv().await, Some(answer));
        assert_eq!(output.recv().await, Some(ForwardOutput::Closed));
        task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn the_user_goes_on_after_the_pod_has_finished() {
        let (input, mut output, mut pod, task) = carried().await;
        pod.shutdown().await.unwrap();
        assert_eq!(output.recv().await, Some(ForwardOutput::Closed));
        let more = ForwardInput::Data(Bytes::from_static(b"more"));
        input.send(more).await.unwrap();
        input.send(ForwardInput::Close).await.unwrap();
        let mut read = String::new();
        pod.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "more");
        task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_user_who_goes_away_ends_the_connection() {
        let (input, output, mut pod, task) = carried().await;
        drop((input, output));
        task.await.unwrap().unwrap();
        assert_eq!(pod.read(&mut [0; 8]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_user_who_does_not_read_holds_the_pod_back() {
        let (input, output, mut pod, _task) = carried().await;
        let flood = async {
            let mut sent = 0_usize;
            let block = vec![0; 64 * 1024];
            while sent < 256 * 1024 * 1024 {
                pod.write_all(&block).await.unwrap();
                sent += block.len();
            }
        };
        let stuck = tokio::time::timeout(Duration::from_millis(500), flood).await;
        stuck.unwrap_err();
        drop((input, output));
    }

    #[test]
    fn nobody_listens_is_said_as_elsewhere() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let attempts = [
            (Ipv4Addr::LOCALHOST.into(), refused()),
            (Ipv6Addr::LOCALHOST.into(), refused()),
        ];
        assert_eq!(
            unreachable(81, "abc", Path::new("/proc/7/ns/net"), &attempts),
            "failed to execute portforward in network namespace \"/proc/7/ns/net\": failed to \
             connect to localhost:81 inside namespace \"abc\", IPv4: dial tcp4 127.0.0.1:81: \
             connect: connection refused IPv6 dial tcp6 [::1]:81: connect: connection refused"
        );
    }
}
