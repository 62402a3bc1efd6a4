//! Records what controllers did as core/v1 Events, without ever holding them up.
//!
//! Owns: the queue and the writing. What becomes of an event (new, one more of the same, merged, none)
//! is decided by `correlate`. A full queue or a spent budget drops the event and counts it: events
//! inform, nothing depends on them.

mod correlate;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proto_api::types::Object as TypedObject;
use proto_api::types::Time;
use proto_api::types::core::v1::{Event, EventSource, ObjectReference};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::correlate::{Correlator, Verdict};
use crate::api::{Api, ApiError, ObjectKey, Patch};
use crate::clock::Clock;
use crate::kind::Kind;
use crate::resources::EVENTS;

/// Events that wait to be written at most.
pub const QUEUE_MAX: usize = 4096;
/// Longest message; longer ones are cut.
const MESSAGE_MAX: usize = 1024;

/// Whether an event is worth attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Things go as they should.
    Normal,
    /// Something needs a look.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    regarding: ObjectReference,
    component: &'static str,
    event_type: EventType,
    reason: &'static str,
    message: String,
}

/// Accepts events of one component.
#[derive(Debug, Clone)]
pub struct EventRecorder {
    queue: mpsc::Sender<Note>,
    component: &'static str,
    dropped: Arc<AtomicU64>,
}

impl EventRecorder {
    /// The same queue under another component's name.
    #[must_use]
    pub fn for_component(&self, component: &'static str) -> Self {
        Self {
            queue: self.queue.clone(),
            component,
            dropped: Arc::clone(&self.dropped),
        }
    }

    /// Notes an event about `regarding`. Never waits.
    pub fn record(
        &self,
        regarding: ObjectReference,
        event_type: EventType,
        reason: &'static str,
        mut message: String,
    ) {
        if message.len() > MESSAGE_MAX {
            let cut = (0..=MESSAGE_MAX)
                .rev()
                .find(|at| message.is_char_boundary(*at));
            message.truncate(cut.unwrap_or(0));
        }
        let note = Note {
            regarding,
            component: self.component,
            event_type,
            reason,
            message,
        };
        if self.queue.try_send(note).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Events dropped because the queue was full, since start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The reference by which an event names `object`.
pub fn reference<K: Kind>(object: &K) -> ObjectReference {
    let metadata = TypedObject::metadata(object);
    ObjectReference {
        api_version: Some(K::API_VERSION.to_owned()),
        kind: Some(K::KIND.to_owned()),
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
        ..ObjectReference::default()
    }
}

/// Writes what recorders note.
pub struct EventWriter {
    api: Arc<dyn Api>,
    clock: Clock,
    notes: mpsc::Receiver<Note>,
    correlator: Correlator,
}

impl std::fmt::Debug for EventWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventWriter").finish_non_exhaustive()
    }
}

/// A recorder and the writer behind it.
#[must_use]
pub fn channel(
    api: Arc<dyn Api>,
    clock: Clock,
    component: &'static str,
) -> (EventRecorder, EventWriter) {
    let (queue, notes) = mpsc::channel(QUEUE_MAX);
    let recorder = EventRecorder {
        queue,
        component,
        dropped: Arc::default(),
    };
    (
        recorder,
        EventWriter {
            api,
            clock,
            notes,
            correlator: Correlator::new(),
        },
    )
}

impl EventWriter {
    /// Writes until `shutdown` or until the last recorder is gone.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let note = tokio::select! {
                () = shutdown.cancelled() => return,
                note = self.notes.recv() => note,
            };
            let Some(note) = note else { return };
            if let Err(error) = self.write(&note).await {
                debug!(reason = note.reason, %error, "event not written");
            }
        }
    }

    async fn write(&mut self, note: &Note) -> Result<(), ApiError> {
        match self.correlator.take(note, Instant::now()) {
            Verdict::Drop => Ok(()),
            Verdict::Again { name, count } => self.count_up(note, &name, count).await,
            Verdict::New { id, message } => self.create(note, id, message).await,
        }
    }

    async fn count_up(&mut self, note: &Note, name: &str, count: i32) -> Result<(), ApiError> {
        let key = ObjectKey::new(namespace(note), name);
        let last = Time::from_timestamp(self.clock.now());
        let patch = Patch::Merge(json!({"count": count, "lastTimestamp": last}));
        match self.api.patch(EVENTS, &key, None, patch).await {
            Ok(_) => Ok(()),
            // It has expired meanwhile: start a new one.
            Err(error) if error.is_not_found() => {
                self.correlator.forget(note);
                match self.correlator.take(note, Instant::now()) {
                    Verdict::New { id, message } => self.create(note, id, message).await,
                    Verdict::Again { .. } | Verdict::Drop => Ok(()),
                }
            }
            Err(error) => Err(error),
        }
    }

    async fn create(
        &mut self,
        note: &Note,
        id: correlate::EventId,
        message: String,
    ) -> Result<(), ApiError> {
        let at = self.clock.now();
        let name = event_name(note, at);
        let mut event = Event {
            involved_object: note.regarding.clone(),
            reason: Some(note.reason.to_owned()),
            message: Some(message),
            type_: Some(note.event_type.as_str().to_owned()),
            count: Some(1),
            first_timestamp: Some(Time::from_timestamp(at)),
            last_timestamp: Some(Time::from_timestamp(at)),
            source: Some(EventSource {
                component: Some(note.component.to_owned()),
                ..EventSource::default()
            }),
            reporting_component: Some(note.component.to_owned()),
            ..Event::default()
        };
        event.metadata.name = Some(name.clone());
        event.metadata.namespace = Some(namespace(note).to_owned());
        let body = serde_json::to_value(&event).map_err(|error| ApiError {
            code: 500,
            reason: "InternalError".to_owned(),
            message: format!("event does not encode: {error}"),
        })?;
        self.api.create(EVENTS, namespace(note), body).await?;
        self.correlator.written(id, name);
        Ok(())
    }
}

/// Events about cluster-scoped objects live in `default`.
fn namespace(note: &Note) -> &str {
    note.regarding
        .namespace
        .as_deref()
        .filter(|ns| !ns.is_empty())
        .unwrap_or("default")
}

/// `<object>.<time in hex>`, as every component of Kubernetes names its events.
fn event_name(note: &Note, at: jiff::Timestamp) -> String {
    let object = note.regarding.name.as_deref().unwrap_or("unknown");
    format!("{object}.{:x}", at.as_nanosecond())
}

#[cfg(test)]
mod tests;
