//! A connection to a port of a pod as a stream of bytes, whatever carries it.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::node_streams::{PortInput, PortOutput, PortSession};

/// Bytes of a connection that wait in one direction.
const PIPE_BYTES: usize = 64 * 1024;
const BLOCK_BYTES: usize = 32 * 1024;

/// Why a connection broke, as soon as that is known.
pub(crate) type Failure = Arc<OnceLock<String>>;

/// `session` as a stream; a task of `tasks` carries it until both sides are done, or `stop`.
pub(crate) fn pipe(
    session: PortSession,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> (DuplexStream, Failure) {
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let failure = Failure::default();
    let (stop, told) = (stop.clone(), Arc::clone(&failure));
    tasks.spawn(async move {
        tokio::select! {
            () = carry(theirs, session, &told) => {}
            () = stop.cancelled() => {}
        }
    });
    (ours, failure)
}

/// Both directions until the pod has ended its side and the client is done.
async fn carry(io: DuplexStream, session: PortSession, failure: &OnceLock<String>) {
    let (mut read, mut write) = tokio::io::split(io);
    let PortSession { input, mut output } = session;
    let to_pod = async {
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            let message = match read.read(&mut block).await {
                Ok(0) | Err(_) => PortInput::Close,
                Ok(count) => PortInput::Data(Bytes::copy_from_slice(&block[..count])),
            };
            let last = message == PortInput::Close;
            if input.send(message).await.is_err() || last {
                return;
            }
        }
    };
    let from_pod = async {
        while let Some(said) = output.recv().await {
            let written = match said {
                PortOutput::Data(bytes) => write.write_all(&bytes).await,
                PortOutput::Closed => write.shutdown().await,
                PortOutput::Failed { message } => {
                    debug!(message, "a connection to a pod failed");
                    // The first cause is the one that matters.
                    failure.get_or_init(|| message);
                    return;
                }
            };
            if written.is_err() {
                return;
            }
        }
    };
    let mut to_pod = std::pin::pin!(to_pod);
    let mut from_pod = std::pin::pin!(from_pod);
    tokio::select! {
        () = &mut from_pod => {}
        () = &mut to_pod => from_pod.await,
    }
}
