//! The controllers: one directory each, a pure plan and its I/O.
//!
//! [`run`] is the way in. Controllers share the informers they are given, wake on changes, read
//! snapshots and write through the API; they never see storage. Each is supervised on its own: one that
//! fails is restarted with back-off while the others go on.

mod bootstrap;
mod config;
mod context;
mod deployment;
mod disruption;
mod endpoint_slice;
mod endpoints;
mod garbage_collector;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod owner;
mod pod_gc;
mod pods;
mod replica_set;
mod runner;
mod service_account;
mod service_pods;
mod token_cleaner;
mod volume_protection;

use std::sync::Arc;

use control_plane_client::{Informers, Supervisor, events};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::runner::Reconciler;

pub use config::{Config, PodRange};

#[cfg(test)]
mod simulation;

/// Runs every controller until `shutdown`. `informers` are shared with whoever else reads the API in
/// this process. Returns when all have stopped.
pub async fn run(informers: Informers, config: Config, shutdown: CancellationToken) {
    let mut supervisor = Supervisor::new(config.health.clone(), shutdown.clone());
    let api = Arc::clone(informers.api());
    let (recorder, writer) = events::channel(api, config.clock, "controller-manager");
    let writing = tokio::spawn(writer.run(shutdown));
    let context = Context {
        informers,
        clock: config.clock,
        events: recorder,
        config: Arc::new(config),
    };

    macro_rules! spawn {
        ($($controller:path as $component:literal),* $(,)?) => {
            $({
                let context = Context {
                    events: context.events.for_component($component),
                    ..context.clone()
                };
                supervisor.spawn(<$controller as Reconciler>::NAME, move |stop| {
                    let context = context.clone();
                    async move {
                        let (controller, queue) = tokio::select! {
                            () = stop.cancelled() => return Ok(()),
                            started = <$controller>::start(context) => started,
                        };
                        runner::run(controller, queue, stop).await
                    }
                });
            })*
        };
    }
    spawn!(
        bootstrap::BootstrapController as "bootstrap-controller",
        deployment::DeploymentController as "deployment-controller",
        disruption::DisruptionController as "disruption-controller",
        endpoint_slice::EndpointSliceController as "endpoint-slice-controller",
        endpoints::EndpointsController as "endpoint-controller",
        garbage_collector::GarbageCollector as "garbage-collector-controller",
        namespace::NamespaceController as "namespace-controller",
        node_ipam::NodeIpamController as "cidrAllocator",
        node_lifecycle::NodeLifecycleController as "node-controller",
        pod_gc::PodGcController as "pod-garbage-collector",
        replica_set::ReplicaSetController as "replicaset-controller",
        service_account::ServiceAccountController as "serviceaccount-controller",
        token_cleaner::TokenCleaner as "token-cleaner",
        volume_protection::VolumeProtectionController as "pvc-protection-controller",
    );
    drop(context);
    supervisor.join().await;
    if let Err(error) = writing.await {
        tracing::error!(%error, "the event writer failed");
    }
}
