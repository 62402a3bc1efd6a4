//! Growing delays between repeats, as Kubernetes counts them.

use jiff::{SignedDuration, Timestamp};

/// First delay, growth by two, and the cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BackoffPolicy {
    pub(crate) first: SignedDuration,
    pub(crate) cap: SignedDuration,
    /// Without a failure for this long, the count starts anew.
    pub(crate) forget_after: SignedDuration,
}

impl BackoffPolicy {
    /// Restarts of crashing containers: 10 s, 20 s, ... `cap`; forgotten after 600 s.
    pub(crate) const fn restarts(cap: SignedDuration) -> Self {
        Self {
            first: SignedDuration::from_secs(10),
            cap,
            forget_after: SignedDuration::from_secs(600),
        }
    }

    /// Failed image pulls: 10 s, 20 s, ... 300 s.
    pub(crate) const IMAGES: Self = Self {
        first: SignedDuration::from_secs(10),
        cap: SignedDuration::from_secs(300),
        forget_after: SignedDuration::from_secs(600),
    };

    /// Failures on the way to a container (sandbox, volumes, configuration): 1 s, 2 s, ... 60 s.
    pub(crate) const PREPARATION: Self = Self {
        first: SignedDuration::from_secs(1),
        cap: SignedDuration::from_secs(60),
        forget_after: SignedDuration::from_secs(600),
    };
}

/// The delay that one thing has earned so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Backoff {
    current: Option<(SignedDuration, Timestamp)>,
}

impl Backoff {
    /// Delay that applies at `now`; zero when nothing is remembered.
    pub(crate) fn delay(&self, policy: BackoffPolicy, now: Timestamp) -> SignedDuration {
        match self.current {
            Some((delay, updated)) if now.duration_since(updated) <= policy.forget_after => delay,
            Some(_) | None => SignedDuration::ZERO,
        }
    }

    /// When a thing that failed at `failed_at` may be tried again.
    pub(crate) fn ready_at(
        &self,
        policy: BackoffPolicy,
        failed_at: Timestamp,
        now: Timestamp,
    ) -> Timestamp {
        failed_at
            .checked_add(self.delay(policy, now))
            .unwrap_or(Timestamp::MAX)
    }

    /// Notes one more try at `now`: the delay of the next failure grows.
    pub(crate) fn advance(&mut self, policy: BackoffPolicy, now: Timestamp) {
        let delay = self.delay(policy, now);
        let next = if delay.is_zero() {
            policy.first
        } else {
            delay
                .checked_mul(2)
                .map_or(policy.cap, |doubled| doubled.min(policy.cap))
        };
        self.current = Some((next.min(policy.cap), now));
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.current = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn the_first_restart_is_immediate_then_10_20_40_up_to_the_cap() {
        let policy = BackoffPolicy::restarts(SignedDuration::from_secs(300));
        let mut backoff = Backoff::default();
        let mut now = 0;
        let mut seen = Vec::new();
        for _ in 0..8 {
            let ready = backoff.ready_at(policy, at(now), at(now));
            seen.push(ready.duration_since(at(now)).as_secs());
            now += seen.last().unwrap();
            backoff.advance(policy, at(now));
        }
        assert_eq!(seen, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_quiet_minutes_are_forgiven_and_not_a_second_less() {
        let policy = BackoffPolicy::restarts(SignedDuration::from_secs(300));
        let mut backoff = Backoff::default();
        backoff.advance(policy, at(0));
        backoff.advance(policy, at(0));
        assert_eq!(backoff.delay(policy, at(600)).as_secs(), 20);
        assert_eq!(backoff.delay(policy, at(601)).as_secs(), 0);
    }

    #[test]
    fn a_lower_cap_is_honoured_from_the_first_delay() {
        let policy = BackoffPolicy::restarts(SignedDuration::from_secs(3));
        let mut backoff = Backoff::default();
        backoff.advance(policy, at(0));
        assert_eq!(backoff.delay(policy, at(1)).as_secs(), 3);
    }
}
