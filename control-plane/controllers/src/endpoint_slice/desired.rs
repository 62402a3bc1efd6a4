//! The endpoints a Service should have, grouped by family and ports. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use control_plane_client::{Cached, ObjectKey};
use proto_api::types::core::v1::{Pod, Service, ServiceSpec};
use proto_api::types::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use proto_api::types::meta::v1::OwnerReference;

use crate::service_pods::{self, Family};
use crate::{owner, pods};

pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Who makes these slices; slices of others are left alone.
const MANAGED_BY: &str = "endpointslice-controller.k8s.io";

/// Endpoints that share their ports. Ports are sorted, so that equal ones compare equal.
#[derive(Debug, Clone, Default)]
pub(super) struct Group {
    pub(super) ports: Vec<EndpointPort>,
    pub(super) endpoints: Vec<Endpoint>,
}

/// What all slices of a Service have in common.
#[derive(Debug, Clone)]
pub(super) struct Template {
    pub(super) service: ObjectKey,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) owner: OwnerReference,
}

impl Template {
    pub(super) fn of(service: &Cached<Service>, spec: &ServiceSpec) -> Self {
        let mut labels = service.metadata.labels.clone();
        labels.remove(HEADLESS);
        labels.insert(SERVICE_NAME.to_owned(), service.key.name.to_string());
        labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
        if service_pods::is_headless(spec) {
            labels.insert(HEADLESS.to_owned(), String::new());
        }
        let owner = owner::reference_to(&service.value);
        Self {
            service: service.key.clone(),
            labels,
            owner,
        }
    }

    /// An empty slice, not written yet.
    pub(super) fn slice(&self, family: Family, ports: Vec<EndpointPort>) -> EndpointSlice {
        let mut slice = EndpointSlice {
            address_type: family.name().to_owned(),
            ports,
            ..EndpointSlice::default()
        };
        slice.metadata.namespace = Some(self.service.namespace.to_string());
        slice.metadata.generate_name = Some(format!("{}-", self.service.name));
        slice.metadata.labels = self.labels.clone();
        slice.metadata.owner_references = vec![self.owner.clone()];
        slice
    }
}

/// Whether a slice is one of ours for this Service.
pub(super) fn is_ours(slice: &EndpointSlice, service: &str) -> bool {
    let labels = &slice.metadata.labels;
    labels.get(SERVICE_NAME).is_some_and(|name| name == service)
        && labels
            .get(MANAGED_BY_LABEL)
            .is_some_and(|by| by == MANAGED_BY)
}

/// The Service a slice of ours belongs to.
pub(super) fn service_of(slice: &EndpointSlice) -> Option<&str> {
    let labels = &slice.metadata.labels;
    let ours = labels
        .get(MANAGED_BY_LABEL)
        .is_some_and(|by| by == MANAGED_BY);
    labels
        .get(SERVICE_NAME)
        .filter(|_| ours)
        .map(String::as_str)
}

/// Ports in the order that makes equal lists equal.
pub(super) fn canonical(mut ports: Vec<EndpointPort>) -> Vec<EndpointPort> {
    ports.sort_by(|a, b| {
        let key = |p: &EndpointPort| (p.name.clone(), p.protocol.clone(), p.port);
        key(a).cmp(&key(b))
    });
    ports
}

/// The groups of one family. `zone` gives the zone of a node.
pub(super) fn groups<'a>(
    service: &ObjectKey,
    spec: &ServiceSpec,
    family: Family,
    selected: impl Iterator<Item = &'a Arc<Cached<Pod>>>,
    zone: &dyn Fn(&str) -> Option<String>,
) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for pod in selected {
        let Some(address) = service_pods::pod_ip(pod, family) else {
            continue;
        };
        if pods::is_terminal(pod) {
            continue;
        }
        let ports = ports(pod, spec);
        let endpoint = endpoint(service, spec, pod, address, zone);
        match groups.iter_mut().find(|group| group.ports == ports) {
            Some(group) => group.endpoints.push(endpoint),
            None => groups.push(Group {
                ports,
                endpoints: vec![endpoint],
            }),
        }
    }
    groups
}

fn ports(pod: &Pod, spec: &ServiceSpec) -> Vec<EndpointPort> {
    let ports = spec.ports.iter().filter_map(|port| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(service_pods::target_port(pod, port)?),
            protocol: Some(service_pods::protocol(&port.protocol).to_owned()),
            app_protocol: port.app_protocol.clone(),
        })
    });
    canonical(ports.collect())
}

fn endpoint(
    service: &ObjectKey,
    spec: &ServiceSpec,
    pod: &Cached<Pod>,
    address: &str,
    zone: &dyn Fn(&str) -> Option<String>,
) -> Endpoint {
    let serving = pods::is_ready(pod);
    let terminating = pods::is_terminating(pod);
    let published = spec.publish_not_ready_addresses == Some(true);
    let node = pods::node_name(pod);
    Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(published || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: service_pods::hostname(pod, service),
        node_name: (!node.is_empty()).then(|| node.to_owned()),
        target_ref: Some(Box::new(service_pods::target_ref(pod))),
        zone: if node.is_empty() { None } else { zone(node) },
        ..Endpoint::default()
    }
}
