//! One level: seats, and queues that are served in turn.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::classify::Priority;
use crate::metrics::FlowMetrics;

/// Queues of a level; a flow has one, a queue may serve several flows.
pub(super) const QUEUES_MAX: usize = 64;
/// Requests that wait in one queue.
pub(super) const QUEUE_LEN_MAX: usize = 50;

/// Why there was no seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    QueueFull,
    TimedOut,
}

impl Refused {
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::TimedOut => "time-out",
        }
    }
}

pub(super) struct Level {
    priority: Priority,
    state: Mutex<State>,
    metrics: FlowMetrics,
}

struct State {
    free: usize,
    queues: Vec<VecDeque<oneshot::Sender<Seat>>>,
    /// The queue that is served next.
    next: usize,
    waiting: usize,
}

/// The right to run. Dropping it lets the next one run.
pub(crate) struct Seat {
    level: Option<Arc<Level>>,
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let level = self.level.as_ref().map(|level| level.priority);
        f.debug_tuple("Seat").field(&level).finish()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(level) = self.level.take() {
            level.give_back();
        }
    }
}

impl Level {
    pub(super) fn new(priority: Priority, metrics: FlowMetrics) -> Self {
        Self::with_seats(priority, priority.seats(), metrics)
    }

    pub(super) fn with_seats(priority: Priority, seats: usize, metrics: FlowMetrics) -> Self {
        let state = State {
            free: seats,
            queues: (0..QUEUES_MAX).map(|_| VecDeque::new()).collect(),
            next: 0,
            waiting: 0,
        };
        Self {
            priority,
            state: Mutex::new(state),
            metrics,
        }
    }

    pub(super) const fn priority(&self) -> Priority {
        self.priority
    }

    /// Waits for a seat in the queue of `flow`.
    pub(super) async fn seat(
        self: &Arc<Self>,
        flow: &str,
        wait: Duration,
    ) -> Result<Seat, Refused> {
        let receiver = {
            let mut state = self.state.lock();
            if state.free > 0 && state.waiting == 0 {
                state.free -= 1;
                self.metrics.running(self.priority, 1);
                return Ok(Seat {
                    level: Some(Arc::clone(self)),
                });
            }
            let at = queue_of(flow);
            let queue = &mut state.queues[at];
            // Those who gave up waiting do not count.
            queue.retain(|waiter| !waiter.is_closed());
            if queue.len() >= QUEUE_LEN_MAX {
                return Err(Refused::QueueFull);
            }
            let (sender, receiver) = oneshot::channel();
            queue.push_back(sender);
            state.waiting = state.queues.iter().map(VecDeque::len).sum();
            receiver
        };
        self.metrics.waiting(self.priority, 1);
        let seat = tokio::time::timeout(wait, receiver).await;
        self.metrics.waiting(self.priority, -1);
        match seat {
            Ok(Ok(seat)) => Ok(seat),
            Ok(Err(_)) | Err(_) => Err(Refused::TimedOut),
        }
    }

    /// A seat came free: to the next in turn, or to nobody.
    fn give_back(self: &Arc<Self>) {
        let mut state = self.state.lock();
        while let Some(waiter) = state.take_next() {
            let seat = Seat {
                level: Some(Arc::clone(self)),
            };
            match waiter.send(seat) {
                Ok(()) => return,
                // It gave up: the seat is still ours, and must not come back here by its drop.
                Err(mut unwanted) => unwanted.level = None,
            }
        }
        state.free += 1;
        drop(state);
        self.metrics.running(self.priority, -1);
    }
}

impl State {
    /// The first of the next queue that has one.
    fn take_next(&mut self) -> Option<oneshot::Sender<Seat>> {
        let count = self.queues.len();
        let at = (0..count)
            .map(|step| (self.next + step) % count)
            .find(|at| !self.queues[*at].is_empty())?;
        self.next = (at + 1) % count;
        self.waiting -= 1;
        self.queues[at].pop_front()
    }
}

fn queue_of(flow: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    flow.hash(&mut hasher);
    let bucket = hasher.finish() % QUEUES_MAX as u64;
    usize::try_from(bucket).unwrap_or_default()
}
