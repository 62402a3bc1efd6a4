//! One exec session: a process in a container, its streams pumped until it ends.

use bytes::Bytes;
use proto_api::types::core::v1::PodStatus;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tracing::debug;

use super::{StreamError, StreamHandler};
use crate::runtime::{ExecInput, ExecProcess, ExecRequest, NativeExecError};

const BLOCK_BYTES: usize = 32 * 1024;

/// What a user asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecSession {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Uid of the pod; empty for the newest of that name.
    pub uid: String,
    /// Container; empty for the only one.
    pub container: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Connect stdin.
    pub stdin: bool,
    /// Give the process a terminal; stderr then comes with stdout.
    pub tty: bool,
}

/// What comes from the user.
pub type SessionInput = ExecInput;

/// What goes to the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecOutput {
    /// From the process' stdout.
    Stdout(Bytes),
    /// From the process' stderr.
    Stderr(Bytes),
}

impl StreamHandler {
    /// Runs a command until it ends; answers its exit code. All output has been sent by then. When
    /// `output`'s receiver is dropped the process is killed. The end of `input` closes stdin.
    ///
    /// # Errors
    /// [`StreamError`] when the container does not run or the command cannot be started.
    pub async fn exec(
        &self,
        session: &ExecSession,
        input: mpsc::Receiver<SessionInput>,
        output: mpsc::Sender<ExecOutput>,
    ) -> Result<i32, StreamError> {
        let summary = self.pod(&session.namespace, &session.pod, &session.uid)?;
        if session.command.is_empty() {
            return Err(StreamError::bad_request(
                "you must specify at least 1 command for the container",
            ));
        }
        let (_, container_id) =
            running_container(&summary.status, &session.pod, &session.container)?;
        let request = ExecRequest {
            container_id,
            exec_id: format!("skep-{:016x}", self.chance.bits()),
            command: session.command.clone(),
            tty: session.tty,
            stdin: session.stdin,
        };
        let process = ExecProcess::start(&self.containerd, &self.pipes, &request).await;
        let process = process.map_err(|error| refused(&error))?;
        run(process, input, output).await
    }
}

fn refused(error: &NativeExecError) -> StreamError {
    match error {
        NativeExecError::NotRunning { .. } => StreamError::bad_request(error.to_string()),
        NativeExecError::Refused { message } => StreamError::internal(format!(
            "Internal error occurred: error executing command in container: {message}"
        )),
        NativeExecError::Pipes { .. } | NativeExecError::Spec { .. } => {
            StreamError::internal(error.to_string())
        }
    }
}

/// Name and id of the container that is meant, which must run.
pub(super) fn running_container(
    status: &PodStatus,
    pod: &str,
    wanted: &str,
) -> Result<(String, String), StreamError> {
    let mut all = status
        .container_statuses
        .iter()
        .chain(&status.init_container_statuses)
        .chain(&status.ephemeral_container_statuses);
    let found = if wanted.is_empty() {
        all.next()
    } else {
        all.find(|status| status.name == wanted)
    };
    let Some(found) = found else {
        return Err(StreamError::not_found(format!(
            "container {wanted} is not valid for pod {pod}"
        )));
    };
    let running = found
        .state
        .as_ref()
        .is_some_and(|state| state.running.is_some());
    let id = found
        .container_id
        .as_ref()
        .and_then(|id| id.strip_prefix("containerd://"));
    match id.filter(|_| running) {
        Some(id) => Ok((found.name.clone(), id.to_owned())),
        None => Err(StreamError::internal(format!(
            "container not found (\"{}\")",
            found.name
        ))),
    }
}

