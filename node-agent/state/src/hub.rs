//! Hands snapshots to their readers and collects how far each has got.
//!
//! One writer publishes; any number of readers hold a watch channel of immutable snapshots. A
//! [`Consumer`] that makes state effective (proxy, network, DNS) says which sequence it has applied;
//! the smallest of them is what the node acknowledges.

use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::snapshot::Snapshot;

/// How far the consumers have got.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// Epoch that the sequence belongs to; empty while the consumers are not in the same one.
    pub epoch: Arc<str>,
    /// Everything up to this batch is in force.
    pub sequence: u64,
    /// Store revision that goes with it.
    pub revision: u64,
    /// When the last of them reported.
    pub programmed: Option<SystemTime>,
}

/// What one consumer said last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerState {
    /// Name it registered with.
    pub name: &'static str,
    /// Epoch of the snapshot that it applied.
    pub epoch: Arc<str>,
    /// Its sequence.
    pub sequence: u64,
    /// Its revision.
    pub revision: u64,
}

fn least(consumers: &[ConsumerState], now: SystemTime) -> Progress {
    let Some(slowest) = consumers.iter().min_by_key(|consumer| consumer.sequence) else {
        return Progress::default();
    };
    if consumers
        .iter()
        .any(|consumer| consumer.epoch != slowest.epoch)
    {
        return Progress::default();
    }
    Progress {
        epoch: Arc::clone(&slowest.epoch),
        sequence: slowest.sequence,
        revision: slowest.revision,
        programmed: Some(now),
    }
}

/// Readers' side: take snapshots, report progress. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StateHub {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    consumers: Arc<Mutex<Vec<ConsumerState>>>,
    progress: watch::Sender<Progress>,
}

/// Writer's side: there is one.
#[derive(Debug)]
pub struct StateWriter {
    snapshots: watch::Sender<Arc<Snapshot>>,
}

/// One reader that makes state effective and says so.
#[derive(Debug)]
pub struct Consumer {
    name: &'static str,
    hub: StateHub,
}

impl StateHub {
    /// A hub that holds an empty snapshot, and its one writer.
    #[must_use]
    pub fn new() -> (StateWriter, Self) {
        let (sender, receiver) = watch::channel(Arc::new(Snapshot::default()));
        let (progress, _) = watch::channel(Progress::default());
        let hub = Self {
            snapshots: receiver,
            consumers: Arc::default(),
            progress,
        };
        (StateWriter { snapshots: sender }, hub)
    }

    /// The current snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    /// A channel that wakes at every new snapshot. Fast writers are coalesced: a reader sees the
    /// newest, not each.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// Registers a consumer whose progress the node's acknowledgement waits for. Register before
    /// the source starts.
    #[must_use]
    pub fn consumer(&self, name: &'static str) -> Consumer {
        let state = ConsumerState {
            name,
            epoch: Arc::default(),
            sequence: 0,
            revision: 0,
        };
        self.consumers.lock().push(state);
        Consumer {
            name,
            hub: self.clone(),
        }
    }

    /// The least progress of all consumers, as it changes.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Progress of each consumer.
    #[must_use]
    pub fn consumers(&self) -> Vec<ConsumerState> {
        self.consumers.lock().clone()
    }

    fn report(&self, name: &'static str, snapshot: &Snapshot) {
        let least = {
            let mut consumers = self.consumers.lock();
            for consumer in consumers
                .iter_mut()
                .filter(|consumer| consumer.name == name)
            {
                consumer.epoch = Arc::clone(&snapshot.epoch);
                consumer.sequence = snapshot.sequence;
                consumer.revision = snapshot.revision;
            }
            least(&consumers, SystemTime::now())
        };
        self.progress.send_if_modified(|current| {
            let changed = (&current.epoch, current.sequence) != (&least.epoch, least.sequence);
            if changed {
                *current = least;
            }
            changed
        });
    }
}

impl StateWriter {
    /// Publishes the next snapshot.
    pub fn publish(&self, snapshot: Arc<Snapshot>) {
        self.snapshots.send_replace(snapshot);
    }
}

impl Consumer {
    /// Everything in `snapshot` is in force as far as this consumer goes.
    pub fn applied(&self, snapshot: &Snapshot) {
        self.hub.report(self.name, snapshot);
    }

    /// Name it registered with.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(sequence: u64) -> Snapshot {
        Snapshot {
            sequence,
            revision: sequence * 10,
            ..Snapshot::default()
        }
    }

    #[test]
    fn progress_is_that_of_the_slowest_consumer() {
        let (_writer, hub) = StateHub::new();
        let proxy = hub.consumer("proxy");
        let dns = hub.consumer("dns");
        proxy.applied(&at(3));
        assert_eq!(hub.progress().borrow().sequence, 0);
        dns.applied(&at(2));
        assert_eq!(hub.progress().borrow().sequence, 2);
        assert_eq!(hub.progress().borrow().revision, 20);
        dns.applied(&at(5));
        assert_eq!(hub.progress().borrow().sequence, 3);
    }

    #[test]
    fn consumers_in_different_epochs_acknowledge_nothing() {
        let (_writer, hub) = StateHub::new();
        let (proxy, dns) = (hub.consumer("proxy"), hub.consumer("dns"));
        let (old, new) = (
            at(9),
            Snapshot {
                epoch: "new".into(),
                ..at(1)
            },
        );
        proxy.applied(&old);
        dns.applied(&old);
        assert_eq!(hub.progress().borrow().sequence, 9);
        proxy.applied(&new);
        assert_eq!(hub.progress().borrow().sequence, 0);
        dns.applied(&new);
        assert_eq!(
            (
                &*hub.progress().borrow().epoch,
                hub.progress().borrow().sequence
            ),
            ("new", 1)
        );
    }

    #[test]
    fn a_reader_sees_the_newest_snapshot_and_keeps_the_one_it_took() {
        let (writer, hub) = StateHub::new();
        writer.publish(Arc::new(at(1)));
        let taken = hub.snapshot();
        writer.publish(Arc::new(at(2)));
        writer.publish(Arc::new(at(3)));
        assert_eq!(taken.sequence, 1);
        assert_eq!(hub.snapshot().sequence, 3);
    }
}
