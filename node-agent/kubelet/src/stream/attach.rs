//! One attach session: the streams of a container's own process, through the runtime.
//!
//! The runtime holds the process' pipes and hands them out over its stream server. Of the protocols
//! that it speaks SPDY is the one in which stdin can end alone.

use std::io;

use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::Empty;
use hyper::Request;
use hyper::header::{CONNECTION, HOST, UPGRADE};
use hyper_util::rt::TokioIo;
use proto::cri::v1 as cri;
use proto_spdy::{Connection, Headers, Role, Stream, StreamReader, StreamWriter};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::codec::{BytesCodec, FramedRead, FramedWrite};
use tracing::debug;

use super::exec::{ExecOutput, SessionInput, running_container};
use super::{StreamError, StreamHandler};
use crate::pod::model;

const PROTOCOL: &str = "v4.channel.k8s.io";
/// A runtime's last word is short.
const STATUS_BYTES_MAX: usize = 64 * 1024;

/// What a user asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachSession {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Uid of the pod; empty for the newest of that name.
    pub uid: String,
    /// Container; empty for the only one.
    pub container: String,
    /// Connect stdin.
    pub stdin: bool,
    /// Connect stdout.
    pub stdout: bool,
    /// Connect stderr; a container with a terminal has none.
    pub stderr: bool,
}

impl StreamHandler {
    /// Carries a container's streams until the container ends, or until `output`'s receiver is
    /// dropped. The end of `input` leaves stdin as it is; [`SessionInput::Close`] closes it.
    ///
    /// # Errors
    /// [`StreamError`] when the container does not run or the runtime refuses.
    pub async fn attach(
        &self,
        session: &AttachSession,
        input: mpsc::Receiver<SessionInput>,
        output: mpsc::Sender<ExecOutput>,
    ) -> Result<(), StreamError> {
        let summary = self.pod(&session.namespace, &session.pod, &session.uid)?;
        let (name, container_id) =
            running_container(&summary.status, &session.pod, &session.container)?;
        let found = model::any_container(model::spec(&summary.pod), &name);
        // How the container was made decides, not what the user believes.
        let tty = found.is_some_and(|(_, container)| container.tty.unwrap_or(false));
        let request = cri::AttachRequest {
            container_id,
            stdin: session.stdin,
            tty,
            stdout: session.stdout,
            stderr: session.stderr && !tty,
        };
        let url = self.runtime.attach(request.clone()).await;
        let url = url.map_err(|error| StreamError::internal(error.to_string()))?;
        let broken = |error: io::Error| {
            StreamError::internal(format!("error attaching to container: {error}"))
        };
        let (connection, drive) = dial(&url).await.map_err(broken)?;
        let streams = Streams::open(&connection, &request);
        let work = async {
            let streams = streams.await.map_err(broken)?;
            carry(streams, input, output).await
        };
        let mut work = std::pin::pin!(work);
        tokio::select! {
            ended = &mut work => ended,
            ended = drive => match ended {
                // All streams have ended too: what they hold is still to be carried.
                Ok(()) => work.await,
                Err(error) => Err(broken(error)),
            },
        }
    }
}

fn closed() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the container runtime closed the connection",
    )
}

type Drive = futures::future::BoxFuture<'static, io::Result<()>>;

/// Upgrades a connection to the runtime's stream server.
async fn dial(url: &str) -> io::Result<(Connection, Drive)> {
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let uri: hyper::Uri = url
        .parse()
        .map_err(|error| invalid(format!("the runtime named no address, {url}: {error}")))?;
    let authority = uri.authority().map(ToString::to_string);
    let authority = authority.ok_or_else(|| invalid(format!("{url} names no host")))?;
    let socket = TcpStream::connect(&authority).await?;
    socket.set_nodelay(true)?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await;
    let (mut sender, http) = handshake.map_err(io::Error::other)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header(HOST, &authority)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "SPDY/3.1")
        .header("X-Stream-Protocol-Version", PROTOCOL)
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let asked = sender.send_request(request);
    // The HTTP side ends by itself when it has handed the socket over, before or after we know.
    let mut http = std::pin::pin!(http.with_upgrades());
    let upgrade = async {
        let answer = asked.await.map_err(io::Error::other)?;
        if answer.status() != hyper::StatusCode::SWITCHING_PROTOCOLS {
            return Err(invalid(format!(
                "the runtime answered {} instead of attaching",
                answer.status()
            )));
        }
        let upgraded = hyper::upgrade::on(answer).await;
        upgraded.map_err(io::Error::other)
    };
    let mut upgrade = std::pin::pin!(upgrade);
    let upgraded = tokio::select! {
        upgraded = &mut upgrade => upgraded?,
        ended = &mut http => {
            ended.map_err(io::Error::other)?;
            upgrade.await?
        }
    };
    let (read, write) = tokio::io::split(TokioIo::new(upgraded));
    let reader = FramedRead::new(read, BytesCodec::new()).map(|read| read.map(Into::into));
    let writer = FramedWrite::new(write, BytesCodec::new());
    let (connection, drive) = Connection::new(Role::Client, reader, writer);
    Ok((connection, Box::pin(drive)))
}

