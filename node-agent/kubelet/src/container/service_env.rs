//! Environment variables that name services, as containers have had them since Docker links. Pure.

use std::collections::BTreeMap;

use node_agent_state::model::Service;

/// Variables for the services a pod in `namespace` sees: those of its namespace when `links` are
/// on, and always the API server's.
pub(crate) fn variables<'a>(
    services: impl Iterator<Item = &'a Service>,
    namespace: &str,
    links: Links,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let mut chosen: Vec<&Service> = services
        .filter(|service| !service.headless && !service.cluster_ips.is_empty())
        .filter(|service| {
            let is_api = service.namespace == "default" && service.name == "kubernetes";
            let is_linked = matches!(links, Links::On) && service.namespace == namespace;
            is_api || is_linked
        })
        .collect();
    // A service of the pod's own namespace wins over the API server's of the same name.
    chosen.sort_by_key(|service| service.namespace == namespace);
    for service in chosen {
        add(service, &mut variables);
    }
    variables
}

/// `enableServiceLinks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    On,
    Off,
}

fn add(service: &Service, variables: &mut BTreeMap<String, String>) {
    let (Some(ip), Some(first)) = (service.cluster_ips.first(), service.ports.first()) else {
        return;
    };
    let ip_text = ip.to_string();
    let host = if ip.is_ipv6() {
        format!("[{ip}]")
    } else {
        ip_text.clone()
    };
    let prefix = service.name.to_uppercase().replace('-', "_");
    variables.insert(format!("{prefix}_SERVICE_HOST"), ip_text.clone());
    variables.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    for port in &service.ports {
        if !port.name.is_empty() {
            let name = port.name.to_uppercase().replace('-', "_");
            variables.insert(
                format!("{prefix}_SERVICE_PORT_{name}"),
                port.port.to_string(),
            );
        }
    }
    for (index, port) in service.ports.iter().enumerate() {
        let upper = port.protocol.as_str().to_uppercase();
        let lower = upper.to_lowercase();
        let url = format!("{lower}://{host}:{}", port.port);
        if index == 0 {
            variables.insert(format!("{prefix}_PORT"), url.clone());
        }
        let port_prefix = format!("{prefix}_PORT_{}_{upper}", port.port);
        variables.insert(port_prefix.clone(), url);
        variables.insert(format!("{port_prefix}_PROTO"), lower);
        variables.insert(format!("{port_prefix}_PORT"), port.port.to_string());
        variables.insert(format!("{port_prefix}_ADDR"), ip_text.clone());
    }
}

#[cfg(test)]
mod tests {
    use node_agent_state::model::{Protocol, ServicePort};

    use super::*;

    fn service(namespace: &str, name: &str, ip: &str, ports: &[(&str, u16)]) -> Service {
        Service {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            cluster_ips: vec![ip.parse().unwrap()],
            ports: ports
                .iter()
                .map(|(name, port)| ServicePort {
                    name: (*name).to_owned(),
                    protocol: Protocol::Tcp,
                    port: *port,
                    node_port: None,
                })
                .collect(),
            ..Service::default()
        }
    }

    #[test]
    fn own_namespace_and_the_api_server_are_named() {
        let services = [
            service("default", "kubernetes", "10.96.0.1", &[("https", 443)]),
            service("shop", "my-db", "10.96.0.9", &[("", 5432)]),
            service("other", "hidden", "10.96.0.8", &[("", 1)]),
        ];
        let on = variables(services.iter(), "shop", Links::On);
        let expected = [
            ("KUBERNETES_PORT", "tcp://10.96.0.1:443"),
            ("KUBERNETES_PORT_443_TCP", "tcp://10.96.0.1:443"),
            ("KUBERNETES_PORT_443_TCP_ADDR", "10.96.0.1"),
            ("KUBERNETES_PORT_443_TCP_PORT", "443"),
            ("KUBERNETES_PORT_443_TCP_PROTO", "tcp"),
            ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
            ("KUBERNETES_SERVICE_PORT", "443"),
            ("KUBERNETES_SERVICE_PORT_HTTPS", "443"),
            ("MY_DB_PORT", "tcp://10.96.0.9:5432"),
            ("MY_DB_PORT_5432_TCP", "tcp://10.96.0.9:5432"),
            ("MY_DB_PORT_5432_TCP_ADDR", "10.96.0.9"),
            ("MY_DB_PORT_5432_TCP_PORT", "5432"),
            ("MY_DB_PORT_5432_TCP_PROTO", "tcp"),
            ("MY_DB_SERVICE_HOST", "10.96.0.9"),
            ("MY_DB_SERVICE_PORT", "5432"),
        ];
        let on: Vec<(&str, &str)> = on.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(on, expected);
        let off = variables(services.iter(), "shop", Links::Off);
        assert!(off.keys().all(|name| name.starts_with("KUBERNETES_")));
        assert_eq!(off.len(), 8);
    }
}
