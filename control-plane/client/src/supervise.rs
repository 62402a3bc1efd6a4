//! Keeps named tasks alive: restart with back-off after an error or a panic, and say how they are.
//!
//! Owns: the restart policy and the health report. Must not know what the tasks do.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, info_span};

use crate::backoff::Backoff;

/// First pause before a restart.
pub const RESTART_FIRST: Duration = Duration::from_millis(100);
/// Longest pause before a restart.
pub const RESTART_MAX: Duration = Duration::from_secs(30);
/// A task that ran this long starts its back-off over.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// Any failure of a supervised task.
pub type TaskError = Box<dyn std::error::Error + Send + Sync>;
type TaskFuture = Pin<Box<dyn Future<Output = Result<(), TaskError>> + Send>>;

/// How one task is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskHealth {
    /// It runs.
    Running {
        /// Restarts so far.
        restarts: u64,
    },
    /// It failed and waits for its restart.
    Failed {
        /// Restarts so far.
        restarts: u64,
        /// What it said.
        error: String,
    },
    /// It was told to stop and did.
    Stopped,
}

/// The health of all tasks, for readers anywhere.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<RwLock<BTreeMap<String, TaskHealth>>>);

impl Health {
    /// Every task's state by name.
    #[must_use]
    pub fn report(&self) -> BTreeMap<String, TaskHealth> {
        self.0.read().clone()
    }

    /// Whether no task is failed.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        !self
            .0
            .read()
            .values()
            .any(|state| matches!(state, TaskHealth::Failed { .. }))
    }

    fn set(&self, name: &str, state: TaskHealth) {
        self.0.write().insert(name.to_owned(), state);
    }
}

/// Owns a set of tasks until they have all stopped.
#[derive(Debug)]
pub struct Supervisor {
    tasks: JoinSet<()>,
    health: Health,
    shutdown: CancellationToken,
}

impl Supervisor {
    /// A supervisor whose tasks stop when `shutdown` is cancelled, reporting to `health`.
    #[must_use]
    pub fn new(health: Health, shutdown: CancellationToken) -> Self {
        Self {
            tasks: JoinSet::new(),
            health,
            shutdown,
        }
    }

    /// Runs what `start` makes, again and again until shutdown. `start` gets a token that ends with
    /// the attempt, so whatever the task spawned beside itself ends with it.
    pub fn spawn<F, Fut>(&mut self, name: &str, mut start: F)
    where
        F: FnMut(CancellationToken) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        let start = move |token| -> TaskFuture { Box::pin(start(token)) };
        let span = info_span!("task", name);
        let task = keep_running(
            name.to_owned(),
            start,
            self.health.clone(),
            self.shutdown.clone(),
        );
        self.tasks.spawn(task.instrument(span));
    }

    /// Waits until every task has stopped, which is after shutdown.
    pub async fn join(mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                error!(%error, "supervision ended early");
            }
        }
    }
}

async fn keep_running(
    name: String,
    mut start: impl FnMut(CancellationToken) -> TaskFuture,
    health: Health,
    shutdown: CancellationToken,
) {
    let mut backoff = Backoff::new(RESTART_FIRST, RESTART_MAX);
    let mut restarts = 0_u64;
    while !shutdown.is_cancelled() {
        health.set(&name, TaskHealth::Running { restarts });
        let started = Instant::now();
        let error = run_once(&mut start, &shutdown).await;
        if shutdown.is_cancelled() {
            break;
        }
        if started.elapsed() >= HEALTHY_AFTER {
            backoff.reset();
        }
        restarts += 1;
        let delay = backoff.next_jittered();
        error!(task = %name, %error, restarts, delay_ms = delay.as_millis(), "task failed, restarts");
        health.set(&name, TaskHealth::Failed { restarts, error });
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(delay) => {}
        }
    }
    health.set(&name, TaskHealth::Stopped);
    info!(task = %name, "task stopped");
}

/// Runs one attempt in a task of its own, so that a panic is an error; says why it ended.
async fn run_once(
    start: &mut impl FnMut(CancellationToken) -> TaskFuture,
    shutdown: &CancellationToken,
) -> String {
    let attempt = shutdown.child_token();
    let _ends_with_attempt = attempt.clone().drop_guard();
    let mut set = JoinSet::new();
    set.spawn(start(attempt).in_current_span());
    match set.join_next().await {
        Some(Ok(Ok(()))) | None => "ended without being told to".to_owned(),
        Some(Ok(Err(error))) => chain(error.as_ref()),
        Some(Err(error)) => error.to_string(),
    }
}

/// An error and its causes in one line.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (**error).source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_or_fails_is_started_again_and_stops_when_told() {
        let shutdown = CancellationToken::new();
        let health = Health::default();
        let mut supervisor = Supervisor::new(health.clone(), shutdown.clone());
        let runs = Arc::new(AtomicU32::new(0));
        let (steady_tx, mut steady) = tokio::sync::mpsc::channel(1);
        let counter = Arc::clone(&runs);
        supervisor.spawn("t", move |token| {
            let run = counter.fetch_add(1, Ordering::SeqCst);
            let steady = steady_tx.clone();
            async move {
                match run {
                    0 => panic!("first"),
                    1 => Err("second".into()),
                    _ => {
                        steady.send(()).await?;
                        token.cancelled().await;
                        Ok(())
                    }
                }
            }
        });
        steady.recv().await.expect("third run is steady");
        assert_eq!(health.report()["t"], TaskHealth::Running { restarts: 2 });
        assert!(health.is_healthy());
        shutdown.cancel();
        supervisor.join().await;
        assert_eq!(health.report()["t"], TaskHealth::Stopped);
        assert_eq!(runs.load(Ordering::SeqCst), 3);
    }
}
