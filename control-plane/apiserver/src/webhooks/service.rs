//! Which pods, or addresses, answer for a service.

use std::net::IpAddr;

use serde_json::Value;

use crate::cache::WatchCache;
use crate::object::ObjKey;
use crate::registry::Registry;
use crate::tree;

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// One ready endpoint of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) address: String,
    pub(crate) port: u16,
    /// The pod behind it, if it is one: name and uid.
    pub(crate) pod: Option<(String, String)>,
}

/// Where the connections to a service go.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// To one of these.
    Backends(Vec<Backend>),
    /// To a name outside the cluster.
    External { host: String, port: u16 },
}

/// Why nobody answers for a service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ServiceError {
    #[error("service \"{0}\" not found")]
    Missing(String),
    #[error("no service port {port} found for service \"{name}\"")]
    Port { name: String, port: u16 },
    #[error("no endpoints available for service \"{0}\"")]
    NoEndpoints(String),
}

/// Looks up who answers for `port` of a service now.
pub(super) fn resolve(
    cache: &WatchCache,
    registry: &Registry,
    (namespace, name): (&str, &str),
    port: u16,
) -> Result<Destination, ServiceError> {
    let missing = || ServiceError::Missing(name.to_owned());
    let services = registry
        .by_plural("", "v1", "services")
        .ok_or_else(missing)?;
    let found = cache.of(&services).get(&ObjKey::new(namespace, name));
    let service = found.ok_or_else(missing)?.value();
    if tree::text(&service, &["spec", "type"]) == "ExternalName" {
        let host = tree::text(&service, &["spec", "externalName"]).to_owned();
        return Ok(Destination::External { host, port });
    }
    let ports = tree::list(&service, &["spec", "ports"]);
    let wanted = ports
        .iter()
        .find(|own| tree::int(own, &["port"]) == Some(port.into()))
        .ok_or_else(|| ServiceError::Port {
            name: name.to_owned(),
            port,
        })?;
    let slices = slices(cache, registry, namespace, name);
    let backends = backends(&slices, tree::text(wanted, &["name"]));
    if backends.is_empty() {
        return Err(ServiceError::NoEndpoints(name.to_owned()));
    }
    Ok(Destination::Backends(backends))
}

/// The endpoint slices of a service.
fn slices(cache: &WatchCache, registry: &Registry, namespace: &str, service: &str) -> Vec<Value> {
    let Some(kind) = registry.by_plural("discovery.k8s.io", "v1", "endpointslices") else {
        return Vec::new();
    };
    cache
        .of(&kind)
        .snapshot()
        .range(ObjKey::new(namespace, "")..)
        .take_while(|(key, _)| &*key.namespace == namespace)
        .filter(|(_, slice)| slice.meta.label(SERVICE_NAME) == Some(service))
        .map(|(_, slice)| slice.value())
        .collect()
}

/// The ready endpoints of the slices' port `port_name`.
pub(crate) fn backends(slices: &[Value], port_name: &str) -> Vec<Backend> {
    let mut all = Vec::new();
    for slice in slices {
        let mut ports = tree::list(slice, &["ports"]).iter();
        let port = ports.find(|port| tree::text(port, &["name"]) == port_name);
        let number = port.and_then(|port| tree::int(port, &["port"]));
        let Some(port) = number.and_then(|number| u16::try_from(number).ok()) else {
            continue;
        };
        for endpoint in tree::list(slice, &["endpoints"]) {
            if tree::at(endpoint, &["conditions", "ready"]).as_bool() == Some(false) {
                continue;
            }
            let text = |field| tree::text(endpoint, &["targetRef", field]).to_owned();
            let first = tree::list(endpoint, &["addresses"]).first();
            all.push(Backend {
                address: first.and_then(Value::as_str).unwrap_or_default().to_owned(),
                port,
                pod: (text("kind") == "Pod").then(|| (text("name"), text("uid"))),
            });
        }
    }
    all
}

/// Whether an endpoint that is no pod may be connected to: never this machine itself, nor what is
/// only on its link (upstream's validation keeps such addresses out of endpoints as well).
pub(super) fn may_be_dialled(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_loopback() || v4.is_unspecified() || v4.is_link_local() || v4.is_multicast())
        }
        IpAddr::V6(v6) => {
            let mapped = v6.to_ipv4_mapped().map(IpAddr::V4);
            !(v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unicast_link_local()
                || v6.is_multicast())
                && mapped.is_none_or(may_be_dialled)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ready_endpoints_with_the_port_answer_for_a_service() {
        let slice = json!({"ports": [{"name": "http", "port": 8080}], "endpoints": [
            {"conditions": {"ready": true}, "addresses": ["10.0.0.1"],
                "targetRef": {"kind": "Pod", "name": "a", "uid": "1"}},
            {"conditions": {"ready": false}, "targetRef": {"kind": "Pod", "name": "b", "uid": "2"}},
            {"conditions": {}, "addresses": ["192.0.2.1"]}]});
        let backend = |address: &str, pod: Option<(&str, &str)>| Backend {
            address: address.to_owned(),
            port: 8080,
            pod: pod.map(|(name, uid)| (name.to_owned(), uid.to_owned())),
        };
        assert_eq!(
            backends(std::slice::from_ref(&slice), "http"),
            [
                backend("10.0.0.1", Some(("a", "1"))),
                backend("192.0.2.1", None)
            ]
        );
        assert_eq!(backends(&[slice], "https"), []);
    }

    #[test]
    fn the_servers_own_machine_is_never_an_endpoint() {
        let may = |text: &str| may_be_dialled(text.parse().unwrap());
        for refused in [
            "127.0.0.1",
            "::1",
            "169.254.169.254",
            "fe80::1",
            "0.0.0.0",
            "::ffff:127.0.0.1",
            "224.0.0.1",
        ] {
            assert!(!may(refused), "{refused}");
        }
        assert!(may("192.0.2.1") && may("2001:db8::1"));
    }
}
