//! The stream itself: connect, apply, acknowledge, and connect again.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proto::agent::v1 as pb;
use proto::agent::v1::{node_message, server_message};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Streaming;
use tracing::{info, warn};

use super::{Link, LinkStatus, RECONNECT_PAUSE_MAX, RECONNECT_PAUSE_MIN, SessionHandler, session};
use crate::apply::Applier;
use crate::hub::{Progress, StateHub, StateWriter};

/// Protocol versions that this agent speaks.
const PROTOCOL: u32 = 1;
/// Messages to the server that wait for the connection.
const UP_QUEUE: usize = 8;
/// Heartbeat interval while the server has not named one.
const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(10);

/// Why one connection of the stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamEnd {
    #[error("{0}")]
    Refused(#[from] Box<tonic::Status>),
    #[error("the control plane closed the stream")]
    Closed,
    #[error("the control plane asked to reconnect: {0}")]
    Goaway(String),
    #[error("the control plane's welcome is wrong: {0}")]
    Welcome(String),
}

impl From<tonic::Status> for StreamEnd {
    fn from(status: tonic::Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

/// One open stream and what goes with it.
struct Connection<'a> {
    link: &'a Link,
    up: mpsc::Sender<pb::NodeMessage>,
    applier: &'a mut Applier,
    writer: &'a StateWriter,
    sessions: &'a Arc<dyn SessionHandler>,
    tasks: &'a TaskTracker,
    stop: &'a CancellationToken,
    welcomed: bool,
    acknowledged: u64,
}

/// Keeps the stream open until `stop`.
pub(super) async fn run(
    link: &Link,
    writer: &StateWriter,
    hub: &StateHub,
    sessions: &Arc<dyn SessionHandler>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let mut applier = Applier::default();
    let mut pause = RECONNECT_PAUSE_MIN;
    let mut turned = 0;
    while !stop.is_cancelled() {
        let (up, outgoing) = mpsc::channel(UP_QUEUE);
        let mut connection = Connection {
            link,
            up,
            applier: &mut applier,
            writer,
            sessions,
            tasks,
            stop,
            welcomed: false,
            acknowledged: 0,
        };
        let end = tokio::select! {
            () = stop.cancelled() => break,
            end = connection.serve(outgoing, hub) => end,
        };
        if connection.welcomed {
            pause = RECONNECT_PAUSE_MIN;
            turned = 0;
        }
        warn!(control_plane = %link.control_plane(), error = %end, "not connected; state stays in force");
        link.set_status(LinkStatus {
            connected: false,
            error: Some(end.to_string()),
        });
        turned += 1;
        // The others are tried at once, each; only when none answers is there a pause.
        if link.take_next() && turned < link.config().control_planes.len() {
            continue;
        }
        turned = 0;
        let jittered = pause.mul_f64(rand::random_range(0.5..1.0));
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(jittered) => {}
        }
        pause = (pause * 2).min(RECONNECT_PAUSE_MAX);
    }
    link.set_status(LinkStatus {
        connected: false,
        error: Some("the agent stops".into()),
    });
}

impl Connection<'_> {
    async fn serve(
        &mut self,
        outgoing: mpsc::Receiver<pb::NodeMessage>,
        hub: &StateHub,
    ) -> StreamEnd {
        match self.open(outgoing).await {
            Ok(incoming) => match self.exchange(incoming, hub).await {
                Ok(()) => StreamEnd::Closed,
                Err(end) => end,
            },
            Err(end) => end,
        }
    }

    async fn open(
        &mut self,
        outgoing: mpsc::Receiver<pb::NodeMessage>,
    ) -> Result<Streaming<pb::ServerMessage>, StreamEnd> {
        let (epoch, sequence) = self.applier.resume();
        self.acknowledged = sequence;
        let hello = pb::Hello {
            node_name: self.link.config().node_name.clone(),
            boot_id: self.link.config().boot_id.clone(),
            protocol_min: PROTOCOL,
            protocol_max: PROTOCOL,
            epoch,
            sequence,
        };
        self.send(node_message::Message::Hello(hello)).await?;
        Ok(self
            .link
            .client()
            .sync(ReceiverStream::new(outgoing))
            .await?
            .into_inner())
    }

    /// Both directions until one ends.
    async fn exchange(
        &mut self,
        mut incoming: Streaming<pb::ServerMessage>,
        hub: &StateHub,
    ) -> Result<(), StreamEnd> {
        let mut progress = hub.progress();
        let mut heartbeat = heartbeat_every(HEARTBEAT_DEFAULT);
        loop {
            // Cancel-safe: `message` of a tonic stream, `changed` and `tick` keep what they have.
            tokio::select! {
                message = incoming.message() => {
                    let Some(message) = message? else { return Ok(()) };
                    let Some(message) = message.message else { continue };
                    if let Some(period) = self.receive(message)? {
                        heartbeat = heartbeat_every(period);
                    }
                }
                changed = progress.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let now = progress.borrow_and_update().clone();
                    self.acknowledge(now).await?;
                }
                _ = heartbeat.tick() => {
                    let unix_us = unix_us(SystemTime::now());
                    self.send(node_message::Message::Heartbeat(pb::Heartbeat { unix_us })).await?;
                }
            }
        }
    }

    /// Takes one message. Answers the heartbeat interval when the message names one.
    fn receive(&mut self, message: server_message::Message) -> Result<Option<Duration>, StreamEnd> {
        match message {
            server_message::Message::Welcome(welcome) => {
                let period = Duration::from_secs(u64::from(welcome.heartbeat_seconds.max(1)));
                info!(control_plane = %self.link.control_plane(), epoch = %welcome.epoch, "connected");
                let resumed = *welcome.epoch == *self.applier.epoch();
                self.applier.welcome(welcome).map_err(StreamEnd::Welcome)?;
                if !resumed {
                    self.acknowledged = 0;
                }
                self.welcomed = true;
                self.link.set_status(LinkStatus {
                    connected: true,
                    error: None,
                });
                return Ok(Some(period));
            }
            server_message::Message::Batch(batch) => {
                for skipped in self.applier.batch(batch) {
                    warn!(error = %skipped, "part of the desired state is not in force");
                }
                self.writer.publish(self.applier.snapshot());
            }
            server_message::Message::InSync(message) => {
                self.applier.in_sync(&message);
                self.writer.publish(self.applier.snapshot());
            }
            server_message::Message::OpenSession(open) => {
                let (link, handler) = (self.link.clone(), Arc::clone(self.sessions));
                self.tasks
                    .spawn(session::run(link, open, handler, self.stop.clone()));
            }
            server_message::Message::Goaway(goaway) => {
                return Err(StreamEnd::Goaway(goaway.reason));
            }
        }
        Ok(None)
    }

    async fn acknowledge(&mut self, now: Progress) -> Result<(), StreamEnd> {
        // Before the welcome, and until every consumer has seen the new epoch, numbers are those of
        // another sequence.
        if now.epoch != self.applier.epoch() || now.sequence <= self.acknowledged {
            return Ok(());
        }
        self.acknowledged = now.sequence;
        let ack = pb::Ack {
            sequence: now.sequence,
            revision: now.revision,
            programmed_unix_us: now.programmed.map_or(0, unix_us),
        };
        self.send(node_message::Message::Ack(ack)).await
    }

    async fn send(&self, message: node_message::Message) -> Result<(), StreamEnd> {
        let message = pb::NodeMessage {
            message: Some(message),
        };
        self.up
            .send(message)
            .await
            .map_err(|_closed| StreamEnd::Closed)
    }
}

fn heartbeat_every(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

fn unix_us(time: SystemTime) -> u64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
