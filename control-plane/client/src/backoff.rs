//! Exponential back-off with jitter, as a value.

use std::time::Duration;

/// A doubling delay between two bounds.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Starts at `first`, doubles with each failure, never above `max`.
    #[must_use]
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self {
            first,
            max,
            failures: 0,
        }
    }

    /// The delay after one more failure, without jitter.
    pub fn next_delay(&mut self) -> Duration {
        let delay = delay_after(self.first, self.max, self.failures);
        self.failures = self.failures.saturating_add(1);
        delay
    }

    /// The delay after one more failure, spread over 50..=100 % so that many clients part ways.
    pub fn next_jittered(&mut self) -> Duration {
        self.next_delay().mul_f64(rand::random_range(0.5..=1.0))
    }

    /// Forgets the failures.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// `first` doubled `failures` times, at most `max`.
#[must_use]
pub fn delay_after(first: Duration, max: Duration, failures: u32) -> Duration {
    let factor = 1_u32.checked_shl(failures.min(31)).unwrap_or(u32::MAX);
    if failures > 31 {
        max
    } else {
        first.saturating_mul(factor).min(max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_up_to_the_bound() {
        let first = Duration::from_millis(5);
        let max = Duration::from_secs(1000);
        let delays: Vec<_> = [0, 1, 2, 10, 17, 18, 31, 32, u32::MAX]
            .into_iter()
            .map(|n| delay_after(first, max, n).as_millis())
            .collect();
        assert_eq!(
            delays,
            [
                5, 10, 20, 5_120, 655_360, 1_000_000, 1_000_000, 1_000_000, 1_000_000
            ]
        );
    }

    #[test]
    fn jitter_stays_within_half_and_whole() {
        let mut backoff = Backoff::new(Duration::from_secs(8), Duration::from_secs(8));
        for _ in 0..200 {
            let delay = backoff.next_jittered();
            assert!(delay >= Duration::from_secs(4) && delay <= Duration::from_secs(8));
        }
    }

    #[test]
    fn a_reset_starts_over() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        backoff.next_delay();
        backoff.next_delay();
        backoff.reset();
        assert_eq!(backoff.next_delay(), Duration::from_secs(1));
    }
}
