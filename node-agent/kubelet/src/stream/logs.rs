//! One log session: which file, from where, and on until the container ends.

use std::io::SeekFrom;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use proto::cri::v1 as cri;
use proto_api::types::core::v1::{ContainerStatus, PodStatus};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::mpsc;

use super::follow::DirectoryWatch;
use super::{StreamError, StreamHandler, line};

const BLOCK_BYTES: usize = 64 * 1024;
/// An entry without an end is taken as it is beyond this length.
const LINE_MAX_BYTES: usize = 1024 * 1024;
/// How often a silent container is asked whether it still runs.
const ALIVE_CHECK: Duration = Duration::from_millis(500);

/// What a user asks for; the fields are those of the API's log options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogSession {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Uid of the pod; empty for the newest of that name.
    pub uid: String,
    /// Container; empty for the only one.
    pub container: String,
    /// Go on until the container ends.
    pub follow: bool,
    /// The run before the current one.
    pub previous: bool,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Only the last lines.
    pub tail_lines: Option<u64>,
    /// End after this many bytes.
    pub limit_bytes: Option<u64>,
    /// Only lines of the last seconds.
    pub since_seconds: Option<i64>,
    /// Only lines from this time on.
    pub since_time: Option<Timestamp>,
}

impl StreamHandler {
    /// Sends the log to `output` until it ends, or until the receiver is dropped.
    ///
    /// # Errors
    /// [`StreamError`] with upstream's words when there is nothing to show.
    pub async fn logs(
        &self,
        session: &LogSession,
        output: &mpsc::Sender<Bytes>,
    ) -> Result<(), StreamError> {
        let summary = self.pod(&session.namespace, &session.pod, &session.uid)?;
        let id = container_id(&summary.status, session)?;
        let status = self.runtime.container_status(&id).await.map_err(|error| {
            StreamError::internal(format!("failed to get container status {id}: {error}"))
        })?;
        if status.log_path.is_empty() {
            return Err(StreamError::internal(format!("container {id} has no log")));
        }
        let since = session.since_time.or_else(|| {
            let seconds = session.since_seconds?;
            self.clock
                .now()
                .checked_sub(SignedDuration::from_secs(seconds))
                .ok()
        });
        let mut reader = LogReader {
            handler: self,
            path: PathBuf::from(&status.log_path),
            container_id: id,
            since,
            timestamps: session.timestamps,
            left: session.limit_bytes,
            pending: Vec::new(),
            mid_line: false,
        };
        reader.run(session, output).await.map_err(|error| {
            StreamError::internal(format!("failed to read log {}: {error}", status.log_path))
        })
    }
}

/// Which run's log is meant, in upstream's words when there is none.
fn container_id(status: &PodStatus, session: &LogSession) -> Result<String, StreamError> {
    let (pod, wanted) = (&session.pod, &session.container);
    let all = || {
        status
            .container_statuses
            .iter()
            .chain(&status.init_container_statuses)
            .chain(&status.ephemeral_container_statuses)
    };
    let found: Option<&ContainerStatus> = if wanted.is_empty() {
        status
            .container_statuses
            .first()
            .filter(|_| all().count() == 1)
    } else {
        all().find(|status| &status.name == wanted)
    };
    let Some(found) = found else {
        let names: Vec<&str> = all().map(|status| status.name.as_str()).collect();
        return Err(StreamError::bad_request(if wanted.is_empty() {
            format!(
                "a container name must be specified for pod {pod}, choose one of: [{}]",
                names.join(" ")
            )
        } else {
            format!("container {wanted} is not valid for pod {pod}")
        }));
    };
    let name = &found.name;
    let state = found.state.clone().unwrap_or_default();
    let last = found.last_state.clone().and_then(|last| last.terminated);
    let last_id = last.and_then(|last| last.container_id);
    let bare = |id: String| id.strip_prefix("containerd://").unwrap_or(&id).to_owned();
    if session.previous {
        return last_id.map(bare).ok_or_else(|| {
            StreamError::bad_request(format!(
                "previous terminated container \"{name}\" in pod \"{pod}\" not found"
            ))
        });
    }
    if state.running.is_some() || state.terminated.is_some() {
        return found.container_id.clone().map(bare).ok_or_else(|| {
            StreamError::bad_request(format!(
                "container \"{name}\" in pod \"{pod}\" is not available"
            ))
        });
    }
    if let Some(id) = last_id {
        return Ok(bare(id));
    }
    let waiting = state
        .waiting
        .and_then(|waiting| waiting.reason)
        .unwrap_or_default();
    let why = match waiting.as_str() {
        "ErrImagePull" => "image can't be pulled",
        "ImagePullBackOff" => "trying and failing to pull image",
        other => other,
    };
    Err(StreamError::bad_request(format!(
        "container \"{name}\" in pod \"{pod}\" is waiting to start: {why}"
    )))
}

