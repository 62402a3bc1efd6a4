//! Waiting for a state with a deadline: changes when the pace of the checks changes.

use std::time::{Duration, Instant};

/// Between two checks of a state that nothing announces.
const PACE: Duration = Duration::from_millis(10);

/// Checks until there is an answer; `None` when there is none in time.
#[expect(
    clippy::disallowed_methods,
    reason = "the pace between checks; the state decides"
)]
pub(crate) fn until<T>(limit: Duration, mut check: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = check() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(PACE);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::until;

    #[test]
    fn the_state_is_checked_at_least_once() {
        assert_eq!(until(Duration::ZERO, || Some(7)), Some(7));
        assert_eq!(until(Duration::ZERO, || None::<u8>), None);
    }
}
