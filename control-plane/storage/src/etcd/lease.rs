//! Leases for keys with a time to live: one serves many keys.
//!
//! etcd deletes all keys of a lease at once when it ends. A lease is reused for keys with the same
//! time to live for a twentieth of that time (at most a minute, as upstream's API server does),
//! and lives that much longer, so that no key goes early.

use std::collections::HashMap;
use std::time::Duration;

use etcd_client::{Error, LeaseClient};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Keys of one lease: their deletion is one etcd transaction.
const KEYS_PER_LEASE: u32 = 1000;
/// Longest reuse.
const REUSE_MAX: Duration = Duration::from_secs(60);
/// Between our check and etcd's write.
const SLACK: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// By time to live in seconds; what can no longer be reused is dropped.
    granted: Mutex<HashMap<u64, Granted>>,
}

#[derive(Debug)]
struct Granted {
    id: i64,
    keys: u32,
    reuse_until: Instant,
}

impl Leases {
    /// The lease for one more key that lives `ttl`.
    pub(crate) async fn id(&self, mut client: LeaseClient, ttl: Duration) -> Result<i64, Error> {
        let (seconds, reuse) = terms(ttl);
        let mut granted = self.granted.lock().await;
        let now = Instant::now();
        granted.retain(|_, lease| lease.reuse_until > now && lease.keys < KEYS_PER_LEASE);
        if let Some(lease) = granted.get_mut(&seconds) {
            lease.keys += 1;
            return Ok(lease.id);
        }
        let lives = Duration::from_secs(seconds) + reuse + SLACK;
        let lives = i64::try_from(lives.as_secs()).unwrap_or(i64::MAX);
        let id = client.grant(lives, None).await?.id();
        granted.insert(
            seconds,
            Granted {
                id,
                keys: 1,
                reuse_until: now + reuse,
            },
        );
        Ok(id)
    }

    /// Takes leases out of use that etcd does not know any more.
    pub(crate) async fn forget(&self, ids: &[Option<i64>]) {
        self.granted
            .lock()
            .await
            .retain(|_, lease| !ids.contains(&Some(lease.id)));
    }
}

/// Whole seconds, rounded up, and how long a lease for them is reused.
fn terms(ttl: Duration) -> (u64, Duration) {
    let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    (seconds, Duration::from_secs(seconds / 20).min(REUSE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_reused_for_a_twentieth_of_its_time_and_at_most_a_minute() {
        for (ttl_ms, seconds, reuse) in [
            (1, 1, 0),
            (1000, 1, 0),
            (1001, 2, 0),
            (60_000, 60, 3),
            (3_600_000, 3600, 60),
        ] {
            let expected = (seconds, Duration::from_secs(reuse));
            assert_eq!(
                terms(Duration::from_millis(ttl_ms)),
                expected,
                "{ttl_ms} ms"
            );
        }
    }
}
