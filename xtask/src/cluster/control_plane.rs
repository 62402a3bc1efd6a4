//! The control plane of a dev cluster: changes when its flags, or the store's, change.
//!
//! It runs as the user who called `up`: it needs no right that the user does not have.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::addresses::ClusterIndex;
use super::daemon::{self, Group};
use super::files::{Cluster, ControlPlane, DataplaneMode, Store, write_json};
use super::supervise::{self, OnReload, Service};
use crate::build::host::Profile;
use crate::workspace;

/// How long it may take to end in an orderly way.
const GRACE: Duration = Duration::from_secs(12);

/// Where `kubectl` on this machine finds the API as well.
const LOOPBACK: &str = "127.0.0.1:6443";

/// What `up` asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) index: ClusterIndex,
    pub(crate) store: Store,
    pub(crate) profile: Profile,
    /// Of the nodes that this `up` starts.
    pub(crate) mode: DataplaneMode,
}

/// Starts it unless it runs. Says whether it ran before.
pub(crate) fn start(cluster: &Cluster, wanted: Wanted) -> Result<WasRunning> {
    if let Some(running) = cluster.control_plane()? {
        let alive = running.supervisor.is_alive();
        if running.store != wanted.store {
            bail!(
                "cluster {:?} keeps its objects in the {} store: `cargo xtask down` first",
                cluster.name,
                running.store.flag()
            );
        }
        if alive {
            return Ok(WasRunning::Yes);
        }
    }
    let services = services(cluster, wanted)?;
    write_json(&cluster.dir.join("control-plane-services.json"), &services)?;
    let supervisor = daemon::start(
        &["control-plane-run", &cluster.name],
        &cluster.log("control-plane-run"),
    )?;
    let release = wanted.profile == Profile::Release;
    cluster.write_control_plane(&ControlPlane {
        store: wanted.store,
        release,
        mode: wanted.mode,
        supervisor,
    })?;
    Ok(WasRunning::No)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WasRunning {
    Yes,
    No,
}

/// The hidden subcommand that keeps it running.
pub(crate) fn run(name: &str) -> Result<()> {
    daemon::detach()?;
    let cluster = Cluster::named(name)?;
    let path = cluster.dir.join("control-plane-services.json");
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let services: Vec<Service> = serde_json::from_str(&text).context("read the services")?;
    supervise::run(services)
}

/// Lets it start again with a newly built program.
pub(crate) fn reload(cluster: &Cluster) -> Result<()> {
    match cluster.control_plane()? {
        Some(running) => running.supervisor.signal(nix::sys::signal::Signal::SIGHUP),
        None => Ok(()),
    }
}

/// Ends it and its store.
pub(crate) fn end(cluster: &Cluster) -> Result<()> {
    match cluster.control_plane()? {
        Some(running) => running
            .supervisor
            .end(Group::Whole, GRACE)
            .context("end the control plane"),
        None => Ok(()),
    }
}

fn services(cluster: &Cluster, wanted: Wanted) -> Result<Vec<Service>> {
    let mut services = Vec::new();
    if wanted.store == Store::Etcd {
        services.push(etcd(cluster, wanted.index)?);
    }
    services.push(Service {
        name: "control-plane".to_owned(),
        program: wanted.profile.binary("skep-control-plane"),
        arguments: arguments(cluster, wanted),
        log: cluster.log("control-plane"),
        after: None,
        on_reload: OnReload::Restart,
    });
    Ok(services)
}

fn etcd(cluster: &Cluster, index: ClusterIndex) -> Result<Service> {
    let program = workspace::find_program("etcd")
        .context("etcd is not installed: run `cargo xtask setup`")?;
    let (clients, peers) = index.etcd_ports();
    let (clients, peers) = (
        format!("http://127.0.0.1:{clients}"),
        format!("http://127.0.0.1:{peers}"),
    );
    let arguments = vec![
        format!("--name={}", cluster.name),
        format!("--data-dir={}", cluster.dir.join("etcd").display()),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster={}={peers}", cluster.name),
    ];
    Ok(Service {
        name: "etcd".to_owned(),
        program,
        arguments,
        log: cluster.log("etcd"),
        after: None,
        on_reload: OnReload::Keep,
    })
}

fn arguments(cluster: &Cluster, wanted: Wanted) -> Vec<String> {
    let index = wanted.index;
    let host = index.host_ip();
    let mut arguments = vec![
        format!("--data-dir={}", cluster.control_plane_data().display()),
        format!("--store={}", wanted.store.flag()),
        format!("--bind={host}:6443"),
        format!("--node-bind={host}:6444"),
        format!("--advertise-address={host}"),
        format!("--service-cidr={}", index.service_cidr()),
        format!("--pod-cidr={}", index.pod_cidr()),
        format!("--cluster-dns={}", index.cluster_dns()),
        "--cluster-domain=cluster.local".to_owned(),
        format!("--kubeconfig-out={}", cluster.kubeconfig().display()),
        format!("--join-token-out={}", cluster.join_token().display()),
    ];
    if index.0 == 0 && loopback_is_free() {
        arguments.push(format!("--bind={LOOPBACK}"));
    }
    if wanted.store == Store::Etcd {
        arguments.push(format!(
            "--etcd-endpoints=http://127.0.0.1:{}",
            index.etcd_ports().0
        ));
    }
    arguments
}

/// Another cluster tool may already use the usual port on loopback; ours then does without.
fn loopback_is_free() -> bool {
    std::net::TcpListener::bind(LOOPBACK).is_ok()
}
