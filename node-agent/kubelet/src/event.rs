//! Events that users read with `kubectl describe`: made here, sent in batches, never waited for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use node_agent_state::Upstream;
use parking_lot::Mutex;
use proto_api::types::Object as _;
use proto_api::types::Time;
use proto_api::types::core::v1::{Event, EventSource, ObjectReference, Pod};
use proto_api::types::meta::v1::ObjectMeta;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::clock::Clock;

/// Events that wait to be sent; more are dropped and counted.
const QUEUE_MAX: usize = 1024;
/// Events in one report.
const BATCH_MAX: usize = 64;
const BATCH_WAIT: Duration = Duration::from_millis(50);
const SEND: Duration = Duration::from_secs(10);
const LAST_SEND: Duration = Duration::from_millis(300);
/// Different events whose count is remembered.
const SERIES_MAX: usize = 2048;
/// An equal event within this time is the same event with a higher count.
const SERIES_LIFE: jiff::SignedDuration = jiff::SignedDuration::from_secs(600);

/// How serious an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal,
    Warning,
}

/// Takes events; cheap to clone.
#[derive(Clone)]
pub(crate) struct EventRecorder {
    queue: mpsc::Sender<Event>,
    series: Arc<Mutex<HashMap<String, Series>>>,
    node: Arc<str>,
    clock: Arc<dyn Clock>,
}

#[derive(Clone)]
struct Series {
    name: String,
    first: Timestamp,
    last: Timestamp,
    count: i32,
}

/// The sending half; [`EventSender::run`] drains it.
pub(crate) struct EventSender {
    queue: mpsc::Receiver<Event>,
}

impl EventRecorder {
    pub(crate) fn new(node: &str, clock: Arc<dyn Clock>) -> (Self, EventSender) {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let recorder = Self {
            queue: sender,
            series: Arc::default(),
            node: node.into(),
            clock,
        };
        (recorder, EventSender { queue: receiver })
    }

    /// An event about a pod, or about one of its containers.
    pub(crate) fn pod(
        &self,
        pod: &Pod,
        container: Option<&str>,
        kind: Kind,
        reason: &str,
        message: impl Into<String>,
    ) {
        let field_path = container.map(|name| {
            let init = crate::pod::model::spec(pod)
                .init_containers
                .iter()
                .any(|c| c.name == name);
            let list = if init { "initContainers" } else { "containers" };
            format!("spec.{list}{{{name}}}")
        });
        let object = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(pod.namespace().to_owned()),
            name: Some(pod.name().to_owned()),
            uid: Some(pod.uid().to_owned()),
            resource_version: pod.metadata.resource_version.clone(),
            field_path,
        };
        self.record(object, kind, reason, message.into());
    }

    /// An event about this node.
    pub(crate) fn node(&self, kind: Kind, reason: &str, message: impl Into<String>) {
        let object = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(self.node.to_string()),
            uid: Some(self.node.to_string()),
            ..ObjectReference::default()
        };
        self.record(object, kind, reason, message.into());
    }

    fn record(&self, object: ObjectReference, kind: Kind, reason: &str, message: String) {
        let now = self.clock.now();
        let namespace = object
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned());
        let series = self.count(&object, reason, &message, now);
        let event = Event {
            metadata: ObjectMeta {
                name: Some(series.name),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            involved_object: object,
            reason: Some(reason.to_owned()),
            message: Some(message),
            type_: Some(match kind {
                Kind::Normal => "Normal".to_owned(),
                Kind::Warning => "Warning".to_owned(),
            }),
            count: Some(series.count),
            first_timestamp: Some(Time::from(series.first)),
            last_timestamp: Some(Time::from(series.last)),
            source: Some(EventSource {
                component: Some("kubelet".to_owned()),
                host: Some(self.node.to_string()),
            }),
            reporting_component: Some("kubelet".to_owned()),
            reporting_instance: Some(self.node.to_string()),
            ..Event::default()
        };
        if let Err(error) = self.queue.try_send(event) {
            debug!(%error, "event dropped");
        }
    }

    /// Counts equal events; an equal one keeps the first one's name.
    fn count(
        &self,
        object: &ObjectReference,
        reason: &str,
        message: &str,
        now: Timestamp,
    ) -> Series {
        let key = format!(
            "{}/{}/{}/{reason}/{message}",
            object.uid.as_deref().unwrap_or_default(),
            object.name.as_deref().unwrap_or_default(),
            object.field_path.as_deref().unwrap_or_default(),
        );
        let mut series = self.series.lock();
        if series.len() >= SERIES_MAX {
            series.retain(|_, entry| now.duration_since(entry.last) < SERIES_LIFE);
        }
        if series.len() >= SERIES_MAX {
            series.clear();
        }
        let name = object.name.as_deref().unwrap_or_default();
        let fresh = || Series {
            name: format!("{name}.{:x}", now.as_nanosecond()),
            first: now,
            last: now,
            count: 0,
        };
        let entry = series.entry(key).or_insert_with(fresh);
        if now.duration_since(entry.last) >= SERIES_LIFE {
            *entry = fresh();
        }
        entry.count += 1;
        entry.last = now;
        entry.clone()
    }
}

impl EventSender {
    /// Sends events until cancelled, then once more what is left.
    pub(crate) async fn run(mut self, upstream: Arc<dyn Upstream>, stop: CancellationToken) {
        let mut batch = Vec::new();
        loop {
            let stopped = tokio::select! {
                () = stop.cancelled() => true,
                count = self.queue.recv_many(&mut batch, BATCH_MAX) => count == 0,
            };
            if stopped {
                while batch.len() < BATCH_MAX
                    && let Ok(event) = self.queue.try_recv()
                {
                    batch.push(event);
                }
            }
            if !batch.is_empty() {
                send(&*upstream, &batch, stopped).await;
            }
            batch.clear();
            if stopped {
                return;
            }
            // Lets more events gather behind the one that comes first.
            tokio::time::sleep(BATCH_WAIT).await;
        }
    }
}

/// Sends a batch. The last one, at the end of the agent, has little time.
async fn send(upstream: &dyn Upstream, batch: &[Event], last: bool) {
    let deadline = if last { LAST_SEND } else { SEND };
    let sent = tokio::time::timeout(deadline, upstream.events(batch)).await;
    match sent {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(count = batch.len(), %error, "events lost"),
        Err(_elapsed) => warn!(count = batch.len(), "events lost: no answer in time"),
    }
}
