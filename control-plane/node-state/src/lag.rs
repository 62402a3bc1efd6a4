//! How far each node is, and how long changes take to get there.
//!
//! The clock of a measurement starts when the control plane sees the change committed and stops when
//! the node says the last map was written (by the node's clock; both are one on a single machine and
//! differ by their skew otherwise, so a negative lag counts as none).

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use proto::agent::v1 as pb;

/// Measurements kept for each node.
const SAMPLES_MAX: usize = 1_024;
/// Batches under way whose start is remembered for each node.
const UNDER_WAY_MAX: usize = 1_024;

/// Where one node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeProgress {
    /// Name.
    pub node: String,
    /// Its stream is open.
    pub connected: bool,
    /// Newest change sent.
    pub sent: u64,
    /// Newest change that is in force there.
    pub applied: u64,
    /// Store revision that goes with it.
    pub revision: u64,
    /// Commit to map, over the last changes.
    pub lag: Option<Lag>,
}

/// Lag over the samples kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// Median.
    pub p50: Duration,
    /// 99th percentile.
    pub p99: Duration,
    /// Number of samples.
    pub samples: usize,
}

#[derive(Debug, Default)]
struct NodeLag {
    connected: bool,
    sent: u64,
    applied: u64,
    revision: u64,
    under_way: VecDeque<(u64, SystemTime)>,
    samples: VecDeque<Duration>,
}

/// Progress of all nodes.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    nodes: Mutex<HashMap<String, NodeLag>>,
}

impl Progress {
    pub(crate) fn connected(&self, node: &str, connected: bool) {
        let mut nodes = self.nodes.lock();
        let entry = nodes.entry(node.to_owned()).or_default();
        entry.connected = connected;
        entry.under_way.clear();
    }

    /// A batch went out. `triggered` is absent for snapshots, whose age says nothing.
    pub(crate) fn sent(&self, node: &str, sequence: u64, triggered: Option<SystemTime>) {
        let mut nodes = self.nodes.lock();
        let entry = nodes.entry(node.to_owned()).or_default();
        entry.sent = sequence;
        if let Some(triggered) = triggered {
            if entry.under_way.len() == UNDER_WAY_MAX {
                entry.under_way.pop_front();
            }
            entry.under_way.push_back((sequence, triggered));
        }
    }

    pub(crate) fn acknowledged(&self, node: &str, ack: &pb::Ack) {
        let programmed = SystemTime::UNIX_EPOCH + Duration::from_micros(ack.programmed_unix_us);
        let mut nodes = self.nodes.lock();
        let entry = nodes.entry(node.to_owned()).or_default();
        entry.applied = ack.sequence;
        entry.revision = ack.revision;
        while let Some((sequence, triggered)) = entry.under_way.front().copied() {
            if sequence > ack.sequence {
                break;
            }
            entry.under_way.pop_front();
            if entry.samples.len() == SAMPLES_MAX {
                entry.samples.pop_front();
            }
            entry
                .samples
                .push_back(programmed.duration_since(triggered).unwrap_or_default());
        }
    }

    pub(crate) fn all(&self) -> Vec<NodeProgress> {
        let nodes = self.nodes.lock();
        let mut all: Vec<NodeProgress> = nodes
            .iter()
            .map(|(name, entry)| NodeProgress {
                node: name.clone(),
                connected: entry.connected,
                sent: entry.sent,
                applied: entry.applied,
                revision: entry.revision,
                lag: lag(&entry.samples),
            })
            .collect();
        all.sort_by(|a, b| a.node.cmp(&b.node));
        all
    }
}

fn lag(samples: &VecDeque<Duration>) -> Option<Lag> {
    let mut sorted: Vec<Duration> = samples.iter().copied().collect();
    sorted.sort_unstable();
    let last = sorted.len().checked_sub(1)?;
    let at = |percent: usize| {
        sorted
            .get(last * percent / 100)
            .copied()
            .unwrap_or_default()
    };
    Some(Lag {
        p50: at(50),
        p99: at(99),
        samples: sorted.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(ms)
    }

    #[test]
    fn an_acknowledgement_measures_every_batch_that_it_covers() {
        let progress = Progress::default();
        progress.connected("a", true);
        progress.sent("a", 1, Some(at(1_000)));
        progress.sent("a", 2, Some(at(1_004)));
        progress.sent("a", 3, Some(at(1_009)));
        let ack = pb::Ack {
            sequence: 2,
            revision: 20,
            programmed_unix_us: 1_006_000,
        };
        progress.acknowledged("a", &ack);
        let node = progress.all().remove(0);
        assert_eq!((node.sent, node.applied, node.revision), (3, 2, 20));
        let lag = node.lag.unwrap();
        assert_eq!((lag.p50, lag.samples), (Duration::from_millis(2), 2));
        assert_eq!(lag.p99, Duration::from_millis(2));
    }
}
