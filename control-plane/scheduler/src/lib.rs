//! The scheduler: queue, cache, plugins, bind.
//!
//! [`run`] is the way in. [`decision`], [`cache`] and [`queue`] are pure and usable on their own (the
//! benchmark does); [`run`] puts the API around them.

pub mod cache;
pub mod decision;
mod default_spread;
mod plugins;
mod pod_affinity_terms;
pub mod pod_info;
pub mod queue;
pub mod resources;
mod scheduler;
mod selection;
mod writes;

use std::sync::Arc;

use control_plane_client::{Clock, Health, Informers, Supervisor, events};
use tokio_util::sync::CancellationToken;

pub use crate::plugins::PluginSet;
use crate::scheduler::Scheduler;

/// Name of the scheduler that pods mean when they name none.
pub const DEFAULT_NAME: &str = "default-scheduler";

/// What the scheduler is told at start.
#[derive(Debug, Clone)]
pub struct Config {
    /// Pods with this `spec.schedulerName` are ours.
    pub name: String,
    /// Wall time.
    pub clock: Clock,
    /// Where the scheduler reports how it is.
    pub health: Health,
}

/// Schedules until `shutdown`. `informers` are shared with whoever else reads the API in this process.
/// Restarts after a failure with back-off. Returns when it has stopped.
pub async fn run(informers: Informers, config: Config, shutdown: CancellationToken) {
    let Config {
        name,
        clock,
        health,
    } = config;
    let mut supervisor = Supervisor::new(health, shutdown.clone());
    let (recorder, writer) = events::channel(Arc::clone(informers.api()), clock, DEFAULT_NAME);
    let writing = tokio::spawn(writer.run(shutdown));
    supervisor.spawn("scheduler", move |stop| {
        let (name, informers, events) = (name.clone(), informers.clone(), recorder.clone());
        async move {
            let scheduler = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                scheduler = Scheduler::start(name, &informers, events, clock) => scheduler,
            };
            scheduler.run(stop).await
        }
    });
    supervisor.join().await;
    if let Err(error) = writing.await {
        tracing::error!(%error, "the event writer failed");
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
