//! A command's streams as streams of a SPDY connection: clients before kubectl 1.31.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use proto_spdy::{Connection, Stream, StreamReader, StreamWriter};
use tokio::sync::mpsc;
use tracing::debug;

use super::channel::{exit_status, failure, resize};
use crate::node_streams::{ExecInput, ExecOutput, ExecRequest, ExecSession};

/// How long a client may take to open its streams.
const OPEN_WAIT: Duration = Duration::from_secs(30);
/// How long a client may take to end the connection after the last message.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// Carries both directions until the command ends or the client goes.
pub(super) async fn bridge(
    mut connection: Connection,
    drive: impl Future<Output = io::Result<()>>,
    session: ExecSession,
    wanted: &ExecRequest,
) {
    let work = async {
        let opened = Streams::accept(&mut connection, wanted);
        match tokio::time::timeout(OPEN_WAIT, opened).await {
            Ok(Some(streams)) => carry(streams, session).await,
            Ok(None) => return,
            Err(_elapsed) => debug!("the client did not open its streams"),
        }
        // With the last holder gone `drive` closes and waits for the client's close.
        drop(connection);
        let closes = std::future::pending::<()>();
        if tokio::time::timeout(CLOSE_WAIT, closes).await.is_err() {
            debug!("the client did not close its exec connection");
        }
    };
    tokio::select! {
        ended = drive => if let Err(fault) = ended {
            debug!(%fault, "exec connection broke");
        },
        () = work => {}
    }
}

/// The streams that a client opens for what it wants.
struct Streams {
    error: StreamWriter,
    stdin: Option<StreamReader>,
    stdout: Option<StreamWriter>,
    stderr: Option<StreamWriter>,
    resize: Option<StreamReader>,
}

impl Streams {
    /// `None` when the client leaves before.
    async fn accept(connection: &mut Connection, wanted: &ExecRequest) -> Option<Self> {
        let kinds = [
            ("error", true),
            ("stdin", wanted.stdin),
            ("stdout", wanted.stdout),
            ("stderr", wanted.stderr),
            ("resize", wanted.tty),
        ];
        let mut open: [Option<Stream>; 5] = Default::default();
        let missing = |open: &[Option<Stream>; 5]| {
            let mut pairs = kinds.iter().zip(open);
            pairs.any(|((_, wanted), stream)| *wanted && stream.is_none())
        };
        while missing(&open) {
            let stream = connection.accept().await?;
            let kind = stream.headers.get("streamType").to_owned();
            let at = kinds.iter().position(|(name, _)| *name == kind);
            match at {
                Some(at) => open[at] = Some(stream),
                None => stream.writer.reset().await,
            }
        }
        let [error, stdin, stdout, stderr, resize] = open;
        Some(Self {
            error: error?.writer,
            stdin: stdin.map(|stream| stream.reader),
            stdout: stdout.map(|stream| stream.writer),
            stderr: stderr.map(|stream| stream.writer),
            resize: resize.map(|stream| stream.reader),
        })
    }
}

async fn carry(streams: Streams, session: ExecSession) {
    let Streams {
        error,
        stdin,
        stdout,
        stderr,
        resize,
    } = streams;
    let ExecSession { input, output } = session;
    let incoming = async {
        tokio::join!(send_input(stdin, &input), send_sizes(resize, &input));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = send_output(output, &error, stdout, stderr) => {}
        () = incoming => {}
    }
}

async fn send_input(stdin: Option<StreamReader>, input: &mpsc::Sender<ExecInput>) {
    let Some(mut stdin) = stdin else { return };
    while let Some(bytes) = stdin.recv().await {
        if input.send(ExecInput::Stdin(bytes)).await.is_err() {
            return;
        }
    }
    if input.send(ExecInput::CloseStdin).await.is_err() {
        debug!("the command had ended before its input");
    }
}

async fn send_sizes(sizes: Option<StreamReader>, input: &mpsc::Sender<ExecInput>) {
    let Some(mut sizes) = sizes else { return };
    // Each size is written at once, one after another.
    while let Some(bytes) = sizes.recv().await {
        for line in bytes.split(|byte| *byte == b'\n') {
            if let Some(size) = resize(line)
                && input.send(size).await.is_err()
            {
                return;
            }
        }
    }
}

async fn send_output(
    mut output: mpsc::Receiver<ExecOutput>,
    error: &StreamWriter,
    stdout: Option<StreamWriter>,
    stderr: Option<StreamWriter>,
) {
    let mut status = failure("the node closed the stream");
    while let Some(said) = output.recv().await {
        let (to, bytes) = match said {
            ExecOutput::Stdout(bytes) => (&stdout, bytes),
            ExecOutput::Stderr(bytes) => (&stderr, bytes),
            ExecOutput::Exited { code } => {
                status = exit_status(code);
                break;
            }
            ExecOutput::Failed { message } => {
                status = failure(&message);
                break;
            }
        };
        if let Some(to) = to
            && to.send(bytes).await.is_err()
        {
            return;
        }
    }
    let said = error.send(Bytes::from(status.to_string())).await;
    let mut ended = said.is_ok();
    for stream in [Some(error), stdout.as_ref(), stderr.as_ref()]
        .into_iter()
        .flatten()
    {
        ended &= stream.finish().await.is_ok();
    }
    if !ended {
        debug!("exec status was not delivered");
    }
}
