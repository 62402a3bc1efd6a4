//! Desired state -> what cluster DNS answers.

use std::collections::BTreeSet;
use std::sync::Arc;

use dns::{ClusterNames, EndpointNames, PortName, Protocol, ServiceNames, SnapshotPublisher};
use node_agent_state::model::{self, Endpoint, ServicePort};
use node_agent_state::{Consumer, ServiceEntry, Snapshot, StateHub};
use tokio_util::sync::CancellationToken;
use tracing::error;

/// Publishes names until `stop`. Nothing is published before the first list is complete, so that a
/// name that exists is never answered as absent.
pub(crate) async fn run(
    hub: StateHub,
    publisher: SnapshotPublisher,
    consumer: Consumer,
    stop: CancellationToken,
) {
    let mut snapshots = hub.subscribe();
    let publisher = Arc::new(publisher);
    let mut last: Option<Arc<Snapshot>> = None;
    loop {
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        if snapshot.in_sync {
            let unchanged = last
                .as_ref()
                .is_some_and(|last| last.services.ptr_eq(&snapshot.services));
            if !unchanged {
                let (publisher, services) = (Arc::clone(&publisher), Arc::clone(&snapshot));
                let published =
                    tokio::task::spawn_blocking(move || publisher.publish(&names(&services))).await;
                if let Err(error) = published {
                    error!(%error, "names could not be published");
                }
            }
            last = Some(Arc::clone(&snapshot));
        }
        consumer.applied(&snapshot);
        tokio::select! {
            () = stop.cancelled() => return,
            changed = snapshots.changed() => if changed.is_err() { return },
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
