//! Forwarded connections as pairs of SPDY streams: `error` and `data`, joined by `requestid`.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use proto_spdy::{Connection, Stream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::debug;

use super::forward::Forwarder;
use crate::node_streams::{PortInput, PortOutput, PortSession};

/// How long the second stream of a pair may take.
const PAIR_WAIT: Duration = Duration::from_secs(30);

/// Serves connections until the client goes.
pub(super) async fn bridge(
    mut connection: Connection,
    drive: impl Future<Output = io::Result<()>>,
    forwarder: Forwarder,
) {
    let serve = async {
        let mut halves: HashMap<String, Half> = HashMap::new();
        // Dropped with this future, so that no connection outlives its client.
        let mut pairs = JoinSet::new();
        let mut clean_up = tokio::time::interval(PAIR_WAIT);
        loop {
            tokio::select! {
                stream = connection.accept() => {
                    let Some(stream) = stream else { return };
                    if let Some(pair) = take(&mut halves, stream).await {
                        pairs.spawn(forward(pair, forwarder.clone()));
                    }
                }
                Some(ended) = pairs.join_next() => if let Err(fault) = ended {
                    debug!(%fault, "a forwarded connection broke");
                },
                _ = clean_up.tick() => forget_old(&mut halves).await,
            }
        }
    };
    tokio::select! {
        ended = drive => if let Err(fault) = ended {
            debug!(%fault, "port-forward connection broke");
        },
        () = serve => {}
    }
}

/// A stream that waits for its other half.
struct Half {
    stream: Stream,
    since: Instant,
}

/// The two streams of one connection.
struct Pair {
    port: u16,
    error: Stream,
    data: Stream,
}

/// Takes in a stream; answers the pair that it completes.
async fn take(halves: &mut HashMap<String, Half>, stream: Stream) -> Option<Pair> {
    let kind = stream.headers.get("streamType").to_owned();
    let port: Option<u16> = stream.headers.get("port").parse().ok();
    let port = port.filter(|port| *port > 0);
    let (Some(port), "error" | "data") = (port, kind.as_str()) else {
        stream.writer.reset().await;
        return None;
    };
    let id = request_id(&stream, &kind);
    let Some(half) = halves.remove(&id) else {
        let since = Instant::now();
        halves.insert(id, Half { stream, since });
        return None;
    };
    let other = half.stream;
    if other.headers.get("streamType") == kind {
        let message =
            format!("error processing stream for request {id}: {kind} stream already assigned");
        say(&other, message).await;
        stream.writer.reset().await;
        return None;
    }
    let (error, data) = if kind == "error" {
        (stream, other)
    } else {
        (other, stream)
    };
    Some(Pair { port, error, data })
}

/// Clients that give no `requestid` open both streams one after the other: error first.
fn request_id(stream: &Stream, kind: &str) -> String {
    match (stream.headers.get("requestid"), kind) {
        ("", "error") => format!("#{}", stream.id),
        ("", _) => format!("#{}", stream.id.saturating_sub(2)),
        (id, _) => id.to_owned(),
    }
}

async fn forget_old(halves: &mut HashMap<String, Half>) {
    let now = Instant::now();
    let old = |half: &Half| now.duration_since(half.since) >= PAIR_WAIT;
    let ids: Vec<String> = halves
        .iter()
        .filter(|(_, half)| old(half))
        .map(|(id, _)| id.clone())
        .collect();
    for id in ids {
        if let Some(half) = halves.remove(&id) {
            let message = format!("(request={id}) timed out waiting for streams");
            say(&half.stream, message).await;
            half.stream.writer.reset().await;
        }
    }
}

async fn say(stream: &Stream, message: String) {
    if stream.headers.get("streamType") == "error"
        && stream.writer.send(Bytes::from(message)).await.is_err()
    {
        debug!("the client left before it could be told");
    }
}

/// One connection, from its start to its end.
async fn forward(pair: Pair, forwarder: Forwarder) {
    let Pair { port, error, data } = pair;
    let failed = match forwarder.connect(port).await {
        Ok(session) => carry(session, data).await,
        Err(fault) => {
            let ended = data.writer.finish().await;
            debug!(%fault, ?ended, port, "no connection to the pod");
            Some(format!("error forwarding port {port}: {fault}"))
        }
    };
    if let Some(message) = failed {
        say(&error, message).await;
    }
    // kubectl reads this stream to its end before it gives the connection up.
    if error.writer.finish().await.is_err() {
        debug!(port, "the client left before the end");
    }
}

