//! What a pod worker remembers between two steps: what is in flight, what failed, how long to wait.
//!
//! Everything here may be lost with the process: the runtime's state and the last reported status
//! are enough to go on. `absorb` is the only way results get in.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::action::{Failure, Outcome};
use super::backoff::{Backoff, BackoffPolicy};
use super::observed::Observed;
use super::resize::Amounts;

/// Progress of something that is needed once and may fail.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Progress {
    #[default]
    Idle,
    InFlight,
    Done,
    Failed {
        message: String,
        retry_at: Timestamp,
    },
}

impl Progress {
    /// Whether it may be started at `now`.
    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        match self {
            Self::Idle => true,
            Self::InFlight | Self::Done => false,
            Self::Failed { retry_at, .. } => *retry_at <= now,
        }
    }

    pub(crate) fn retry_at(&self) -> Option<Timestamp> {
        match self {
            Self::Failed { retry_at, .. } => Some(*retry_at),
            Self::Idle | Self::InFlight | Self::Done => None,
        }
    }

    fn settle(result: Result<(), String>, backoff: &mut Backoff, now: Timestamp) -> Self {
        match result {
            Ok(()) => {
                backoff.clear();
                Self::Done
            }
            Err(message) => {
                backoff.advance(BackoffPolicy::PREPARATION, now);
                let retry_at = backoff.ready_at(BackoffPolicy::PREPARATION, now, now);
                Self::Failed { message, retry_at }
            }
        }
    }
}

/// How far the image of the next start is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum ImageProgress {
    #[default]
    Idle,
    InFlight,
    Ready(String),
    Failed {
        at: Timestamp,
        retry_at: Timestamp,
    },
}

/// One container name.
#[derive(Debug, Clone, Default)]
pub(crate) struct ContainerMemory {
    pub(crate) image: ImageProgress,
    pub(crate) image_backoff: Backoff,
    pub(crate) starting: bool,
    pub(crate) start_backoff: Backoff,
    pub(crate) start_retry_at: Option<Timestamp>,
    /// Delay between restarts of a container that ran.
    pub(crate) crash: Backoff,
    /// The end (finished at) for which the wait was announced.
    pub(crate) crash_announced: Option<Timestamp>,
    /// What `state.waiting` says.
    pub(crate) waiting: Option<Failure>,
    /// Attempts handed out so far: the next start takes this number.
    pub(crate) next_attempt: u32,
}

/// The pod ends: since when, until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Termination {
    pub(crate) since: Timestamp,
    /// Only ever moves closer.
    pub(crate) deadline: Timestamp,
}

/// The pod reached its end by itself (or was refused): its phase never changes again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) phase: &'static str,
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    pub(crate) volumes: Progress,
    pub(crate) volumes_backoff: Backoff,
    /// When the volumes' contents must be renewed.
    pub(crate) volumes_refresh_at: Option<Timestamp>,
    /// Contents changed: written anew as soon as no write is in flight.
    pub(crate) volumes_stale: bool,
    /// The volumes were complete once: a failing refresh does not block containers.
    pub(crate) volumes_mounted: bool,
    pub(crate) sandbox: Progress,
    pub(crate) sandbox_backoff: Backoff,
    pub(crate) next_sandbox_attempt: u32,
    pub(crate) containers: BTreeMap<String, ContainerMemory>,
    /// Stops in flight: container id to the deadline that was given.
    pub(crate) stopping: BTreeMap<String, Timestamp>,
    /// Removals and sandbox stops in flight, by id.
    pub(crate) busy: BTreeSet<String>,
    /// Calls that failed, by id: when to repeat them.
    pub(crate) retry_at: BTreeMap<String, Timestamp>,
    /// What the running containers were given, by id.
    pub(crate) amounts: BTreeMap<String, Amounts>,
    /// Why the last resize of a container failed, by id.
    pub(crate) resize_errors: BTreeMap<String, String>,
    /// Sandboxes known to be stopped and given back.
    pub(crate) stopped_sandboxes: BTreeSet<String>,
    pub(crate) termination: Option<Termination>,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) tear_down: Progress,
    pub(crate) tear_down_backoff: Backoff,
    pub(crate) forget: Progress,
    pub(crate) forget_backoff: Backoff,
}

/// Pause before a failed call on a single object is repeated.
const CALL_RETRY: jiff::SignedDuration = jiff::SignedDuration::from_secs(2);

impl Memory {
    pub(crate) fn container(&mut self, name: &str) -> &mut ContainerMemory {
        self.containers.entry(name.to_owned()).or_default()
    }

    pub(crate) fn is_starting(&self, name: &str) -> bool {
        self.containers
            .get(name)
            .is_some_and(|container| container.starting)
    }

    /// Whether any start or sandbox creation has no answer yet.
    pub(crate) fn creates_something(&self) -> bool {
        self.sandbox == Progress::InFlight || self.containers.values().any(|c| c.starting)
    }

