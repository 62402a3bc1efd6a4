//! Probes: pure counting, one task a probe, results as facts for the decision.
//!
//! A result counts once enough equal ones came in a row. Liveness and readiness wait for startup.
//! After a restart of the agent the last reported readiness stands until a probe says otherwise.

mod count;
mod http;
mod run;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use proto_api::types::IntOrString;
use proto_api::types::core::v1::{Container, PodStatus, Probe};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use self::http::{HttpClient, HttpTarget};
use crate::pod::model::{self, Role, Target};
use crate::pod::observed::{Observed, ObservedContainer, RunState};
use crate::pod::{ProbeFacts, Probes};
use crate::worker::Context;

/// Which probe of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_deref(),
            Self::Liveness => container.liveness_probe.as_deref(),
            Self::Readiness => container.readiness_probe.as_deref(),
        }
    }
}

/// Facts of all containers, written by probe tasks.
pub(super) struct Board {
    facts: Mutex<BTreeMap<String, ProbeFacts>>,
    changed: Notify,
}

impl Board {
    /// Changes the facts of one container and wakes the worker if that made a difference.
    pub(super) fn update(&self, id: &str, change: impl FnOnce(&mut ProbeFacts)) {
        let mut facts = self.facts.lock();
        let Some(entry) = facts.get_mut(id) else {
            return;
        };
        let before = *entry;
        change(entry);
        if *entry != before {
            drop(facts);
            self.changed.notify_one();
        }
    }
}

struct Watched {
    /// Ends startup and liveness probing.
    until_deletion: CancellationToken,
    /// Ends all probing.
    until_exit: CancellationToken,
    started: watch::Sender<bool>,
}

/// The probes of one pod.
pub(crate) struct ProbeSet {
    context: Arc<Context>,
    board: Arc<Board>,
    watched: BTreeMap<String, Watched>,
    tasks: JoinSet<()>,
    /// Last reported `started` and `ready`, by container id.
    seeds: BTreeMap<String, (bool, bool)>,
}

impl ProbeSet {
    pub(crate) fn new(context: Arc<Context>, reported: &PodStatus) -> Self {
        let statuses = reported
            .container_statuses
            .iter()
            .chain(&reported.init_container_statuses);
        let seeds = statuses
            .filter_map(|status| {
                let id = status
                    .container_id
                    .as_ref()?
                    .strip_prefix("containerd://")?;
                Some((
                    id.to_owned(),
                    (status.started.unwrap_or(false), status.ready),
                ))
            })
            .collect();
        Self {
            context,
            board: Arc::new(Board {
                facts: Mutex::default(),
                changed: Notify::new(),
            }),
            watched: BTreeMap::new(),
            tasks: JoinSet::new(),
            seeds,
        }
    }

    /// Waits until a fact changed. Cancel-safe.
    pub(crate) async fn changed(&self) {
        self.board.changed.notified().await;
    }

    pub(crate) fn facts(&self) -> Probes {
        self.board.facts.lock().clone()
    }

    /// Starts probing containers that began to run, ends it for those that ended.
    pub(crate) fn sync(&mut self, target: &Target, observed: &Observed, ends: bool) {
        while self.tasks.try_join_next().is_some() {}
        let running: Vec<&ObservedContainer> = observed
            .containers
            .iter()
            .filter(|c| c.state == RunState::Running)
            .collect();
        self.watched.retain(|id, watched| {
            let keeps = running.iter().any(|container| &container.id == id);
            if !keeps {
                watched.until_exit.cancel();
                self.board.facts.lock().remove(id);
            }
            keeps
        });
        for container in running {
            if !self.watched.contains_key(&container.id) {
                self.watch(target, observed, container);
            }
            if ends && let Some(watched) = self.watched.get(&container.id) {
                watched.until_deletion.cancel();
            }
        }
    }

    fn watch(&mut self, target: &Target, observed: &Observed, running: &ObservedContainer) {
        let Some((role, container)) = model::container(target.spec(), &running.name) else {
            return;
        };
        let seed = self.seeds.remove(&running.id);
        let has = |kind: ProbeKind| role != Role::Init && kind.of(container).is_some();
        let started = !has(ProbeKind::Startup) || seed.is_some_and(|(started, _)| started);
        let ready = !has(ProbeKind::Readiness) || seed.is_some_and(|(_, ready)| ready);
        let facts = ProbeFacts {
            started,
            ready,
            ..ProbeFacts::default()
        };
        self.board.facts.lock().insert(running.id.clone(), facts);
        let until_exit = CancellationToken::new();
        let watched = Watched {
            until_deletion: until_exit.child_token(),
            until_exit,
            started: watch::channel(started).0,
        };
        let pod_ips = observed
            .sandbox()
            .map(|sandbox| sandbox.ips.as_slice())
            .unwrap_or_default();
        let ips = if pod_ips.is_empty() {
            self.context.host_ips()
        } else {
            pod_ips
        };
        let pod_ip = ips.first().map(ToString::to_string).unwrap_or_default();
        for kind in [
            ProbeKind::Startup,
            ProbeKind::Liveness,
            ProbeKind::Readiness,
        ] {
            let Some(probe) = kind.of(container).filter(|_| role != Role::Init) else {
                continue;
            };
            if kind == ProbeKind::Startup && started {
                continue;
            }
            let runner = run::Runner {
                context: Arc::clone(&self.context),
                board: Arc::clone(&self.board),
                pod: Arc::clone(&target.pod),
                container: container.clone(),
                container_id: running.id.clone(),
                started_at: running.started_at,
                pod_ip: pod_ip.clone(),
                kind,
                probe: probe.clone(),
                adopted: seed.is_some(),
                started: watched.started.clone(),
            };
            let stop = match kind {
                ProbeKind::Readiness => watched.until_exit.clone(),
                ProbeKind::Startup | ProbeKind::Liveness => watched.until_deletion.clone(),
            };
            self.tasks.spawn(async move {
                // Dropping a probe in the middle loses nothing: its result would not count.
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = runner.run() => {}
                }
            });
        }
        self.watched.insert(running.id.clone(), watched);
    }

    /// Ends all probing.
    pub(crate) async fn shutdown(&mut self) {
        self.tasks.shutdown().await;
    }
}

/// The number behind a port that may be named.
pub(crate) fn port_number(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(text) => text.parse().ok().or_else(|| {
            let named = container
                .ports
                .iter()
                .find(|port| port.name.as_ref() == Some(text));
            named.map(|port| port.container_port)
        }),
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("invalid port number or name: {port}"))
}
