//! Controllers, scheduler and compaction: on one control plane at a time.
//!
//! With a store of our own there is no other, and they simply run. With a shared store they run under
//! a lease; every write of a term carries the term's fence, so that a leader that was stopped or cut
//! off writes nothing any more once the next one has begun. Informers and watch cache are warm on
//! all control planes: taking over costs the lease's time and nothing else.

use std::sync::Arc;
use std::time::Duration;

use control_plane_apiserver::auth::TokenKeys;
use control_plane_apiserver::server::{Fence, Probe, Server, Target};
use control_plane_client::leader_election::{LeaderConfig, LeaderElector, Term};
use control_plane_client::supervise::TaskHealth;
use control_plane_client::{Clock, Health, Informers, ObjectKey};
use control_plane_storage::{Store, compact_regularly};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::in_process::InProcess;

/// The store's history is kept for one to two of these: who watches and loses its connection for so
/// long must list again.
const COMPACT_EVERY: Duration = Duration::from_secs(300);
/// The lease, where everybody looks for such leases.
const LEASE: (&str, &str) = ("kube-system", "skep-control-plane");
/// A silent leader is replaced after this. The fence, not these times, keeps two from acting, so they
/// may be short: a dead leader is replaced in less than five seconds.
const LEASE_DURATION: Duration = Duration::from_secs(3);
const RENEW_DEADLINE: Duration = Duration::from_secs(2);
const RETRY_PERIOD: Duration = Duration::from_millis(500);

/// What the leading control plane runs, and with what.
pub(crate) struct Leading {
    pub(crate) identity: String,
    pub(crate) server: Arc<Server>,
    pub(crate) tokens: Arc<TokenKeys>,
    pub(crate) store: Arc<dyn Store>,
    /// Shared with whoever else reads the API in this process.
    pub(crate) informers: Informers,
    pub(crate) controllers: control_plane_controllers::Config,
}

impl Leading {
    /// Runs until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        if !self.store.caps().multi_writer {
            return self.work(None, stop).await;
        }
        let (namespace, name) = LEASE;
        let config = LeaderConfig {
            lease_duration: LEASE_DURATION,
            renew_deadline: RENEW_DEADLINE,
            retry_period: RETRY_PERIOD,
            ..LeaderConfig::new(ObjectKey::new(namespace, name), self.identity.clone())
        };
        let api = Arc::clone(self.informers.api());
        let elector = LeaderElector::new(api, config, Clock::system());
        elector.run(stop, |term| self.lead(term)).await;
    }

    /// One term: until it ends, or until a write shows that somebody else leads.
    async fn lead(&self, term: Term) {
        let fence = match self.fence(&term).await {
            Ok(fence) => fence,
            Err(error) => {
                warn!(%error, "the lease was won, but the term cannot begin");
                return;
            }
        };
        info!(
            term = fence.term(),
            identity = self.identity,
            "controllers and scheduler run here"
        );
        let lost = fence.lost().clone();
        let stop = term.stop.clone();
        let watched = async {
            tokio::select! {
                () = lost.cancelled() => {
                    warn!("another control plane leads; this one stops leading");
                    stop.cancel();
                }
                () = stop.cancelled() => {}
            }
        };
        tokio::join!(watched, self.work(Some(fence), term.stop));
        info!("controllers and scheduler have stopped here");
    }

    async fn fence(&self, term: &Term) -> anyhow::Result<Fence> {
        let kind = self
            .server
            .kind("coordination.k8s.io", "v1", "leases")
            .map_err(|error| anyhow::anyhow!("{}", error.message))?;
        let (namespace, name) = LEASE;
        let lease = Target::new(&kind, namespace, name);
        self.server
            .take_fence(&lease, term.revision)
            .await
            .map_err(|error| anyhow::anyhow!("{}", error.message))
    }

    async fn work(&self, fence: Option<Fence>, stop: CancellationToken) {
        // Who writes is what admission webhooks are told, so the names are those they know.
        let informers = |component: &str| {
            let api = InProcess::fenced(&self.server, &self.tokens, component, fence.clone());
            self.informers.with_api(api)
        };
        let scheduler = control_plane_scheduler::Config {
            name: control_plane_scheduler::DEFAULT_NAME.to_owned(),
            clock: Clock::system(),
            health: Health::default(),
        };
        let parts = [
            ("controller-manager", &self.controllers.health),
            ("scheduler", &scheduler.health),
        ];
        for (name, health) in parts {
            self.server.watch_component(name, probe(health.clone()));
        }
        let compaction = compact_regularly(Arc::clone(&self.store), COMPACT_EVERY);
        tokio::join!(
            control_plane_controllers::run(
                informers("kube-controller-manager"),
                self.controllers.clone(),
                stop.clone()
            ),
            control_plane_scheduler::run(informers("kube-scheduler"), scheduler, stop.clone()),
            stop.run_until_cancelled(compaction),
        );
        for name in ["controller-manager", "scheduler"] {
            self.server.forget_component(name);
        }
    }
}

/// Tells the API how the tasks of a component are.
fn probe(health: Health) -> Probe {
    Arc::new(move || {
        let failed: Vec<String> = health
            .report()
            .into_iter()
            .filter_map(|(task, state)| match state {
                TaskHealth::Failed { error, .. } => Some(format!("{task}: {error}")),
                TaskHealth::Running { .. } | TaskHealth::Stopped => None,
            })
            .collect();
        if failed.is_empty() {
            Ok(())
        } else {
            Err(failed.join("; "))
        }
    })
}