/// Carries both directions; answers why it failed, if it did.
async fn carry(session: PortSession, data: Stream) -> Option<String> {
    let Stream {
        mut reader, writer, ..
    } = data;
    let PortSession { input, mut output } = session;
    let to_pod = async {
        while let Some(bytes) = reader.recv().await {
            if input.send(PortInput::Data(bytes)).await.is_err() {
                break;
            }
        }
        if !reader.was_reset() && input.send(PortInput::Close).await.is_err() {
            debug!("the pod's side had ended before");
        }
        // Half an end: the pod may still answer, until the client breaks off.
        writer.closed().await;
    };
    let from_pod = async {
        let mut finished = false;
        while let Some(said) = output.recv().await {
            match said {
                PortOutput::Data(bytes) => writer.send(bytes).await.ok()?,
                PortOutput::Closed => {
                    writer.finish().await.ok()?;
                    finished = true;
                }
                PortOutput::Failed { message } => return Some(message),
            }
        }
        if !finished {
            writer.finish().await.ok()?;
        }
        None
    };
    let failed = tokio::select! {
        failed = from_pod => failed,
        () = to_pod => None,
    };
    if failed.is_some() {
        writer.reset().await;
    }
    failed
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use futures::channel::mpsc as pipe;
    use futures::{SinkExt as _, StreamExt as _};
    use proto_spdy::{Headers, Role};
    use tokio::sync::mpsc;

    use super::*;
    use crate::node_streams::{
        AgentAnswer, AgentRequest, ExecRequest, ExecSession, LogRequest, LogStream,
        NodeStreamError, NodeStreams, PortAt, PortRequest,
    };

    /// A pod that echoes on port 80; nobody listens on others.
    struct Echo;

    #[async_trait]
    impl NodeStreams for Echo {
        async fn logs(&self, _: &str, _: LogRequest) -> Result<LogStream, NodeStreamError> {
            Ok(futures::stream::empty().boxed())
        }
        async fn exec(&self, node: &str, _: ExecRequest) -> Result<ExecSession, NodeStreamError> {
            let node = node.to_owned();
            Err(NodeStreamError::NotConnected { node })
        }
        async fn agent(&self, node: &str, _: AgentRequest) -> Result<AgentAnswer, NodeStreamError> {
            let node = node.to_owned();
            Err(NodeStreamError::NotConnected { node })
        }
        async fn port(&self, _: &str, asked: PortRequest) -> Result<PortSession, NodeStreamError> {
            let (input, mut from_client) = mpsc::channel(4);
            let (to_client, output) = mpsc::channel(4);
            tokio::spawn(async move {
                if asked.port != 80 {
                    let message = format!("nobody listens on {}", asked.port);
                    drop(to_client.send(PortOutput::Failed { message }).await);
                    return;
                }
                while let Some(PortInput::Data(bytes)) = from_client.recv().await {
                    to_client.send(PortOutput::Data(bytes)).await.unwrap();
                }
                drop(to_client.send(PortOutput::Closed).await);
            });
            Ok(PortSession { input, output })
        }
    }

    /// A client whose connections are served.
    fn client() -> (Connection, JoinSet<()>) {
        let (to_server, at_server) = pipe::channel::<Bytes>(1);
        let (to_client, at_client) = pipe::channel::<Bytes>(1);
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        let (client, drive) = Connection::new(
            Role::Client,
            at_client.map(Ok),
            to_server.sink_map_err(gone),
        );
        let (server, drive_server) = Connection::new(
            Role::Server,
            at_server.map(Ok),
            to_client.sink_map_err(gone),
        );
        let forwarder = Forwarder::to(
            Arc::new(Echo),
            "n",
            PortRequest {
                namespace: "d".to_owned(),
                pod: "p".to_owned(),
                pod_uid: String::new(),
                port: 0,
                at: PortAt::Loopback,
            },
        );
        let mut tasks = JoinSet::new();
        tasks.spawn(async { drop(drive.await) });
        tasks.spawn(bridge(server, drive_server, forwarder));
        (client, tasks)
    }

    /// What the data and the error stream of one connection say.
    async fn ask(client: &Connection, id: &str, port: &str, text: &'static [u8]) -> [String; 2] {
        let handle = client.handle();
        let open = async |kind: &str| {
            let headers = [("streamType", kind), ("port", port), ("requestid", id)];
            handle.open(Headers::new(headers)).await.unwrap()
        };
        let mut error = open("error").await;
        error.writer.finish().await.unwrap();
        let mut data = open("data").await;
        // The server may break off before everything is said.
        drop(data.writer.send(Bytes::from_static(text)).await);
        drop(data.writer.finish().await);
        let mut said = [Vec::new(), Vec::new()];
        for (stream, said) in [&mut data, &mut error].into_iter().zip(&mut said) {
            while let Some(bytes) = stream.reader.recv().await {
                said.extend_from_slice(&bytes);
            }
        }
        said.map(|said| String::from_utf8(said).unwrap())
    }

    #[tokio::test]
    async fn many_connections_share_one() {
        let (client, _tasks) = client();
        let asks = (0..40).map(|number| {
            let client = &client;
            async move { ask(client, &number.to_string(), "80", b"hello").await }
        });
        for said in futures::future::join_all(asks).await {
            assert_eq!(said, ["hello", ""]);
        }
    }

    #[tokio::test]
    async fn a_port_without_a_listener_is_told_on_the_error_stream() {
        let (client, _tasks) = client();
        let said = ask(&client, "1", "81", b"").await;
        assert_eq!(said, ["", "nobody listens on 81"]);
        assert_eq!(ask(&client, "2", "80", b"still").await, ["still", ""]);
    }

    #[tokio::test]
    async fn streams_without_a_port_are_refused() {
        let (client, _tasks) = client();
        for headers in [
            vec![("streamType", "data")],
            vec![("streamType", "data"), ("port", "0")],
            vec![("streamType", "other"), ("port", "80")],
        ] {
            let mut stream = client.handle().open(Headers::new(headers)).await.unwrap();
            assert_eq!(stream.reader.recv().await, None);
            assert!(stream.reader.was_reset());
        }
    }
}
