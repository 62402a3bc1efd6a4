//! A node that says what it was asked and echoes what it is sent.

use async_trait::async_trait;
use bytes::Bytes;
use control_plane_apiserver::node_streams::{
    AgentAnswer, AgentRequest, EXEC_INPUT_QUEUE, EXEC_OUTPUT_QUEUE, ExecInput, ExecOutput,
    ExecRequest, ExecSession, LogRequest, LogStream, NodeStreamError, NodeStreams, PORT_QUEUE,
    PortInput, PortOutput, PortRequest, PortSession,
};
use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

pub(crate) struct EchoNodes;

#[async_trait]
impl NodeStreams for EchoNodes {
    async fn logs(&self, node: &str, request: LogRequest) -> Result<LogStream, NodeStreamError> {
        let target = &request.target;
        let head = format!(
            "{node} {}/{}/{} tail={:?} follow={}\n",
            target.namespace, target.pod, target.container, request.tail_lines, request.follow
        );
        let chunks = [Ok(Bytes::from(head)), Ok(Bytes::from_static(b"line\n"))];
        Ok(futures::stream::iter(chunks).boxed())
    }

    /// Echoes standard input until it is closed, then exits with the last argument as its code.
    async fn exec(&self, _: &str, request: ExecRequest) -> Result<ExecSession, NodeStreamError> {
        let (input, mut from_client) = mpsc::channel(EXEC_INPUT_QUEUE);
        let (to_client, output) = mpsc::channel(EXEC_OUTPUT_QUEUE);
        tokio::spawn(async move {
            while request.stdin
                && let Some(message) = from_client.recv().await
            {
                match message {
                    ExecInput::Stdin(bytes) => {
                        if to_client.send(ExecOutput::Stdout(bytes)).await.is_err() {
                            return;
                        }
                    }
                    ExecInput::CloseStdin => break,
                    ExecInput::Resize { .. } => {}
                }
            }
            let code = request
                .command
                .last()
                .and_then(|c| c.parse().ok())
                .unwrap_or_default();
            let _gone = to_client.send(ExecOutput::Exited { code }).await;
        });
        Ok(ExecSession { input, output })
    }

    /// Echoes until the client has finished, then finishes too. A pod `hook-…` is this machine.
    async fn port(&self, _: &str, asked: PortRequest) -> Result<PortSession, NodeStreamError> {
        let (input, mut from_client) = mpsc::channel(PORT_QUEUE);
        let (to_client, output) = mpsc::channel(PORT_QUEUE);
        if asked.pod.starts_with("hook-") {
            tokio::spawn(connect(asked.port, from_client, to_client));
            return Ok(PortSession { input, output });
        }
        tokio::spawn(async move {
            while let Some(PortInput::Data(bytes)) = from_client.recv().await {
                if to_client.send(PortOutput::Data(bytes)).await.is_err() {
                    return;
                }
            }
            let _gone = to_client.send(PortOutput::Closed).await;
        });
        Ok(PortSession { input, output })
    }

    async fn agent(&self, node: &str, asked: AgentRequest) -> Result<AgentAnswer, NodeStreamError> {
        let text = format!("{node} {}?{}", asked.path, asked.query);
        Ok(AgentAnswer {
            status: 200,
            content_type: "text/plain".to_owned(),
            body: futures::stream::iter([Ok(Bytes::from(text))]).boxed(),
        })
    }
}

/// Carries a connection to a port of this machine until the server ends it.
async fn connect(
    port: u16,
    mut from_client: mpsc::Receiver<PortInput>,
    to_client: mpsc::Sender<PortOutput>,
) {
    let stream = match TcpStream::connect(("127.0.0.1", port)).await {
        Ok(stream) => stream,
        Err(error) => {
            let message = error.to_string();
            let _gone = to_client.send(PortOutput::Failed { message }).await;
            return;
        }
    };
    let (mut read, mut write) = stream.into_split();
    let forth = async {
        while let Some(PortInput::Data(bytes)) = from_client.recv().await {
            if write.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    let back = async {
        let mut block = vec![0; 4096];
        while let Ok(count @ 1..) = read.read(&mut block).await {
            let bytes = Bytes::copy_from_slice(&block[..count]);
            if to_client.send(PortOutput::Data(bytes)).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = forth => {}
        () = back => {}
    }
}
