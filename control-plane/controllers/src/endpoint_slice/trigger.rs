//! Since when the oldest change waits that a write of endpoints brings out: the value of
//! `endpoints.kubernetes.io/last-change-trigger-time`, by which programming latency is measured.

use std::collections::HashMap;
use std::sync::Arc;

use control_plane_client::{Cached, ObjectKey};
use jiff::Timestamp;
use parking_lot::Mutex;
use proto_api::types::Time;
use proto_api::types::core::v1::{Pod, Service};

use crate::pods;

/// The annotation's name.
pub(crate) const ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The times seen so far, by Service. Bounded by the Services and pods that exist: a Service's entry goes
/// with it, a pod's with the next look at its Service.
#[derive(Debug, Default)]
pub(crate) struct Triggers {
    seen: Mutex<HashMap<ObjectKey, Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    created: Option<Timestamp>,
    pods: HashMap<String, Timestamp>,
}

impl Triggers {
    /// Notes the present times and gives the oldest that is new since the last look; `None` when
    /// nothing that has a time changed (a deletion has none).
    pub(crate) fn take(
        &self,
        service: &Cached<Service>,
        selected: &[Arc<Cached<Pod>>],
    ) -> Option<Timestamp> {
        let created = service
            .metadata
            .creation_timestamp
            .as_ref()
            .and_then(Time::timestamp);
        let pods: HashMap<String, Timestamp> = selected
            .iter()
            .filter_map(|pod| Some((pod.metadata.uid.clone()?, trigger_time(pod)?)))
            .collect();
        let mut all = self.seen.lock();
        let before = all.remove(&service.key);
        let oldest = match &before {
            None => pods.values().copied().chain(created).min(),
            Some(before) => {
                let changed = pods
                    .iter()
                    .filter(|(uid, at)| before.pods.get(*uid) < Some(*at));
                let renewed = created.filter(|_| created > before.created);
                changed.map(|(_, at)| *at).chain(renewed).min()
            }
        };
        all.insert(service.key.clone(), Seen { created, pods });
        oldest
    }

    pub(crate) fn forget(&self, service: &ObjectKey) {
        self.seen.lock().remove(service);
    }
}

fn trigger_time(pod: &Pod) -> Option<Timestamp> {
    pods::condition(pod, "Ready")?
        .last_transition_time
        .as_ref()?
        .timestamp()
}
