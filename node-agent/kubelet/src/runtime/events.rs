//! Hints that something changed at the runtime, within milliseconds.
//!
//! containerd 1.7 and later streams CRI container events; 1.6 has only its own event service, which
//! is as fast but speaks before CRI's state has changed. Both are hints: the reader looks for
//! itself. After every (re)connection a hint for all pods makes up for what was missed.

use std::collections::HashMap;
use std::time::Duration;

use containerd_client::events::{TaskExit, TaskOom, TaskStart};
use containerd_client::services::v1 as native;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::containerd::request;
use super::{ContainerdClient, CriClient, RuntimeError, labels};

const RECONNECT_FIRST: Duration = Duration::from_millis(100);
const RECONNECT_MAX: Duration = Duration::from_secs(5);
/// Container ids whose pod is remembered; then the table starts anew.
const KNOWN_IDS_MAX: usize = 4096;

/// Look at a pod, or at all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RuntimeHint {
    Pod(String),
    All,
}

/// Sends hints until cancelled or until nobody listens. Reconnects for ever.
pub(crate) async fn watch_events(
    cri: CriClient,
    containerd: ContainerdClient,
    hints: mpsc::Sender<RuntimeHint>,
    stop: CancellationToken,
) {
    let mut pause = RECONNECT_FIRST;
    loop {
        let connected = tokio::time::Instant::now();
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = stream_once(&cri, &containerd, &hints) => ended,
        };
        match ended {
            Ended::NobodyListens => return,
            Ended::Broken(reason) => warn!(%reason, "runtime event stream ended, reconnecting"),
        }
        if connected.elapsed() > RECONNECT_MAX {
            pause = RECONNECT_FIRST;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(RECONNECT_MAX);
    }
}

enum Ended {
    NobodyListens,
    Broken(String),
}

async fn stream_once(
    cri: &CriClient,
    containerd: &ContainerdClient,
    hints: &mpsc::Sender<RuntimeHint>,
) -> Ended {
    match cri.container_events().await {
        Ok(stream) => {
            info!(source = "cri", "runtime events connected");
            forward_cri(stream, hints).await
        }
        Err(RuntimeError::Unimplemented { .. }) => forward_native(containerd, hints).await,
        Err(error) => Ended::Broken(error.to_string()),
    }
}

async fn forward_cri(
    mut stream: tonic::Streaming<proto::cri::v1::ContainerEventResponse>,
    hints: &mpsc::Sender<RuntimeHint>,
) -> Ended {
    if hints.send(RuntimeHint::All).await.is_err() {
        return Ended::NobodyListens;
    }
    loop {
        match stream.message().await {
            Ok(Some(event)) => {
                let uid = event.pod_sandbox_status.and_then(|status| status.metadata);
                let hint = uid.map_or(RuntimeHint::All, |meta| RuntimeHint::Pod(meta.uid));
                if hints.send(hint).await.is_err() {
                    return Ended::NobodyListens;
                }
            }
            Ok(None) => return Ended::Broken("the runtime closed the stream".to_owned()),
            Err(status) => return Ended::Broken(status.to_string()),
        }
    }
}

async fn forward_native(containerd: &ContainerdClient, hints: &mpsc::Sender<RuntimeHint>) -> Ended {
    let topics = ["start", "exit", "oom", "paused"].map(|kind| format!("topic==\"/tasks/{kind}\""));
    let message = native::SubscribeRequest {
        filters: topics.to_vec(),
    };
    let mut stream = match containerd.events().subscribe(request(message)).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Ended::Broken(status.to_string()),
    };
    info!(source = "containerd", "runtime events connected");
    if hints.send(RuntimeHint::All).await.is_err() {
        return Ended::NobodyListens;
    }
    let mut known: HashMap<String, String> = HashMap::new();
    loop {
        let envelope = match stream.message().await {
            Ok(Some(envelope)) => envelope,
            Ok(None) => return Ended::Broken("containerd closed the stream".to_owned()),
            Err(status) => return Ended::Broken(status.to_string()),
        };
        let Some(id) = container_of(&envelope) else {
            continue;
        };
        if let Some(uid) = pod_of(containerd, &mut known, &id).await
            && hints.send(RuntimeHint::Pod(uid)).await.is_err()
        {
            return Ended::NobodyListens;
        }
    }
}

/// The container whose main process an event is about; `None` for exec processes.
fn container_of(envelope: &containerd_client::types::Envelope) -> Option<String> {
    let event = envelope.event.as_ref()?;
    match envelope.topic.as_str() {
        "/tasks/start" => TaskStart::decode(&*event.value)
            .ok()
            .map(|start| start.container_id),
        "/tasks/oom" => TaskOom::decode(&*event.value)
            .ok()
            .map(|oom| oom.container_id),
        "/tasks/exit" => {
            let exit = TaskExit::decode(&*event.value).ok()?;
            (exit.id == exit.container_id || exit.id.is_empty()).then_some(exit.container_id)
        }
        _ => None,
    }
}

async fn pod_of(
    containerd: &ContainerdClient,
    known: &mut HashMap<String, String>,
    id: &str,
) -> Option<String> {
    if let Some(uid) = known.get(id) {
        return Some(uid.clone());
    }
    let found = match containerd.container_labels(id).await {
        Ok(found) => found?.remove(labels::POD_UID)?,
        Err(status) => {
            debug!(container = id, %status, "no labels of a container with an event");
            return None;
        }
    };
    if known.len() >= KNOWN_IDS_MAX {
        known.clear();
    }
    known.insert(id.to_owned(), found.clone());
    Some(found)
}
