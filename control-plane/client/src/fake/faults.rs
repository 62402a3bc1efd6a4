//! How the fake API fails: probabilities and the seeded generator that throws them.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::api::ApiError;

/// Probabilities of each failure, 0.0 to 1.0, and the longest delays.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// An update or patch is refused with 409 Conflict.
    pub conflict: f64,
    /// A request is refused with 500 and has no effect.
    pub refused: f64,
    /// A write is done and then answered with 500.
    pub lost_answer: f64,
    /// A watch ends before an event.
    pub watch_broken: f64,
    /// A watch fails with 410 before an event.
    pub watch_expired: f64,
    /// Each event waits up to this long.
    pub event_delay_max: Duration,
    /// Each write waits up to this long before it is done.
    pub request_delay_max: Duration,
}

#[derive(Debug)]
pub(super) struct Dice {
    rng: StdRng,
    faults: Faults,
}

pub(super) enum WatchFault {
    Broken,
    Expired,
}

pub(super) fn error(code: u16, reason: &str, message: String) -> ApiError {
    ApiError {
        code,
        reason: reason.to_owned(),
        message,
    }
}

impl Dice {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            faults,
        }
    }

    pub(super) fn before(&mut self, locks: bool) -> Option<ApiError> {
        if self.rng.random_bool(self.faults.refused) {
            return Some(error(500, "InternalError", "injected: refused".to_owned()));
        }
        if locks && self.rng.random_bool(self.faults.conflict) {
            return Some(error(409, "Conflict", "injected: conflict".to_owned()));
        }
        None
    }

    pub(super) fn after(&mut self) -> Option<ApiError> {
        self.rng
            .random_bool(self.faults.lost_answer)
            .then(|| error(500, "InternalError", "injected: answer lost".to_owned()))
    }

    pub(super) fn watch(&mut self) -> Option<WatchFault> {
        if self.rng.random_bool(self.faults.watch_broken) {
            return Some(WatchFault::Broken);
        }
        self.rng
            .random_bool(self.faults.watch_expired)
            .then_some(WatchFault::Expired)
    }

    pub(super) fn event_pause(&mut self) -> Duration {
        self.up_to(self.faults.event_delay_max)
    }

    pub(super) fn request_pause(&mut self) -> Duration {
        self.up_to(self.faults.request_delay_max)
    }

    fn up_to(&mut self, max: Duration) -> Duration {
        if max.is_zero() {
            Duration::ZERO
        } else {
            max.mul_f64(self.rng.random_range(0.0..1.0))
        }
    }
}