struct LogReader<'a> {
    handler: &'a StreamHandler,
    path: PathBuf,
    container_id: String,
    since: Option<Timestamp>,
    timestamps: bool,
    /// Bytes that may still be sent.
    left: Option<u64>,
    /// A line whose end has not been read yet.
    pending: Vec<u8>,
    /// The last entry sent was a partial one.
    mid_line: bool,
}

/// Whether there is more to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Goes,
    Ends,
}

impl LogReader<'_> {
    async fn run(
        &mut self,
        session: &LogSession,
        output: &mpsc::Sender<Bytes>,
    ) -> std::io::Result<()> {
        // Watched before the first read: nothing written in between is missed.
        let directory = self
            .path
            .parent()
            .unwrap_or_else(|| Path::new("/"))
            .to_owned();
        let watch = if session.follow {
            Some(DirectoryWatch::new(&directory)?)
        } else {
            None
        };
        let mut file = File::open(&self.path).await?;
        if let Some(lines) = session.tail_lines {
            let lines = usize::try_from(lines).unwrap_or(usize::MAX);
            seek_tail(&mut file, lines).await?;
        }
        let mut ended = false;
        loop {
            if self.drain(&mut file, output).await? == Flow::Ends {
                return Ok(());
            }
            if let Some(next) = self.rotated(&file).await? {
                file = next;
                continue;
            }
            let Some(watch) = &watch else {
                self.flush(output).await;
                return Ok(());
            };
            if ended {
                self.flush(output).await;
                return Ok(());
            }
            tokio::select! {
                // Both are cancel-safe.
                changed = watch.changed() => changed?,
                () = output.closed() => return Ok(()),
                () = tokio::time::sleep(ALIVE_CHECK) => ended = !self.is_running().await,
            }
        }
    }

    async fn is_running(&self) -> bool {
        match self
            .handler
            .runtime
            .container_status(&self.container_id)
            .await
        {
            Ok(status) => status.state() == cri::ContainerState::ContainerRunning,
            Err(error) => !error.is_not_found(),
        }
    }

    /// The file that has taken the place of the one being read, if it was rotated.
    async fn rotated(&self, file: &File) -> std::io::Result<Option<File>> {
        let Ok(at_path) = tokio::fs::metadata(&self.path).await else {
            return Ok(None);
        };
        let open = file.metadata().await?;
        if at_path.ino() == open.ino() {
            return Ok(None);
        }
        File::open(&self.path).await.map(Some)
    }

    /// Sends what can be read now.
    async fn drain(
        &mut self,
        file: &mut File,
        output: &mpsc::Sender<Bytes>,
    ) -> std::io::Result<Flow> {
        let mut block = vec![0_u8; BLOCK_BYTES];
        loop {
            let count = file.read(&mut block).await?;
            if count == 0 {
                return Ok(Flow::Goes);
            }
            self.pending.extend_from_slice(&block[..count]);
            let end = match self.pending.iter().rposition(|byte| *byte == b'\n') {
                Some(end) => end + 1,
                None if self.pending.len() > LINE_MAX_BYTES => self.pending.len(),
                None => continue,
            };
            let rest = self.pending.split_off(end);
            let lines = std::mem::replace(&mut self.pending, rest);
            if self.send(&lines, output).await == Flow::Ends {
                return Ok(Flow::Ends);
            }
        }
    }

    /// Sends a last line without an end.
    async fn flush(&mut self, output: &mpsc::Sender<Bytes>) {
        let lines = std::mem::take(&mut self.pending);
        self.send(&lines, output).await;
    }

    async fn send(&mut self, lines: &[u8], output: &mpsc::Sender<Bytes>) -> Flow {
        let mut text = self.render(lines);
        let mut flow = Flow::Goes;
        if let Some(left) = &mut self.left {
            let most = usize::try_from(*left).unwrap_or(usize::MAX);
            if text.len() >= most {
                text.truncate(most);
                flow = Flow::Ends;
            }
            *left -= text.len() as u64;
        }
        if !text.is_empty() && output.send(Bytes::from(text)).await.is_err() {
            return Flow::Ends;
        }
        flow
    }

    fn render(&mut self, lines: &[u8]) -> Vec<u8> {
        let mut text = Vec::with_capacity(lines.len());
        for raw in lines.split_inclusive(|byte| *byte == b'\n') {
            let Some(entry) = line::parse(raw) else {
                continue;
            };
            if self.since.is_some_and(|since| entry.is_before(since)) {
                continue;
            }
            if self.timestamps && !self.mid_line {
                text.extend_from_slice(entry.time.as_bytes());
                text.push(b' ');
            }
            text.extend_from_slice(entry.content);
            if entry.is_full {
                text.push(b'\n');
            }
            self.mid_line = !entry.is_full;
        }
        text
    }
}

