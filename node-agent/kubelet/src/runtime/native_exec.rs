//! A process beside a container's own, with its streams as pipes: containerd's task API.
//!
//! CRI's streaming server cannot close stdin alone; named pipes and `CloseIO` can. The pipes lie in
//! a directory of the agent and are gone with the process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use containerd_client::services::v1 as native;
use nix::sys::stat::Mode;
use prost_types::Any;
use serde_json::Value;
use tokio::net::unix::pipe;
use tonic::{Code, Status};

use super::ContainerdClient;
use super::containerd::request;

const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
const CALL: Duration = Duration::from_secs(30);
const SIGKILL: u32 = 9;

/// Why a process could not be run in a container.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NativeExecError {
    #[error("container {id} is not running")]
    NotRunning { id: String },
    /// The words are those of the runtime; users know them.
    #[error("{message}")]
    Refused { message: String },
    #[error("cannot make the pipes of an exec session in {}: {source}", directory.display())]
    Pipes {
        directory: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the container runtime's description of container {id} cannot be read")]
    Spec { id: String },
}

/// What to run and which streams to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExecRequest {
    pub(crate) container_id: String,
    /// Unique among the container's processes; also the name of the pipes' directory.
    pub(crate) exec_id: String,
    pub(crate) command: Vec<String>,
    pub(crate) tty: bool,
    pub(crate) stdin: bool,
}

/// What a user types or does to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecInput {
    /// Bytes for stdin.
    Data(bytes::Bytes),
    /// The end of stdin.
    Close,
    /// The terminal's new size, in characters.
    Resize {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
}

/// A started process and our ends of its pipes.
#[derive(Debug)]
pub(crate) struct ExecProcess {
    client: ContainerdClient,
    container_id: String,
    exec_id: String,
    directory: PathBuf,
    pub(crate) stdin: Option<pipe::Sender>,
    stdout: Option<pipe::Receiver>,
    pub(crate) stderr: Option<pipe::Receiver>,
}

impl ExecProcess {
    /// Starts the process. `pipes` is a directory of the agent.
    pub(crate) async fn start(
        client: &ContainerdClient,
        pipes: &Path,
        wanted: &ExecRequest,
    ) -> Result<Self, NativeExecError> {
        let process = process_spec(client, wanted).await?;
        let directory = pipes.join(&wanted.exec_id);
        let result = Self::start_with(client, &directory, wanted, process).await;
        if result.is_err() {
            remove(&directory).await;
        }
        result
    }

    async fn start_with(
        client: &ContainerdClient,
        directory: &Path,
        wanted: &ExecRequest,
        process: Any,
    ) -> Result<Self, NativeExecError> {
        let failed = |source| NativeExecError::Pipes {
            directory: directory.to_owned(),
            source,
        };
        tokio::fs::create_dir_all(directory).await.map_err(failed)?;
        let path = |name: &str| directory.join(name);
        let text = |name: &str| path(name).to_string_lossy().into_owned();
        make_pipe(&path("stdout")).map_err(failed)?;
        // Opened before the process is: it never finds a pipe without a reader.
        let stdout = pipe::OpenOptions::new()
            .open_receiver(path("stdout"))
            .map_err(failed)?;
        let stderr = if wanted.tty {
            None
        } else {
            make_pipe(&path("stderr")).map_err(failed)?;
            Some(
                pipe::OpenOptions::new()
                    .open_receiver(path("stderr"))
                    .map_err(failed)?,
            )
        };
        let stdin = if wanted.stdin {
            make_pipe(&path("stdin")).map_err(failed)?;
            // Read-write, since the runtime opens its end only when the process starts.
            let open = pipe::OpenOptions::new()
                .read_write(true)
                .open_sender(path("stdin"));
            Some(open.map_err(failed)?)
        } else {
            None
        };
        let message = native::ExecProcessRequest {
            container_id: wanted.container_id.clone(),
            exec_id: wanted.exec_id.clone(),
            stdin: if wanted.stdin {
                text("stdin")
            } else {
                String::new()
            },
            stdout: text("stdout"),
            stderr: if wanted.tty {
                String::new()
            } else {
                text("stderr")
            },
            terminal: wanted.tty,
            spec: Some(process),
        };
        call(client.tasks().exec(request(message)), &wanted.container_id).await?;
        let started = Self {
            client: client.clone(),
            container_id: wanted.container_id.clone(),
            exec_id: wanted.exec_id.clone(),
            directory: directory.to_owned(),
            stdin,
            stdout: Some(stdout),
            stderr,
        };
        let message = native::StartRequest {
            container_id: wanted.container_id.clone(),
            exec_id: wanted.exec_id.clone(),
        };
        let answer = call(client.tasks().start(request(message)), &wanted.container_id).await;
        if let Err(error) = answer {
            started.delete().await;
            return Err(error);
        }
        Ok(started)
    }

