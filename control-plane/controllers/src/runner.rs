//! The loop of every controller: take a key, reconcile it, remember how it went.
//!
//! Owns: workers, back-off on errors, the slow resync that repairs what events missed. A reconciler
//! gets a key and nothing else; it reads the current state itself.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use control_plane_client::WorkQueue;
use control_plane_client::supervise::{TaskError, chain};
use control_plane_client::work_queue::Key;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::context::ReconcileError;

/// How often every object is looked at although nothing happened.
const RESYNC: Duration = Duration::from_secs(600);
/// Failures before a key's errors are worth a warning.
const QUIET_FAILURES: u32 = 3;

/// What a reconciliation leaves to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing until something changes.
    Done,
    /// Look again after this time.
    After(Duration),
}

impl Next {
    /// The earlier of two.
    pub(crate) fn min(self, other: Self) -> Self {
        match (self, other) {
            (Self::After(a), Self::After(b)) => Self::After(a.min(b)),
            (Self::Done, next) | (next, Self::Done) => next,
        }
    }

    pub(crate) fn after(delay: Option<Duration>) -> Self {
        delay.map_or(Self::Done, Self::After)
    }
}

/// One controller.
#[async_trait]
pub(crate) trait Reconciler: Send + Sync + 'static {
    /// What it reconciles.
    type Key: Key;
    /// For logs.
    const NAME: &'static str;
    /// Keys in work at once.
    const WORKERS: usize;

    /// Brings one key's world closer to what it should be.
    async fn reconcile(&self, key: &Self::Key) -> Result<Next, ReconcileError>;

    /// Every key there is, for the slow resync.
    fn all_keys(&self) -> Vec<Self::Key>;
}

/// Works until `stop`; an error only when a worker panicked.
pub(crate) async fn run<R: Reconciler>(
    reconciler: Arc<R>,
    queue: WorkQueue<R::Key>,
    stop: CancellationToken,
) -> Result<(), TaskError> {
    let mut workers = JoinSet::new();
    for _ in 0..R::WORKERS {
        workers.spawn(work(Arc::clone(&reconciler), queue.clone()));
    }
    workers.spawn(resync(reconciler, queue.clone(), stop.clone()));
    stop.cancelled().await;
    queue.close();
    while let Some(ended) = workers.join_next().await {
        ended?;
    }
    Ok(())
}

async fn work<R: Reconciler>(reconciler: Arc<R>, queue: WorkQueue<R::Key>) {
    while let Some(item) = queue.get().await {
        let key = item.key();
        match reconciler.reconcile(key).await {
            Ok(next) => {
                queue.forget(key);
                if let Next::After(delay) = next {
                    queue.add_after(key.clone(), delay);
                }
            }
            Err(error) => {
                let failures = queue.failures(key);
                let delay = queue.add_failed(key.clone());
                let text = chain(&error);
                if error.is_conflict() || failures < QUIET_FAILURES {
                    debug!(controller = R::NAME, ?key, error = %text, ?delay, "tries again");
                } else {
                    warn!(controller = R::NAME, ?key, error = %text, failures, ?delay, "tries again");
                }
            }
        }
    }
}

async fn resync<R: Reconciler>(
    reconciler: Arc<R>,
    queue: WorkQueue<R::Key>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RESYNC) => {}
        }
        reconciler
            .all_keys()
            .into_iter()
            .for_each(|key| queue.add(key));
    }
}