/// Moves to where the last lines begin, reading backwards block by block.
async fn seek_tail(file: &mut File, lines: usize) -> std::io::Result<()> {
    let length = file.seek(SeekFrom::End(0)).await?;
    let mut tail: Vec<u8> = Vec::new();
    let mut start = length;
    while start > 0 {
        let step = (BLOCK_BYTES as u64).min(start);
        start -= step;
        file.seek(SeekFrom::Start(start)).await?;
        let mut block = vec![0_u8; usize::try_from(step).unwrap_or(0)];
        file.read_exact(&mut block).await?;
        block.extend_from_slice(&tail);
        tail = block;
        let found = line::tail_start(&tail, lines);
        if found > 0 {
            start += found as u64;
            break;
        }
    }
    file.seek(SeekFrom::Start(if lines == 0 { length } else { start }))
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ask(status: serde_json::Value, container: &str, previous: bool) -> Result<String, String> {
        let status: PodStatus = serde_json::from_value(status).unwrap();
        let session = LogSession {
            pod: "p".to_owned(),
            container: container.to_owned(),
            previous,
            ..LogSession::default()
        };
        container_id(&status, &session).map_err(|error| error.message)
    }

    #[test]
    fn the_right_run_is_chosen_or_refused_in_upstream_words() {
        let running = json!({"containerStatuses": [{"name": "a", "containerID": "containerd://1",
            "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 1, "containerID": "containerd://0"}}}]});
        assert_eq!(ask(running.clone(), "a", false).unwrap(), "1");
        assert_eq!(ask(running.clone(), "", false).unwrap(), "1");
        assert_eq!(ask(running.clone(), "a", true).unwrap(), "0");
        assert_eq!(
            ask(running, "z", false).unwrap_err(),
            "container z is not valid for pod p"
        );
        let waiting = |reason: &str| {
            json!({"containerStatuses": [{"name": "a", "state": {"waiting": {"reason": reason}}},
                                          {"name": "b"}]})
        };
        assert_eq!(
            ask(waiting("ContainerCreating"), "a", false).unwrap_err(),
            "container \"a\" in pod \"p\" is waiting to start: ContainerCreating"
        );
        assert_eq!(
            ask(waiting("ImagePullBackOff"), "a", false).unwrap_err(),
            "container \"a\" in pod \"p\" is waiting to start: trying and failing to pull image"
        );
        assert_eq!(
            ask(waiting("X"), "a", true).unwrap_err(),
            "previous terminated container \"a\" in pod \"p\" not found"
        );
        assert_eq!(
            ask(waiting("X"), "", false).unwrap_err(),
            "a container name must be specified for pod p, choose one of: [a b]"
        );
    }
}