    /// Our end of the process' stdout; once.
    pub(crate) fn take_stdout(&mut self) -> Option<pipe::Receiver> {
        self.stdout.take()
    }

    /// Waits for the end; answers the exit code.
    pub(crate) fn wait(&self) -> impl Future<Output = Result<i32, NativeExecError>> + 'static {
        let message = native::WaitRequest {
            container_id: self.container_id.clone(),
            exec_id: self.exec_id.clone(),
        };
        let mut tasks = self.client.tasks();
        async move {
            let answer = tasks.wait(request(message)).await;
            let answer = answer.map_err(|status| NativeExecError::Refused {
                message: status.message().to_owned(),
            })?;
            Ok(i32::try_from(answer.into_inner().exit_status).unwrap_or(255))
        }
    }

    /// Lets the process see the end of its stdin once it has read what was written.
    pub(crate) async fn close_stdin(&mut self) -> Result<(), NativeExecError> {
        self.stdin = None;
        let message = native::CloseIoRequest {
            container_id: self.container_id.clone(),
            exec_id: self.exec_id.clone(),
            stdin: true,
        };
        call(
            self.client.tasks().close_io(request(message)),
            &self.container_id,
        )
        .await
        .map(drop)
    }

    /// Tells the terminal's size.
    pub(crate) async fn resize(&self, width: u32, height: u32) -> Result<(), NativeExecError> {
        let message = native::ResizePtyRequest {
            container_id: self.container_id.clone(),
            exec_id: self.exec_id.clone(),
            width,
            height,
        };
        call(
            self.client.tasks().resize_pty(request(message)),
            &self.container_id,
        )
        .await
        .map(drop)
    }

    /// Kills the process, for a session whose user went away.
    pub(crate) async fn kill(&self) {
        let message = native::KillRequest {
            container_id: self.container_id.clone(),
            exec_id: self.exec_id.clone(),
            signal: SIGKILL,
            all: false,
        };
        let answer = self.client.tasks().kill(request(message)).await;
        if let Err(status) = answer
            && status.code() != Code::NotFound
        {
            tracing::warn!(exec = %self.exec_id, %status, "cannot kill the process of an exec session");
        }
    }

    /// Removes the ended process and its pipes.
    pub(crate) async fn delete(&self) {
        let message = native::DeleteProcessRequest {
            container_id: self.container_id.clone(),
            exec_id: self.exec_id.clone(),
        };
        let answer = self.client.tasks().delete_process(request(message)).await;
        if let Err(status) = answer {
            tracing::debug!(exec = %self.exec_id, %status, "exec process not deleted");
        }
        remove(&self.directory).await;
    }
}

async fn remove(directory: &Path) {
    if let Err(error) = tokio::fs::remove_dir_all(directory).await {
        tracing::debug!(directory = %directory.display(), %error, "pipes not removed");
    }
}

fn make_pipe(path: &Path) -> Result<(), std::io::Error> {
    nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).map_err(Into::into)
}

/// The container's own process with another command.
async fn process_spec(
    client: &ContainerdClient,
    wanted: &ExecRequest,
) -> Result<Any, NativeExecError> {
    let id = &wanted.container_id;
    let message = native::GetContainerRequest { id: id.clone() };
    let answer = call(client.containers().get(request(message)), id).await?;
    let unreadable = || NativeExecError::Spec { id: id.clone() };
    let spec = answer
        .container
        .and_then(|container| container.spec)
        .ok_or_else(unreadable)?;
    let mut spec: Value = serde_json::from_slice(&spec.value).map_err(|_bad| unreadable())?;
    let process = spec
        .get_mut("process")
        .and_then(Value::as_object_mut)
        .ok_or_else(unreadable)?;
    process.insert("args".to_owned(), wanted.command.clone().into());
    process.insert("terminal".to_owned(), wanted.tty.into());
    if wanted.tty
        && let Some(env) = process.get_mut("env").and_then(Value::as_array_mut)
        && !env
            .iter()
            .any(|entry| entry.as_str().is_some_and(|e| e.starts_with("TERM=")))
    {
        env.push("TERM=xterm".into());
    }
    let value = serde_json::to_vec(process).map_err(|_bad| unreadable())?;
    Ok(Any {
        type_url: PROCESS_TYPE.to_owned(),
        value,
    })
}

async fn call<T>(
    answer: impl Future<Output = Result<tonic::Response<T>, Status>>,
    container_id: &str,
) -> Result<T, NativeExecError> {
    let result = tokio::time::timeout(CALL, answer)
        .await
        .unwrap_or_else(|_elapsed| Err(Status::deadline_exceeded("containerd gave no answer")));
    result
        .map(tonic::Response::into_inner)
        .map_err(|status| match status.code() {
            Code::NotFound => NativeExecError::NotRunning {
                id: container_id.to_owned(),
            },
            _ => NativeExecError::Refused {
                message: status.message().to_owned(),
            },
        })
}
