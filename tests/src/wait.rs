//! Waiting for a state with a deadline: changes when the pace of the checks changes.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const PACE: Duration = Duration::from_millis(50);

/// Checks until there is an answer.
/// `what`: the state that is waited for, for the message.
///
/// # Errors
/// When there is none within `limit`; the last error of the check is shown.
#[expect(
    clippy::disallowed_methods,
    reason = "the pace between checks; the state decides"
)]
pub fn until<T>(limit: Duration, what: &str, mut check: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match check() {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() >= deadline => {
                bail!("not within {} s: {what}; last: {error:#}", limit.as_secs())
            }
            Err(_) => std::thread::sleep(PACE),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::until;

    #[test]
    fn the_last_error_is_shown_when_time_is_up() {
        let error = until(Duration::ZERO, "rain", || {
            anyhow::bail!("sun") as anyhow::Result<()>
        });
        let text = error.unwrap_err().to_string();
        assert!(text.contains("rain") && text.contains("sun"), "{text}");
    }
}