/// The streams of one session, in the order in which the runtime expects them.
struct Streams {
    error: StreamReader,
    stdin: Option<StreamWriter>,
    stdout: Option<StreamReader>,
    stderr: Option<StreamReader>,
    resize: Option<StreamWriter>,
}

impl Streams {
    async fn open(connection: &Connection, wanted: &cri::AttachRequest) -> io::Result<Self> {
        let handle = connection.handle();
        let open = async |wanted: bool, kind: &str| -> io::Result<Option<Stream>> {
            if !wanted {
                return Ok(None);
            }
            let stream = handle.open(Headers::new([("streamType", kind)])).await;
            stream.map(Some).map_err(|_closed| closed())
        };
        let error = open(true, "error").await?.ok_or_else(closed)?;
        let stdin = open(wanted.stdin, "stdin").await?;
        let stdout = open(wanted.stdout, "stdout").await?;
        let stderr = open(wanted.stderr, "stderr").await?;
        let resize = open(wanted.tty, "resize").await?;
        Ok(Self {
            error: error.reader,
            stdin: stdin.map(|stream| stream.writer),
            stdout: stdout.map(|stream| stream.reader),
            stderr: stderr.map(|stream| stream.reader),
            resize: resize.map(|stream| stream.writer),
        })
    }
}

async fn carry(
    streams: Streams,
    input: mpsc::Receiver<SessionInput>,
    output: mpsc::Sender<ExecOutput>,
) -> Result<(), StreamError> {
    let Streams {
        error,
        stdin,
        stdout,
        stderr,
        resize,
    } = streams;
    let out = async {
        tokio::join!(
            relay(stdout, &output, ExecOutput::Stdout),
            relay(stderr, &output, ExecOutput::Stderr),
            last_word(error),
        )
        .2
    };
    tokio::select! {
        status = out => status,
        never = take_input(stdin, resize, input) => match never {},
        () = output.closed() => Ok(()),
    }
}

/// Sends what comes until it ends.
async fn relay(
    stream: Option<StreamReader>,
    output: &mpsc::Sender<ExecOutput>,
    wrap: fn(Bytes) -> ExecOutput,
) {
    let Some(mut stream) = stream else { return };
    while let Some(bytes) = stream.recv().await {
        if output.send(wrap(bytes)).await.is_err() {
            return;
        }
    }
}

/// What the runtime says at the end: nothing, or a Status.
async fn last_word(mut error: StreamReader) -> Result<(), StreamError> {
    let mut text = Vec::new();
    while let Some(bytes) = error.recv().await {
        let room = STATUS_BYTES_MAX.saturating_sub(text.len());
        text.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
    let status: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    match status["status"].as_str() {
        Some("Failure") => Err(StreamError::internal(
            status["message"].as_str().unwrap_or("attach failed"),
        )),
        _ => Ok(()),
    }
}

/// Hands on what the user types, for as long as it is polled.
async fn take_input(
    mut stdin: Option<StreamWriter>,
    resize: Option<StreamWriter>,
    mut input: mpsc::Receiver<SessionInput>,
) -> std::convert::Infallible {
    while let Some(event) = input.recv().await {
        let done = match event {
            SessionInput::Data(bytes) => match &stdin {
                Some(stdin) => stdin.send(bytes).await,
                None => Ok(()),
            },
            SessionInput::Close => match stdin.take() {
                Some(stdin) => stdin.finish().await,
                None => Ok(()),
            },
            SessionInput::Resize { width, height } => match &resize {
                Some(resize) => {
                    let size = serde_json::json!({"Width": width, "Height": height});
                    resize.send(Bytes::from(format!("{size}\n"))).await
                }
                None => Ok(()),
            },
        };
        if let Err(error) = done {
            debug!(%error, "an attach session takes no more input");
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request with `answer`; gives back what was asked.
    async fn serve_once(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/attach/token", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let count = socket.read(&mut asked).await.unwrap();
            socket.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&asked[..count]).into_owned()
        });
        (url, task)
    }

    #[tokio::test]
    async fn the_runtime_is_asked_for_an_upgrade() {
        let (url, task) = serve_once(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n",
        )
        .await;
        drop(dial(&url).await.unwrap());
        let asked = task.await.unwrap().to_lowercase();
        for part in [
            "post /attach/token http/1.1",
            "upgrade: spdy/3.1",
            "x-stream-protocol-version: v4.channel.k8s.io",
        ] {
            assert!(asked.contains(part), "{asked}");
        }
    }

    #[tokio::test]
    async fn a_refusal_of_the_runtime_is_told() {
        let (url, _task) = serve_once("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
        let error = dial(&url).await.map(drop).unwrap_err().to_string();
        assert!(error.contains("404 Not Found"), "{error}");
        let error = dial("not an address").await.map(drop).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("named no address"), "{error}");
    }
}
