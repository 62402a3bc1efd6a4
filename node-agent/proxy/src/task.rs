//! Runs the reconciler: wakes at every new snapshot, at retries and when a rest ends.
//!
//! There is no timer before the first change: a snapshot is taken at once, and those that come while
//! it is written are taken together. The reconciler itself runs on a blocking thread, since a full
//! build of many services takes milliseconds.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use node_agent_datapath::maps::{MapError, ServiceMaps};
use node_agent_state::{Consumer, Snapshot, StateHub};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ProxyConfig;
use crate::lag::LagHistogram;
use crate::names::Names;
use crate::reconciler::{Outcome, Reconciler};

/// Least time between two writes of the names file.
const NAMES_EVERY: Duration = Duration::from_secs(1);

/// What the proxy says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyStatus {
    pub revision_seen: u64,
    pub revision_applied: u64,
    pub services: usize,
    /// Rounds with at least one failed write, and failed writes.
    pub failed_rounds: u64,
    pub failed_writes: u64,
    /// Services for which the maps have no room.
    pub without_room: usize,
    /// Of the last round; `None` when it went well.
    pub last_error: Option<String>,
    pub lag: LagHistogram,
}

/// The proxy's handle for others: status and names. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Proxy {
    status: Arc<Mutex<ProxyStatus>>,
    names: Names,
}

impl Proxy {
    /// The current status.
    #[must_use]
    pub fn status(&self) -> ProxyStatus {
        self.status.lock().clone()
    }

    /// Names of map elements.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }
}

/// A proxy that is ready to run.
#[derive(Debug)]
pub struct ProxyTask<M> {
    reconciler: Reconciler<M>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    consumer: Consumer,
    proxy: Proxy,
    names_file: Option<PathBuf>,
    started: Instant,
}

impl<M: ServiceMaps + 'static> ProxyTask<M> {
    /// Registers with the tables and takes over the maps. Call it before the tables' source starts.
    /// `names_file`: where to keep names for the time when no agent runs.
    /// # Errors
    /// [`MapError`] when the maps cannot be read.
    pub fn new(
        hub: &StateHub,
        maps: M,
        config: &ProxyConfig,
        names_file: Option<PathBuf>,
    ) -> Result<Self, MapError> {
        let reconciler = Reconciler::new(maps, config, Duration::ZERO)?;
        let proxy = Proxy {
            status: Arc::default(),
            names: reconciler.names(),
        };
        Ok(Self {
            reconciler,
            snapshots: hub.subscribe(),
            consumer: hub.consumer("proxy"),
            proxy,
            names_file,
            started: Instant::now(),
        })
    }

    /// Status and names.
    #[must_use]
    pub fn proxy(&self) -> Proxy {
        self.proxy.clone()
    }

    /// Runs until `stop`, or until the tables' source is gone. What is in the maps stays in force.
    pub async fn run(self, stop: CancellationToken) {
        let Self {
            mut reconciler,
            mut snapshots,
            consumer,
            proxy,
            names_file,
            started,
        } = self;
        let mut names = NamesFile::new(names_file);
        loop {
            let snapshot = Arc::clone(&snapshots.borrow_and_update());
            let round = Arc::clone(&snapshot);
            let work = tokio::task::spawn_blocking(move || {
                reconciler.observe(&round);
                let outcome = reconciler.reconcile(started.elapsed());
                let applied = outcome
                    .applied
                    .then(|| reconciler.set_applied(round.revision));
                (reconciler, outcome, applied)
            });
            let Ok((back, outcome, applied)) = work.await else {
                tracing::error!("the reconciler has panicked: services no longer follow changes");
                return;
            };
            reconciler = back;
            if let Some(Err(error)) = applied {
                tracing::debug!(error = %error, "revision not recorded in the maps");
            }
            report(&proxy, &consumer, &snapshot, &reconciler, &outcome);
            let due = earliest(outcome.wake_at, names.due(&proxy.names, started.elapsed()))
                .map(|at| started + at);
            // All three are cancel-safe: nothing is taken out of the channel by waiting.
            tokio::select! {
                () = stop.cancelled() => break,
                changed = snapshots.changed() => if changed.is_err() { break },
                () = until(due) => {}
            }
            names.write_if_due(&proxy.names, started.elapsed()).await;
        }
        names.write(&proxy.names).await;
    }
}

fn earliest(first: Option<Duration>, second: Option<Duration>) -> Option<Duration> {
    first.into_iter().chain(second).min()
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

fn report<M: ServiceMaps>(
    proxy: &Proxy,
    consumer: &Consumer,
    snapshot: &Snapshot,
    reconciler: &Reconciler<M>,
    outcome: &Outcome,
) {
    let mut status = proxy.status.lock();
    status.revision_seen = snapshot.revision;
    status.services = reconciler.services();
    status.failed_writes += u64::try_from(outcome.failed).unwrap_or(0);
    status.failed_rounds += u64::from(outcome.failed > 0);
    status.without_room = outcome.without_room;
    status.last_error.clone_from(&outcome.last_error);
    if !outcome.applied {
        return;
    }
    let news = status.revision_applied != snapshot.revision;
    status.revision_applied = snapshot.revision;
    if news
        && outcome.changed > 0
        && snapshot.in_sync
        && let Some(triggered) = snapshot.triggered
        && let Ok(lag) = SystemTime::now().duration_since(triggered)
    {
        status.lag.record(lag);
    }
    drop(status);
    consumer.applied(snapshot);
}

/// Keeps names in a file, not more often than [`NAMES_EVERY`].
#[derive(Debug)]
struct NamesFile {
    path: Option<PathBuf>,
    version: u64,
    next: Duration,
}

impl NamesFile {
    fn new(path: Option<PathBuf>) -> Self {
        Self {
            path,
            version: 0,
            next: Duration::ZERO,
        }
    }

    /// When it must be written next; `None` when it is up to date.
    fn due(&self, names: &Names, now: Duration) -> Option<Duration> {
        (self.path.is_some() && names.is_newer_than(self.version)).then(|| self.next.max(now))
    }

    async fn write_if_due(&mut self, names: &Names, now: Duration) {
        if self.due(names, now).is_some_and(|due| due <= now) {
            self.next = now + NAMES_EVERY;
            self.write(names).await;
        }
    }

    async fn write(&mut self, names: &Names) {
        let Some(path) = self.path.clone() else {
            return;
        };
        let Some((table, version)) = names.newer_than(self.version) else {
            return;
        };
        let written = tokio::task::spawn_blocking(move || table.write(&path)).await;
        match written {
            Ok(Ok(())) => self.version = version,
            Ok(Err(error)) => tracing::warn!(error = %error, "names file not written"),
            Err(error) => tracing::warn!(error = %error, "names file not written"),
        }
    }
}
