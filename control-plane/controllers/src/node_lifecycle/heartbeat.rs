//! When each node was last heard of, by our own clock: a heartbeat counts when its *content* changes,
//! so a node's wrong clock does not matter.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proto_api::types::coordination::v1::Lease;
use proto_api::types::core::v1::Node;
use tokio::time::Instant;

/// Last signs of life, by node. Bounded by the nodes there are.
#[derive(Debug, Default)]
pub(super) struct Heartbeats {
    heard: Mutex<HashMap<Arc<str>, Heard>>,
}

#[derive(Debug)]
struct Heard {
    sign: (Option<String>, Option<String>),
    at: Instant,
}

impl Heartbeats {
    /// How long the node has been silent; zero when this look brings news.
    pub(super) fn silence(&self, name: &Arc<str>, node: &Node, lease: Option<&Lease>) -> Duration {
        let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.clone());
        let ready = super::plan::condition(node, "Ready");
        let heartbeat = ready.and_then(|ready| ready.last_heartbeat_time.clone());
        // Our own verdict moves no heartbeat, so it is no sign of life.
        let sign = (renewed.map(|time| time.0), heartbeat.map(|time| time.0));
        let now = Instant::now();
        let mut all = self.heard.lock();
        let heard = all.entry(Arc::clone(name)).or_insert_with(|| Heard {
            sign: sign.clone(),
            at: now,
        });
        if heard.sign != sign {
            *heard = Heard { sign, at: now };
        }
        now.duration_since(heard.at)
    }

    pub(super) fn forget(&self, name: &str) {
        self.heard.lock().remove(name);
    }
}