    /// Attempt numbers never repeat, whatever this process forgot.
    pub(crate) fn learn(&mut self, observed: &Observed) {
        for sandbox in &observed.sandboxes {
            self.next_sandbox_attempt = self
                .next_sandbox_attempt
                .max(sandbox.attempt.saturating_add(1));
        }
        for container in &observed.containers {
            let memory = self.container(&container.name);
            memory.next_attempt = memory.next_attempt.max(container.attempt.saturating_add(1));
        }
    }

    /// Whether a call on this id may be made now.
    pub(crate) fn may_call(&self, id: &str, now: Timestamp) -> bool {
        !self.busy.contains(id) && self.retry_at.get(id).is_none_or(|at| *at <= now)
    }

    /// Takes in the answer to an action.
    pub(crate) fn absorb(&mut self, outcome: Outcome, now: Timestamp) {
        match outcome {
            Outcome::Volumes(result) => self.absorb_volumes(result, now),
            Outcome::Sandbox { attempt, result } => {
                self.next_sandbox_attempt =
                    self.next_sandbox_attempt.max(attempt.saturating_add(1));
                let settled = Progress::settle(result.map(drop), &mut self.sandbox_backoff, now);
                // A sandbox that was made may die later: nothing but a failure is kept.
                self.sandbox = if settled == Progress::Done {
                    Progress::Idle
                } else {
                    settled
                };
            }
            Outcome::Image { container, result } => self.absorb_image(&container, result, now),
            Outcome::Start { container, result } => self.absorb_start(&container, result, now),
            Outcome::Stop { id, result } => {
                if result.is_err() {
                    self.note_failure(&id, now);
                }
                self.stopping.remove(&id);
            }
            Outcome::Remove { id, result } | Outcome::SandboxRemove { id, result } => {
                self.busy.remove(&id);
                if result.is_err() {
                    self.note_failure(&id, now);
                }
            }
            Outcome::Resize {
                id,
                amounts,
                result,
            } => {
                self.busy.remove(&id);
                match result {
                    Ok(()) => {
                        self.resize_errors.remove(&id);
                        self.amounts.insert(id, amounts);
                    }
                    Err(message) => {
                        self.note_failure(&id, now);
                        self.resize_errors.insert(id, message);
                    }
                }
            }
            Outcome::SandboxStop { id, result } => {
                self.busy.remove(&id);
                if result.is_err() {
                    self.note_failure(&id, now);
                } else {
                    self.stopped_sandboxes.insert(id);
                }
            }
            Outcome::TearDown(result) => {
                self.tear_down = Progress::settle(result, &mut self.tear_down_backoff, now);
            }
            Outcome::Forget(result) => {
                self.forget = Progress::settle(result, &mut self.forget_backoff, now);
            }
        }
    }

    fn note_failure(&mut self, id: &str, now: Timestamp) {
        let at = now.checked_add(CALL_RETRY).unwrap_or(Timestamp::MAX);
        self.retry_at.insert(id.to_owned(), at);
    }

    fn absorb_volumes(&mut self, result: Result<Option<Timestamp>, String>, now: Timestamp) {
        match result {
            Ok(refresh_at) => {
                self.volumes_refresh_at = refresh_at;
                self.volumes_mounted = true;
                self.volumes = Progress::settle(Ok(()), &mut self.volumes_backoff, now);
            }
            Err(message) => {
                self.volumes = Progress::settle(Err(message), &mut self.volumes_backoff, now);
            }
        }
    }

    fn absorb_image(&mut self, name: &str, result: Result<String, Failure>, now: Timestamp) {
        let memory = self.container(name);
        match result {
            Ok(image_ref) => {
                memory.image = ImageProgress::Ready(image_ref);
                memory.image_backoff.clear();
                memory.waiting = None;
            }
            Err(failure) => {
                memory.image_backoff.advance(BackoffPolicy::IMAGES, now);
                let retry_at = memory
                    .image_backoff
                    .ready_at(BackoffPolicy::IMAGES, now, now);
                memory.image = ImageProgress::Failed { at: now, retry_at };
                memory.waiting = Some(failure);
            }
        }
    }

    fn absorb_start(&mut self, name: &str, result: Result<(), Failure>, now: Timestamp) {
        let memory = self.container(name);
        memory.starting = false;
        match result {
            Ok(()) => {
                memory.waiting = None;
                memory.start_backoff.clear();
                memory.start_retry_at = None;
            }
            Err(failure) => {
                memory
                    .start_backoff
                    .advance(BackoffPolicy::PREPARATION, now);
                let policy = BackoffPolicy::PREPARATION;
                memory.start_retry_at = Some(memory.start_backoff.ready_at(policy, now, now));
                memory.waiting = Some(failure);
            }
        }
    }
}
