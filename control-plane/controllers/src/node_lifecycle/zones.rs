//! How fast pods may be driven off: when many nodes of a zone fail at once, the fault is more likely the
//! network's than the nodes'.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// One node in ten seconds.
const NORMAL: Duration = Duration::from_secs(10);
/// One node in hundred seconds: a large zone of which more than half has failed.
const REDUCED: Duration = Duration::from_secs(100);
const LARGE_ZONE: usize = 50;
/// Percent of failed nodes from which a zone counts as disrupted.
const DISRUPTED_PERCENT: usize = 55;

/// Nodes of a zone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Zone {
    pub(super) ready: usize,
    pub(super) failed: usize,
}

/// Pause between two nodes of a zone; `None`: no node for now.
pub(super) fn pause(zone: Zone, all: &[Zone]) -> Option<Duration> {
    let fully = |zone: &Zone| zone.ready == 0 && zone.failed > 0;
    if all.iter().all(fully) {
        return None;
    }
    let size = zone.ready + zone.failed;
    let disrupted = zone.failed > 2 && zone.failed * 100 >= DISRUPTED_PERCENT * size;
    match (fully(&zone), disrupted) {
        (true, _) | (false, false) => Some(NORMAL),
        (false, true) if size > LARGE_ZONE => Some(REDUCED),
        (false, true) => None,
    }
}

/// Spends the zones' budgets. Bounded by the zones there are.
#[derive(Debug, Default)]
pub(super) struct Budgets {
    last: Mutex<HashMap<String, Instant>>,
}

impl Budgets {
    /// Takes one node's worth; otherwise how long to wait for it.
    pub(super) fn take(&self, zone: &str, pause: Duration) -> Result<(), Duration> {
        let now = Instant::now();
        let mut all = self.last.lock();
        if let Some(last) = all.get(zone) {
            let passed = now.duration_since(*last);
            if passed < pause {
                return Err(pause - passed);
            }
        }
        all.insert(zone.to_owned(), now);
        Ok(())
    }
}
