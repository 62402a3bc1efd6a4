//! Priority and fairness: how many requests run at a time, and who is next.
//!
//! Owns: the levels, their seats and queues. Must not know: what a request does. A request takes a
//! seat of its level or waits in its flow's queue; a level's queues are served in turn, so a flood of
//! one user delays the others of its level by one request at most, and other levels not at all.
//! Names and shares are upstream's suggested configuration.
//! Invariant: requests waiting are at most `QUEUES_MAX` x `QUEUE_LEN_MAX` a level, seats are never
//! lost (a seat is given back when it is dropped).

mod classify;
mod level;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use self::classify::Priority;
pub(crate) use self::classify::Request;
use self::classify::classify;
pub(crate) use self::level::Seat;
use self::level::{Level, Refused};
use crate::auth::User;
use crate::metrics::FlowMetrics;
use crate::status::StatusError;

/// How long a request waits for a seat.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(15);
/// When a refused client may try again.
const RETRY_AFTER_SECONDS: u32 = 1;

/// All levels.
pub(crate) struct Flow {
    levels: Vec<Arc<Level>>,
    metrics: FlowMetrics,
}

/// What a request holds while it runs: a seat, or nothing when it is exempt.
#[derive(Debug)]
pub(crate) struct Admitted {
    _seat: Option<Seat>,
}

impl Flow {
    pub(crate) fn new(metrics: FlowMetrics) -> Self {
        let levels = Priority::LIMITED
            .iter()
            .map(|priority| Arc::new(Level::new(*priority, metrics.clone())))
            .collect();
        Self { levels, metrics }
    }

    /// Waits for a seat.
    ///
    /// # Errors
    /// 429 when the queue is full, or no seat came free in time.
    pub(crate) async fn admit(
        &self,
        user: &User,
        request: Request<'_>,
    ) -> Result<Admitted, StatusError> {
        let class = classify(user, request);
        let level = self
            .levels
            .iter()
            .find(|level| level.priority() == class.priority);
        let Some(level) = level else {
            self.metrics.dispatched(class.priority, class.schema);
            return Ok(Admitted { _seat: None });
        };
        let started = Instant::now();
        match level.seat(class.flow, WAIT_MAX).await {
            Ok(seat) => {
                self.metrics.dispatched(class.priority, class.schema);
                self.metrics
                    .waited(class.priority, class.schema, started.elapsed());
                Ok(Admitted { _seat: Some(seat) })
            }
            Err(refused) => {
                self.metrics
                    .refused(class.priority, class.schema, refused.reason());
                Err(too_many(class.priority, refused))
            }
        }
    }
}

fn too_many(priority: Priority, refused: Refused) -> StatusError {
    let why = match refused {
        Refused::QueueFull => "its queue is full",
        Refused::TimedOut => "no seat came free in time",
    };
    let message = format!(
        "too many requests, please try again later: priority level {}: {why}",
        priority.name()
    );
    StatusError::too_many_requests(message, RETRY_AFTER_SECONDS)
}