async fn run(
    mut process: ExecProcess,
    input: mpsc::Receiver<SessionInput>,
    output: mpsc::Sender<ExecOutput>,
) -> Result<i32, StreamError> {
    let stdout = process.take_stdout();
    let stderr = process.stderr.take();
    let mut wait = std::pin::pin!(process.wait());
    // Both directions at once: a process that answers while it reads must not stop either.
    let exit = tokio::select! {
        exit = pump_output(&mut wait, stdout, stderr, &output) => exit,
        never = pump_input(&mut process, input) => match never {},
    };
    let ended = match exit {
        Some(ended) => ended,
        None => {
            process.kill().await;
            wait.await
        }
    };
    process.delete().await;
    ended.map_err(|error| StreamError::internal(error.to_string()))
}

/// Sends output until the process has ended and all is sent; `None` when the user has gone.
async fn pump_output(
    wait: &mut (impl Future<Output = Result<i32, NativeExecError>> + Unpin),
    mut stdout: Option<pipe::Receiver>,
    mut stderr: Option<pipe::Receiver>,
    output: &mpsc::Sender<ExecOutput>,
) -> Option<Result<i32, NativeExecError>> {
    let mut out_block = vec![0_u8; BLOCK_BYTES];
    let mut err_block = vec![0_u8; BLOCK_BYTES];
    loop {
        tokio::select! {
            // Pipe reads are cancel-safe; sends happen in the arms, whole.
            read = read(&mut stdout, &mut out_block) => match read {
                0 => stdout = None,
                count => {
                    let data = Bytes::copy_from_slice(&out_block[..count]);
                    output.send(ExecOutput::Stdout(data)).await.ok()?;
                }
            },
            read = read(&mut stderr, &mut err_block) => match read {
                0 => stderr = None,
                count => {
                    let data = Bytes::copy_from_slice(&err_block[..count]);
                    output.send(ExecOutput::Stderr(data)).await.ok()?;
                }
            },
            ended = &mut *wait => {
                // Children may keep the pipes open: what is in them is read, no more is awaited.
                drain(stdout, output, ExecOutput::Stdout).await;
                drain(stderr, output, ExecOutput::Stderr).await;
                return Some(ended);
            }
            () = output.closed() => return None,
        }
    }
}

/// Hands on what the user types, for as long as it is polled.
async fn pump_input(
    process: &mut ExecProcess,
    mut input: mpsc::Receiver<SessionInput>,
) -> std::convert::Infallible {
    while let Some(event) = input.recv().await {
        take(process, event).await;
    }
    take(process, ExecInput::Close).await;
    std::future::pending().await
}

/// Bytes read; 0 at the end. Never ends for a stream that is not there.
async fn read(stream: &mut Option<pipe::Receiver>, block: &mut [u8]) -> usize {
    match stream {
        Some(stream) => stream.read(block).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

/// Sends what is in a pipe right now.
async fn drain(
    stream: Option<pipe::Receiver>,
    output: &mpsc::Sender<ExecOutput>,
    wrap: fn(Bytes) -> ExecOutput,
) {
    let Some(mut stream) = stream else { return };
    let mut block = vec![0_u8; BLOCK_BYTES];
    // The runtime copies the process' last output after its end is known.
    let patience = std::time::Duration::from_millis(500);
    while let Ok(Ok(count)) = tokio::time::timeout(patience, stream.read(&mut block)).await {
        if count == 0
            || output
                .send(wrap(Bytes::copy_from_slice(&block[..count])))
                .await
                .is_err()
        {
            return;
        }
    }
}

async fn take(process: &mut ExecProcess, event: ExecInput) {
    match event {
        ExecInput::Data(data) => {
            let Some(stdin) = &mut process.stdin else {
                return;
            };
            if let Err(error) = stdin.write_all(&data).await {
                debug!(%error, "stdin of an exec session is closed");
            }
        }
        ExecInput::Close => {
            if process.stdin.is_some()
                && let Err(error) = process.close_stdin().await
            {
                debug!(%error, "stdin of an exec session was not closed");
            }
        }
        ExecInput::Resize { width, height } => {
            if let Err(error) = process.resize(width, height).await {
                debug!(%error, "terminal not resized");
            }
        }
    }
}
