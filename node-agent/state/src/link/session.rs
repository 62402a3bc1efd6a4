//! Log, exec and port-forward sessions that the server asks for and the agent opens.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use proto::agent::v1::{
    OpenSession, SessionDown, SessionEnd, SessionOpen, SessionUp, open_session, session_up,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tracing::{Instrument as _, debug, info_span, warn};

use super::Link;

/// Messages to the server that wait for the connection.
const UP_QUEUE: usize = 16;

/// How long the server may take to read the end of a session.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves one session.
#[async_trait]
pub trait SessionHandler: Send + Sync + 'static {
    /// Serves `request` until it ends: reads `down`, writes `up`, and answers how it ended. Dropped
    /// when the client went away.
    async fn serve(
        &self,
        request: open_session::Request,
        down: BoxStream<'static, SessionDown>,
        up: mpsc::Sender<SessionUp>,
    ) -> SessionEnd;
}

/// Opens the stream that `open` asks for and serves it.
pub(super) async fn run(
    link: Link,
    open: OpenSession,
    handler: Arc<dyn SessionHandler>,
    stop: CancellationToken,
) {
    let span = info_span!("session", id = %open.session_id);
    tokio::select! {
        () = stop.cancelled() => {}
        () = serve(link, open, handler).instrument(span) => {}
    }
}

async fn serve(link: Link, open: OpenSession, handler: Arc<dyn SessionHandler>) {
    let (up, outgoing) = mpsc::channel(UP_QUEUE);
    let first = SessionOpen {
        session_id: open.session_id,
    };
    let first = SessionUp {
        message: Some(session_up::Message::Open(first)),
    };
    if up.send(first).await.is_err() {
        return;
    }
    let incoming = match link.client().session(ReceiverStream::new(outgoing)).await {
        Ok(answer) => answer.into_inner(),
        Err(error) => {
            warn!(%error, "cannot open the session that the control plane asked for");
            return;
        }
    };
    let (relay, relayed) = mpsc::channel(UP_QUEUE);
    let mut pump = std::pin::pin!(pump(incoming, relay));
    let end = match open.request {
        Some(request) => {
            let input = ReceiverStream::new(relayed).boxed();
            tokio::select! {
                end = handler.serve(request, input, up.clone()) => end,
                () = &mut pump => return,
                () = up.closed() => return,
            }
        }
        None => SessionEnd {
            error: "this agent does not know the kind of session".into(),
            error_code: 501,
            ..SessionEnd::default()
        },
    };
    debug!(exit_code = end.exit_code, error = %end.error, "session ended");
    let last = SessionUp {
        message: Some(session_up::Message::End(end)),
    };
    if up.send(last).await.is_err() {
        debug!("the client left before the session's end");
    }
    // Leaving now would reset the stream and what is still under way on it: the server ends it.
    drop(up);
    if tokio::time::timeout(CLOSE_TIMEOUT, pump).await.is_err() {
        debug!("the control plane did not close the session");
    }
}

/// Relays input until the server ends the stream: then the client is gone.
async fn pump(mut incoming: Streaming<SessionDown>, relay: mpsc::Sender<SessionDown>) {
    while let Ok(Some(message)) = incoming.message().await {
        if relay.send(message).await.is_err() {
            debug!("the session takes no more input");
        }
    }
}
