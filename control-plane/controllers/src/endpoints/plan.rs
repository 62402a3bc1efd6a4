//! The Endpoints object a Service should have. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use control_plane_client::Cached;
use proto_api::types::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service, ServiceSpec,
};

use crate::pods;
use crate::service_pods::{self, Family};

/// Addresses an object holds at most; ready ones go first.
pub(super) const ADDRESSES_MAX: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// The object; `present` keeps its other annotations.
pub(super) fn endpoints<'a>(
    service: &Cached<Service>,
    spec: &ServiceSpec,
    selected: impl Iterator<Item = &'a Arc<Cached<Pod>>>,
    present: Option<&Endpoints>,
) -> Endpoints {
    let (subsets, truncated) = truncate(subsets(service, spec, selected));
    let mut next = Endpoints {
        subsets,
        ..Endpoints::default()
    };
    next.metadata.name = Some(service.key.name.to_string());
    next.metadata.namespace = Some(service.key.namespace.to_string());
    next.metadata.labels = labels(service, spec);
    if let Some(present) = present {
        next.metadata
            .annotations
            .clone_from(&present.metadata.annotations);
    }
    next.metadata.annotations.remove(OVER_CAPACITY);
    if truncated {
        next.metadata
            .annotations
            .insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    }
    next
}

fn labels(service: &Cached<Service>, spec: &ServiceSpec) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone();
    labels.remove(HEADLESS);
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    if service_pods::is_headless(spec) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

/// Whether this controller made the object; others' are left alone.
pub(super) fn is_ours(present: &Endpoints) -> bool {
    present
        .metadata
        .labels
        .get(MANAGED_BY)
        .is_some_and(|by| by == CONTROLLER)
}

/// Whether the object must be written.
pub(super) fn differs(present: &Endpoints, next: &Endpoints) -> bool {
    let over = |e: &Endpoints| e.metadata.annotations.get(OVER_CAPACITY).cloned();
    present.subsets != next.subsets
        || present.metadata.labels != next.metadata.labels
        || over(present) != over(next)
}

fn subsets<'a>(
    service: &Cached<Service>,
    spec: &ServiceSpec,
    selected: impl Iterator<Item = &'a Arc<Cached<Pod>>>,
) -> Vec<EndpointSubset> {
    let family = service_pods::families(spec)
        .first()
        .copied()
        .unwrap_or(Family::V4);
    let unready_too = spec.publish_not_ready_addresses == Some(true);
    let mut subsets: Vec<EndpointSubset> = Vec::new();
    for pod in selected {
        let Some(ip) = service_pods::pod_ip(pod, family) else {
            continue;
        };
        if pods::is_terminal(pod) || (pods::is_terminating(pod) && !unready_too) {
            continue;
        }
        let ports = ports(pod, spec);
        if ports.is_empty() && !spec.ports.is_empty() {
            continue;
        }
        let node = pods::node_name(pod);
        let address = EndpointAddress {
            ip: ip.to_owned(),
            hostname: service_pods::hostname(pod, &service.key),
            node_name: (!node.is_empty()).then(|| node.to_owned()),
            target_ref: Some(Box::new(service_pods::target_ref(pod))),
        };
        let at = subsets
            .iter()
            .position(|subset| subset.ports == ports)
            .unwrap_or_else(|| {
                subsets.push(EndpointSubset {
                    ports,
                    ..EndpointSubset::default()
                });
                subsets.len() - 1
            });
        if unready_too || pods::is_ready(pod) {
            subsets[at].addresses.push(address);
        } else {
            subsets[at].not_ready_addresses.push(address);
        }
    }
    subsets.sort_by(|a, b| port_order(&a.ports).cmp(&port_order(&b.ports)));
    for subset in &mut subsets {
        subset.addresses.sort_by(|a, b| a.ip.cmp(&b.ip));
        subset.not_ready_addresses.sort_by(|a, b| a.ip.cmp(&b.ip));
    }
    subsets
}

fn ports(pod: &Pod, spec: &ServiceSpec) -> Vec<EndpointPort> {
    let mut ports: Vec<EndpointPort> = spec
        .ports
        .iter()
        .filter_map(|port| {
            Some(EndpointPort {
                name: port.name.clone().filter(|name| !name.is_empty()),
                port: service_pods::target_port(pod, port)?,
                protocol: Some(service_pods::protocol(&port.protocol).to_owned()),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    ports.sort_by(|a, b| (&a.name, a.port, &a.protocol).cmp(&(&b.name, b.port, &b.protocol)));
    ports
}

fn port_order(ports: &[EndpointPort]) -> Vec<(&Option<String>, i32, &Option<String>)> {
    ports
        .iter()
        .map(|port| (&port.name, port.port, &port.protocol))
        .collect()
}

fn truncate(mut subsets: Vec<EndpointSubset>) -> (Vec<EndpointSubset>, bool) {
    let count = |s: &EndpointSubset| s.addresses.len() + s.not_ready_addresses.len();
    if subsets.iter().map(count).sum::<usize>() <= ADDRESSES_MAX {
        return (subsets, false);
    }
    let mut left = ADDRESSES_MAX;
    for subset in &mut subsets {
        subset.addresses.truncate(left);
        left -= subset.addresses.len();
    }
    for subset in &mut subsets {
        subset.not_ready_addresses.truncate(left);
        left -= subset.not_ready_addresses.len();
    }
    subsets.retain(|subset| count(subset) > 0);
    (subsets, true)
}
