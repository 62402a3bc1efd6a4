//! Pods that wait for a decision: ready, backing off, or until something changes that may help them.
//!
//! Owns: the order (priority, then arrival), the back-off of 1 s doubling to 10 s, and which change moves which
//! pod. Pure but for the wake-up: time comes in. A change that happens while a decision is under way is not
//! lost: the decision carries the number of the last change it saw.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use control_plane_client::ObjectKey;
use control_plane_client::backoff::delay_after;
use tokio::time::Instant;

use crate::cache::Freed;
use crate::plugins::PluginSet;
use crate::pod_info::PodInfo;

/// First back-off after a failed decision.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest back-off.
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A pod that nothing has helped is tried again after this.
pub const FLUSH_AFTER: Duration = Duration::from_secs(300);
/// Changes remembered for decisions under way.
const CHANGES_MAX: usize = 256;

/// A pod that waits.
#[derive(Debug, Clone)]
struct Waiting {
    info: Arc<PodInfo>,
    arrived: u64,
    attempts: u32,
}

#[derive(Debug)]
enum Place {
    Ready,
    BackingOff {
        until: Instant,
    },
    Unschedulable {
        since: Instant,
        until: Instant,
        plugins: PluginSet,
    },
    /// Handed out; `again` once it has changed meanwhile.
    Deciding {
        again: bool,
    },
}

#[derive(Debug)]
struct Entry {
    waiting: Waiting,
    place: Place,
}

/// A pod handed out for a decision.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The pod.
    pub info: Arc<PodInfo>,
    /// Number of this attempt, from 1.
    pub attempts: u32,
    /// The last change when it was handed out.
    seen: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct Turn {
    priority: i32,
    arrived: Reverse<u64>,
    key: ObjectKey,
}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.priority, &self.arrived, &other.key).cmp(&(other.priority, &other.arrived, &self.key))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// How many pods wait, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Ready for a decision.
    pub ready: usize,
    /// Backing off.
    pub backing_off: usize,
    /// Until something changes.
    pub unschedulable: usize,
}

/// All pods without a node. Bounded by the pods there are.
#[derive(Debug, Default)]
pub struct Queue {
    entries: HashMap<ObjectKey, Entry>,
    /// Turns of ready pods; those of pods that are ready no more are skipped.
    ready: BinaryHeap<Turn>,
    /// Ends of back-offs; likewise.
    backing_off: BinaryHeap<Reverse<(Instant, ObjectKey)>>,
    arrivals: u64,
    changes: u64,
    recent: BTreeMap<u64, Freed>,
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A pod waits, or has changed while it waited. A change of the pod itself may be just what it needs.
    pub fn put(&mut self, info: &Arc<PodInfo>, now: Instant) {
        let Some(entry) = self.entries.get_mut(&info.key) else {
            return self.add(info);
        };
        if entry.waiting.info.uid != info.uid {
            self.entries.remove(&info.key);
            return self.add(info);
        }
        let changed = has_changed(&entry.waiting.info, info);
        entry.waiting.info = Arc::clone(info);
        match &mut entry.place {
            Place::Deciding { again } => *again |= changed,
            Place::Unschedulable { until, .. } if changed => {
                let until = *until;
                self.release(&info.key, until, now);
            }
            Place::Unschedulable { .. } | Place::Ready | Place::BackingOff { .. } => {}
        }
    }

    /// A pod waits no more: it is bound, being deleted, or gone.
    pub fn remove(&mut self, key: &ObjectKey) {
        self.entries.remove(key);
    }

    /// Hands out the next ready pod.
    pub fn pop(&mut self, now: Instant) -> Option<Attempt> {
        self.end_backoffs(now);
        while let Some(turn) = self.ready.pop() {
            let Some(entry) = self.entries.get_mut(&turn.key) else {
                continue;
            };
            let current = entry.waiting.arrived == turn.arrived.0;
            if !current || !matches!(entry.place, Place::Ready) {
                continue;
            }
            entry.place = Place::Deciding { again: false };
            entry.waiting.attempts = entry.waiting.attempts.saturating_add(1);
            return Some(Attempt {
                info: Arc::clone(&entry.waiting.info),
                attempts: entry.waiting.attempts,
                seen: self.changes,
            });
        }
        None
    }

