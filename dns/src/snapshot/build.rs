//! From the cluster's state to its names. Pure; the rules are those of the Kubernetes DNS
//! specification 1.1.0, section 2.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::cluster::{ClusterNames, EndpointNames, PortName, ServiceNames};
use crate::config::PodNames;
use crate::names;
use crate::snapshot::{Records, RelativeName, Snapshot, Special, Srv, Zone};

/// The service that stands for this server, for the zone's NS record.
const DNS_SERVICE: (&str, &str) = ("kube-system", "kube-dns");

impl Snapshot {
    /// Makes the table. Names that do not fit into DNS are left out.
    pub(crate) fn build(cluster: &ClusterNames, zone: &Zone, serial: u32) -> Self {
        let mut builder = Builder::default();
        builder.zone(cluster, zone.pod_names);
        for service in &cluster.services {
            builder.service(service);
        }
        builder.finish(cluster.revision, serial)
    }
}

/// What a name has while it is gathered.
#[derive(Debug, Default)]
struct Gathered {
    addresses: Vec<IpAddr>,
    srv: Vec<Srv>,
    cname: Option<Box<[u8]>>,
    special: Special,
}

#[derive(Debug, Default)]
struct Builder {
    names: HashMap<RelativeName, Gathered>,
    reverse: HashMap<IpAddr, Vec<RelativeName>>,
}

impl Builder {
    /// The name's record, made if it is missing. `None`: it cannot be a name.
    fn name(&mut self, labels: &[&str]) -> Option<(RelativeName, &mut Gathered)> {
        let name: RelativeName = names::relative(labels.iter().copied())?.into();
        Some((Arc::clone(&name), self.names.entry(name).or_default()))
    }

    fn zone(&mut self, cluster: &ClusterNames, pod_names: PodNames) {
        for empty in [["svc"].as_slice(), &["pod"], &["dns"]] {
            self.name(empty);
        }
        if let Some((_, apex)) = self.name(&[]) {
            apex.special = Special::Apex;
        }
        if let Some((_, version)) = self.name(&["dns-version"]) {
            version.special = Special::Version;
        }
        let server = cluster
            .services
            .iter()
            .find(|service| (service.namespace.as_str(), service.name.as_str()) == DNS_SERVICE);
        if let Some((_, name)) = self.name(&["ns", "dns"]) {
            name.addresses = server
                .map(|service| service.cluster_ips.clone())
                .unwrap_or_default();
        }
        let of_services = cluster.services.iter().map(|service| &service.namespace);
        for namespace in cluster.namespaces.iter().chain(of_services) {
            self.name(&[namespace, "svc"]);
            match pod_names {
                PodNames::Insecure => drop(self.name(&[namespace, "pod"])),
                PodNames::Disabled => {}
            }
        }
    }

    fn service(&mut self, service: &ServiceNames) {
        let labels = [service.name.as_str(), service.namespace.as_str(), "svc"];
        if let Some(target) = &service.external_name {
            // An address is no name to be an alias of.
            let is_name = target.parse::<IpAddr>().is_err();
            let Some(target) = names::absolute(target).filter(|_| is_name) else {
                return;
            };
            if let Some((_, name)) = self.name(&labels) {
                name.cname = Some(target);
            }
            return;
        }
        let ready = || service.endpoints.iter().filter(|endpoint| endpoint.ready);
        if service.headless {
            for endpoint in ready() {
                self.headless_endpoint(service, &labels, endpoint);
            }
            return;
        }
        let Some((target, name)) = self.name(&labels) else {
            return;
        };
        name.addresses.extend(&service.cluster_ips);
        for ip in &service.cluster_ips {
            self.reverse
                .entry(*ip)
                .or_default()
                .push(Arc::clone(&target));
        }
        for port in &service.ports {
            self.port(&labels, port, &target);
        }
        for endpoint in ready() {
            self.endpoint(&labels, endpoint);
        }
    }

    fn headless_endpoint(
        &mut self,
        service: &ServiceNames,
        labels: &[&str; 3],
        endpoint: &EndpointNames,
    ) {
        if let Some((_, name)) = self.name(labels) {
            name.addresses.push(endpoint.ip);
        }
        let Some(target) = self.endpoint(labels, endpoint) else {
            return;
        };
        let ports = if endpoint.ports.is_empty() {
            &service.ports
        } else {
            &endpoint.ports
        };
        for port in ports {
            self.port(labels, port, &target);
        }
    }

    /// The endpoint's own name and its way back.
    fn endpoint(&mut self, labels: &[&str; 3], endpoint: &EndpointNames) -> Option<RelativeName> {
        let [service, namespace, svc] = *labels;
        let dashed = names::dashed(endpoint.ip);
        let host = endpoint
            .hostname
            .as_deref()
            .filter(|host| !host.is_empty())
            .unwrap_or(&dashed);
        let (target, name) = self.name(&[host, service, namespace, svc])?;
        name.addresses.push(endpoint.ip);
        self.reverse
            .entry(endpoint.ip)
            .or_default()
            .push(Arc::clone(&target));
        Some(target)
    }

    /// A port at the service's name, and at a name of its own when it has one.
    fn port(&mut self, labels: &[&str; 3], port: &PortName, target: &RelativeName) {
        let srv = || Srv {
            target: Arc::clone(target),
            port: port.port,
        };
        if let Some((_, name)) = self.name(labels) {
            name.srv.push(srv());
        }
        if port.name.is_empty() {
            return;
        }
        let [service, namespace, svc] = *labels;
        let (own, protocol) = (format!("_{}", port.name), port.protocol.label());
        if let Some((_, name)) = self.name(&[&own, protocol, service, namespace, svc]) {
            name.srv.push(srv());
            self.name(&[protocol, service, namespace, svc]);
        }
    }

    fn finish(self, revision: u64, serial: u32) -> Snapshot {
        let mut reverse = self.reverse;
        for names in reverse.values_mut() {
            names.sort_unstable();
            names.dedup();
        }
        let names = self
            .names
            .into_iter()
            .map(|(name, gathered)| (name, gathered.into()))
            .collect();
        Snapshot {
            revision,
            serial,
            names,
            reverse,
        }
    }
}

impl From<Gathered> for Records {
    fn from(gathered: Gathered) -> Self {
        let Gathered {
            mut addresses,
            mut srv,
            cname,
            special,
        } = gathered;
        addresses.sort_unstable();
        addresses.dedup();
        srv.sort_unstable_by(|a, b| (&a.target, a.port).cmp(&(&b.target, b.port)));
        srv.dedup();
        let v4 = addresses.iter().filter_map(|ip| match ip {
            IpAddr::V4(ip) => Some(*ip),
            IpAddr::V6(_) => None,
        });
        let v6 = addresses.iter().filter_map(|ip| match ip {
            IpAddr::V4(_) => None,
            IpAddr::V6(ip) => Some(*ip),
        });
        Self {
            v4: v4.collect(),
            v6: v6.collect(),
            srv: srv.into(),
            cname,
            special,
        }
    }
}
