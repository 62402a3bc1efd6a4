//! Desired state -> what cluster DNS answers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dns::{ClusterNames, EndpointNames, PortName, Protocol, ServiceNames, SnapshotPublisher};
use node_agent_state::model::{self, Endpoint, ServicePort};
use node_agent_state::{Consumer, ServiceEntry, Snapshot, StateHub};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::checkpoint::{Checkpoint, CheckpointFile};

/// Between two writes of the last names.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// Publishes names until `stop`, and remembers the last in `file`. Nothing is published before the
/// first list is complete, so that a name that exists is never answered as absent.
pub(crate) async fn run(
    hub: StateHub,
    publisher: SnapshotPublisher,
    consumer: Consumer,
    file: CheckpointFile,
    stop: CancellationToken,
) {
    let mut snapshots = hub.subscribe();
    let mut follower = Follower {
        publisher: Arc::new(publisher),
        file,
        last: None,
        unsaved: None,
    };
    let mut save_at = Instant::now();
    loop {
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        follower.follow(&snapshot).await;
        consumer.applied(&snapshot);
        // All three may be dropped at any time.
        tokio::select! {
            () = stop.cancelled() => break,
            changed = snapshots.changed() => if changed.is_err() { break },
            () = tokio::time::sleep_until(save_at), if follower.unsaved.is_some() => {
                follower.save().await;
                save_at = Instant::now() + SAVE_EVERY;
            }
        }
    }
    follower.save().await;
}

/// What was published and remembered.
struct Follower {
    publisher: Arc<SnapshotPublisher>,
    file: CheckpointFile,
    last: Option<Arc<Snapshot>>,
    /// Published, but not remembered yet.
    unsaved: Option<Arc<ClusterNames>>,
}

impl Follower {
    async fn follow(&mut self, snapshot: &Arc<Snapshot>) {
        if !snapshot.in_sync {
            return;
        }
        let last = self.last.as_ref();
        let names_same = last.is_some_and(|last| last.services.ptr_eq(&snapshot.services));
        if last.is_none_or(|last| last.cluster.cluster_dns != snapshot.cluster.cluster_dns) {
            self.publisher.exclude(&snapshot.cluster.cluster_dns);
        }
        self.last = Some(Arc::clone(snapshot));
        if names_same {
            return;
        }
        let (publisher, snapshot) = (Arc::clone(&self.publisher), Arc::clone(snapshot));
        let published = tokio::task::spawn_blocking(move || {
            let names = Arc::new(names(&snapshot));
            publisher.publish(&names);
            names
        });
        match published.await {
            Ok(names) => self.unsaved = Some(names),
            Err(error) => error!(%error, "names could not be published"),
        }
    }

    async fn save(&mut self) {
        let (Some(names), Some(snapshot)) = (self.unsaved.take(), &self.last) else {
            return;
        };
        let (file, cluster) = (self.file.clone(), Arc::clone(&snapshot.cluster));
        let saved = tokio::task::spawn_blocking(move || {
            file.save(&Checkpoint::new(
                cluster.cluster_dns.clone(),
                Arc::unwrap_or_clone(names),
            ))
        });
        match saved.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(error = format!("{error:#}"), "names are not remembered"),
            Err(error) => error!(%error, "names could not be remembered"),
        }
    }
}

fn names(snapshot: &Snapshot) -> ClusterNames {
    let with_service = snapshot
        .services
        .values()
        .filter_map(|entry| Some((entry, entry.service.as_deref()?)));
    let services: Vec<ServiceNames> = with_service
        .map(|(entry, service)| service_names(entry, service))
        .collect();
    // Namespaces as far as this node knows them: those with a service or a pod of this node.
    let mut namespaces: BTreeSet<String> = services
        .iter()
        .map(|service| service.namespace.clone())
        .collect();
    namespaces.extend(
        snapshot
            .pods
            .values()
            .filter_map(|pod| pod.metadata.namespace.clone()),
    );
    ClusterNames {
        revision: snapshot.revision,
        namespaces: namespaces.into_iter().collect(),
        services,
    }
}

fn service_names(entry: &ServiceEntry, service: &model::Service) -> ServiceNames {
    let port = |port: &ServicePort| PortName {
        name: port.name.clone(),
        protocol: protocol(port.protocol),
        port: port.port,
    };
    let endpoint = |endpoint: &Endpoint| EndpointNames {
        ip: endpoint.address,
        hostname: endpoint.hostname.clone(),
        ready: endpoint.ready,
        ports: endpoint
            .ports
            .iter()
            .map(|port| PortName {
                name: port.name.clone(),
                protocol: protocol(port.protocol),
                port: port.port,
            })
            .collect(),
    };
    ServiceNames {
        namespace: service.namespace.clone(),
        name: service.name.clone(),
        cluster_ips: service.cluster_ips.clone(),
        headless: service.headless,
        external_name: service.external_name.clone(),
        ports: service.ports.iter().map(port).collect(),
        endpoints: entry.endpoints.iter().map(endpoint).collect(),
    }
}

fn protocol(protocol: model::Protocol) -> Protocol {
    match protocol {
        model::Protocol::Tcp => Protocol::Tcp,
        model::Protocol::Udp => Protocol::Udp,
        model::Protocol::Sctp => Protocol::Sctp,
    }
}
