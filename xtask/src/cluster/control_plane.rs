//! The control planes of a dev cluster: changes when their flags change.
//!
//! One listens on the host's address. Several have an address each, and share the host's: the kernel
//! gives a new connection to one that lives, so the kubeconfig works while any of them does. It runs as the user who called `up`: it needs no right that the user does not have.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::addresses::{ClusterIndex, ETCD_MEMBERS_MAX};
use super::daemon::{self, Group};
use super::etcd;
use super::files::{Cluster, ControlPlane, DataplaneMode, Store, write_json};
use super::supervise::{self, OnReload, Service};
use crate::build::host::Profile;

/// How long it may take to end in an orderly way.
const GRACE: Duration = Duration::from_secs(12);

/// Where `kubectl` on this machine finds the API as well.
const LOOPBACK: &str = "127.0.0.1:6443";

/// What `up` asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) index: ClusterIndex,
    pub(crate) store: Store,
    /// How many control planes.
    pub(crate) count: u8,
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
        if running.count != wanted.count {
            bail!(
                "cluster {:?} has {} control planes, not {}: `cargo xtask down` first",
                cluster.name,
                running.count,
                wanted.count
            );
        }
        if alive {
            return Ok(WasRunning::Yes);
        }
    }
    if wanted.count > 1 && wanted.store != Store::Etcd {
        bail!("several control planes need a store that they can share: add `--store etcd`");
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
        count: wanted.count,
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
    let mut services = match wanted.store {
        Store::Etcd => etcd::services(cluster, wanted.index, members(wanted.count))?,
        Store::Embedded => Vec::new(),
    };
    services.extend((1..=wanted.count).map(|number| {
        let name = match wanted.count {
            1 => "control-plane".to_owned(),
            _ => format!("control-plane-{number}"),
        };
        Service {
            program: wanted.profile.binary("skep-control-plane"),
            arguments: arguments(cluster, wanted, number),
            log: cluster.log(&name),
            name,
            after: None,
            on_reload: OnReload::Restart,
        }
    }));
    Ok(services)
}

/// One member tolerates no loss, three tolerate one.
fn members(control_planes: u8) -> u8 {
    match control_planes {
        1 => 1,
        _ => ETCD_MEMBERS_MAX,
    }
}

/// Where one control plane listens by itself.
fn own_ip(index: ClusterIndex, count: u8, number: u8) -> String {
    match count {
        1 => index.host_ip(),
        _ => index.control_plane_ip(number),
    }
}

/// What the agents are told: all control planes.
pub(crate) fn node_listeners(index: ClusterIndex, count: u8) -> String {
    let all: Vec<String> = (1..=count)
        .map(|number| format!("{}:6444", own_ip(index, count, number)))
        .collect();
    all.join(",")
}

fn arguments(cluster: &Cluster, wanted: Wanted, number: u8) -> Vec<String> {
    let index = wanted.index;
    let (own, host) = (own_ip(index, wanted.count, number), index.host_ip());
    let data = cluster.control_plane_data(number);
    let mut arguments = vec![
        format!("--data-dir={}", data.display()),
        format!("--pki-dir={}", cluster.pki().display()),
        format!("--store={}", wanted.store.flag()),
        format!("--bind={own}:6443"),
        format!("--node-bind={own}:6444"),
        format!("--advertise-address={own}"),
        format!("--service-cidr={}", index.service_cidr()),
        format!("--pod-cidr={}", index.pod_cidr()),
        format!("--cluster-dns={}", index.cluster_dns()),
        "--cluster-domain=cluster.local".to_owned(),
        format!("--kubeconfig-out={}", cluster.kubeconfig().display()),
        format!("--kubeconfig-server=https://{host}:6443"),
        format!("--join-token-out={}", cluster.join_token().display()),
    ];
    let shared = wanted.count > 1;
    if shared {
        arguments.push(format!("--shared-bind={host}:6443"));
    }
    if index.0 == 0 && loopback_is_free() {
        let flag = if shared { "shared-bind" } else { "bind" };
        arguments.push(format!("--{flag}={LOOPBACK}"));
    }
    if wanted.store == Store::Etcd {
        arguments.extend(etcd::flags(cluster, index, members(wanted.count)));
    }
    arguments
}

/// Another cluster tool may already use the usual port on loopback; ours then does without.
fn loopback_is_free() -> bool {
    std::net::TcpListener::bind(LOOPBACK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::{ClusterIndex, members, node_listeners};

    #[test]
    fn one_control_plane_has_the_hosts_address_and_several_have_their_own() {
        let index = ClusterIndex(0);
        assert_eq!(node_listeners(index, 1), "10.88.0.1:6444");
        assert_eq!(
            node_listeners(index, 3),
            "10.88.0.2:6444,10.88.0.3:6444,10.88.0.4:6444"
        );
    }

    #[test]
    fn several_control_planes_have_a_store_that_survives_the_loss_of_a_member() {
        assert_eq!([1, 2, 3, 5].map(members), [1, 3, 3, 3]);
    }
}
