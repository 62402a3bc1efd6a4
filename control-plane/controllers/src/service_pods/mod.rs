//! What the endpoint controllers share: which pods a Service selects, their addresses and ports, and
//! which change of a pod concerns which Service.

use std::net::IpAddr;
use std::sync::Arc;

use control_plane_client::{Cached, Change, Informer, ObjectKey, Snapshot, WorkQueue, selector};
use proto_api::types::IntOrString;
use proto_api::types::core::v1::{ObjectReference, Pod, Service, ServicePort, ServiceSpec};

use crate::pods;

/// The address families of a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// The name in API objects (`ipFamilies`, `addressType`).
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }
}

/// The Service's spec when the controllers make its endpoints: it selects pods and is no alias.
pub(crate) fn selecting(service: &Service) -> Option<&ServiceSpec> {
    let spec = service.spec.as_ref()?;
    let alias = spec.type_.as_deref() == Some("ExternalName");
    (!alias && !spec.selector.is_empty()).then_some(spec)
}

pub(crate) fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
}

/// The families of a Service, the primary one first.
pub(crate) fn families(spec: &ServiceSpec) -> Vec<Family> {
    let named: Vec<Family> = spec
        .ip_families
        .iter()
        .filter_map(|name| {
            [Family::V4, Family::V6]
                .into_iter()
                .find(|f| f.name() == name)
        })
        .collect();
    if !named.is_empty() {
        return named;
    }
    let address: Option<IpAddr> = spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok());
    vec![address.map_or(Family::V4, Family::of)]
}

/// The pod's address of a family, in the form the pod's status has it.
pub(crate) fn pod_ip(pod: &Pod, family: Family) -> Option<&str> {
    let status = pod.status.as_ref()?;
    let primary = status.pod_ip.as_deref();
    let all = status
        .pod_ips
        .iter()
        .map(|ip| ip.ip.as_str())
        .chain(primary);
    all.into_iter()
        .find(|ip| ip.parse().is_ok_and(|ip: IpAddr| Family::of(ip) == family))
}

/// The pods a Service selects.
pub(crate) fn selected<'a>(
    pods: &'a Snapshot<Pod>,
    namespace: &'a str,
    labels: &'a [(&'a str, &'a str)],
) -> impl Iterator<Item = &'a Arc<Cached<Pod>>> {
    pods.with_labels(namespace, labels)
}

/// The number a Service port has on a pod; `None` when the pod has no port of that name.
pub(crate) fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match &port.target_port {
        None | Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let sidecars = spec
        .init_containers
        .iter()
        .filter(|c| c.restart_policy.as_deref() == Some("Always"));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| &container.ports)
        .find(|own| {
            own.name.as_deref() == Some(name) && protocol(&own.protocol) == protocol(&port.protocol)
        })
        .map(|own| own.container_port)
}

pub(crate) fn protocol(protocol: &Option<String>) -> &str {
    protocol
        .as_deref()
        .filter(|name| !name.is_empty())
        .unwrap_or("TCP")
}

/// How endpoints name the pod behind them.
pub(crate) fn target_ref(pod: &Cached<Pod>) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.key.namespace.to_string()),
        name: Some(pod.key.name.to_string()),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The host name that the pod has within the Service's domain.
pub(crate) fn hostname(pod: &Cached<Pod>, service: &ObjectKey) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.as_ref().filter(|name| !name.is_empty())?;
    let here =
        spec.subdomain.as_deref() == Some(&*service.name) && pod.key.namespace == service.namespace;
    here.then(|| hostname.clone())
}

/// What of a pod shows in endpoints.
fn visible(pod: &Pod) -> impl PartialEq + '_ {
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    (
        pods::is_terminal(pod),
        pods::is_terminating(pod),
        pods::is_ready(pod),
        pods::node_name(pod),
        &pod.metadata.uid,
        &pod.metadata.labels,
        status.map(|status| (&status.pod_ip, &status.pod_ips)),
        spec.map(|spec| (&spec.hostname, &spec.subdomain)),
    )
}

/// Wakes the Services that select the pod before or after the change, unless nothing shows of it.
pub(crate) fn wake_for_pod(
    change: &Change<Pod>,
    services: &Informer<Service>,
    queue: &WorkQueue<ObjectKey>,
) {
    if let Change::Modified { old, new } = change
        && visible(old) == visible(new)
    {
        return;
    }
    let pod = change.object();
    let before = change.old().map(|old| &old.metadata.labels);
    for service in services.snapshot().in_namespace(&pod.key.namespace) {
        let Some(spec) = selecting(service) else {
            continue;
        };
        let selects = |labels| selector::matches_map(&spec.selector, labels);
        if selects(&pod.metadata.labels) || before.is_some_and(selects) {
            queue.add(service.key.clone());
        }
    }
}
