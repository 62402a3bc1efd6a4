//! Wall time as a value, so that tests move it.
//!
//! Owns: the choice between the machine's clock and one that follows tokio's (pausable) time.

use jiff::Timestamp;
use tokio::time::Instant;

/// Where `now` comes from.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Source);

#[derive(Debug, Clone, Copy)]
enum Source {
    System,
    Tokio { base: Timestamp, start: Instant },
}

impl Clock {
    /// The machine's wall clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that shows `base` now and moves with tokio's time: tests pause and advance it.
    #[must_use]
    pub fn following_tokio(base: Timestamp) -> Self {
        Self(Source::Tokio {
            base,
            start: Instant::now(),
        })
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match self.0 {
            Source::System => Timestamp::now(),
            Source::Tokio { base, start } => {
                base.checked_add(start.elapsed()).unwrap_or(Timestamp::MAX)
            }
        }
    }
}

/// Text of `metav1.Time`: whole seconds, UTC.
#[must_use]
pub fn rfc3339_seconds(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second())
        .unwrap_or(at)
        .to_string()
}

/// Text of `metav1.MicroTime`: six digits after the second, UTC.
#[must_use]
pub fn rfc3339_micros(at: Timestamp) -> String {
    format!("{at:.6}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_following_clock_moves_with_paused_time() {
        let base = Timestamp::from_second(1_000).expect("in range");
        let clock = Clock::following_tokio(base);
        tokio::time::advance(std::time::Duration::from_secs(5)).await;
        assert_eq!(clock.now().as_second(), 1_005);
    }

    #[test]
    fn times_are_written_as_kubernetes_writes_them() {
        let at = Timestamp::from_nanosecond(1_700_000_000_123_456_789).expect("in range");
        assert_eq!(rfc3339_seconds(at), "2023-11-14T22:13:20Z");
        assert_eq!(rfc3339_micros(at), "2023-11-14T22:13:20.123456Z");
    }
}