    /// No node would do: the pod waits for a change that may help it.
    pub fn unschedulable(&mut self, attempt: &Attempt, plugins: PluginSet, now: Instant) {
        let missed = self
            .recent
            .range(attempt.seen + 1..)
            .any(|(_, freed)| plugins.is_helped_by(*freed));
        // What is remembered no more may have been just the one.
        let forgotten = self
            .recent
            .first_key_value()
            .is_some_and(|(first, _)| *first > attempt.seen + 1)
            && self.changes - attempt.seen > CHANGES_MAX as u64;
        let until = now + backoff(attempt.attempts);
        let Some(entry) = self.entries.get_mut(&attempt.info.key) else {
            return;
        };
        let Place::Deciding { again } = entry.place else {
            return;
        };
        if again || missed || forgotten {
            self.back_off(&attempt.info.key, until);
        } else {
            entry.place = Place::Unschedulable {
                since: now,
                until,
                plugins,
            };
        }
    }

    /// The decision did not come about for another reason: once more after the back-off.
    pub fn failed(&mut self, attempt: &Attempt, now: Instant) {
        if self
            .entries
            .get(&attempt.info.key)
            .is_some_and(|e| matches!(e.place, Place::Deciding { .. }))
        {
            self.back_off(&attempt.info.key, now + backoff(attempt.attempts));
        }
    }

    /// Something became free: pods it may help come back.
    pub fn changed(&mut self, freed: Freed, now: Instant) {
        if freed == Freed::default() {
            return;
        }
        self.changes += 1;
        self.recent.insert(self.changes, freed);
        while self.recent.len() > CHANGES_MAX {
            self.recent.pop_first();
        }
        self.release_where(now, |plugins, _| plugins.is_helped_by(freed));
    }

    /// Lets go of pods that have waited long for a change.
    pub fn flush(&mut self, now: Instant) {
        self.release_where(now, |_, since| now.duration_since(since) >= FLUSH_AFTER);
    }

    /// When the next back-off ends.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.backing_off.peek().map(|Reverse((until, _))| *until)
    }

    /// Whether a pod may be ready now.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// How many pods wait, and how.
    #[must_use]
    pub fn depth(&self) -> Depth {
        let mut depth = Depth::default();
        for entry in self.entries.values() {
            match entry.place {
                Place::Ready => depth.ready += 1,
                Place::BackingOff { .. } => depth.backing_off += 1,
                Place::Unschedulable { .. } => depth.unschedulable += 1,
                Place::Deciding { .. } => {}
            }
        }
        depth
    }

    fn add(&mut self, info: &Arc<PodInfo>) {
        self.arrivals += 1;
        let waiting = Waiting {
            info: Arc::clone(info),
            arrived: self.arrivals,
            attempts: 0,
        };
        self.entries.insert(
            info.key.clone(),
            Entry {
                waiting,
                place: Place::Ready,
            },
        );
        self.push_ready(&info.key);
    }

    fn push_ready(&mut self, key: &ObjectKey) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        entry.place = Place::Ready;
        let waiting = &entry.waiting;
        self.ready.push(Turn {
            priority: waiting.info.priority,
            arrived: Reverse(waiting.arrived),
            key: key.clone(),
        });
    }

    fn back_off(&mut self, key: &ObjectKey, until: Instant) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.place = Place::BackingOff { until };
            self.backing_off.push(Reverse((until, key.clone())));
        }
    }

    fn release(&mut self, key: &ObjectKey, until: Instant, now: Instant) {
        if until > now {
            self.back_off(key, until);
        } else {
            self.push_ready(key);
        }
    }

    fn release_where(&mut self, now: Instant, helped: impl Fn(PluginSet, Instant) -> bool) {
        let released: Vec<(ObjectKey, Instant)> = self
            .entries
            .iter()
            .filter_map(|(key, entry)| match entry.place {
                Place::Unschedulable {
                    since,
                    until,
                    plugins,
                } if helped(plugins, since) => Some((key.clone(), until)),
                Place::Unschedulable { .. }
                | Place::Ready
                | Place::BackingOff { .. }
                | Place::Deciding { .. } => None,
            })
            .collect();
        for (key, until) in released {
            self.release(&key, until, now);
        }
    }

    fn end_backoffs(&mut self, now: Instant) {
        while let Some(Reverse((until, _))) = self.backing_off.peek() {
            if *until > now {
                return;
            }
            let Some(Reverse((until, key))) = self.backing_off.pop() else {
                return;
            };
            let due = self.entries.get(&key).is_some_and(
                |entry| matches!(entry.place, Place::BackingOff { until: own } if own == until),
            );
            if due {
                self.push_ready(&key);
            }
        }
    }
}

fn backoff(attempts: u32) -> Duration {
    delay_after(BACKOFF_FIRST, BACKOFF_MAX, attempts.saturating_sub(1))
}

/// Whether a pod changed in what decisions read; its status does not count.
fn has_changed(old: &PodInfo, new: &PodInfo) -> bool {
    old.pod.spec != new.pod.spec || old.pod.metadata.labels != new.pod.metadata.labels
}

#[cfg(test)]
mod tests;
