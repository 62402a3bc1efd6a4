//! Which addresses and node ports a service takes, and which it gives back.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::families;
use crate::alloc::{
    AllocationIndex, NODE_PORTS, ServiceCidr, ServiceRanges, ip_key, node_port_key,
};
use crate::field::{FieldError, Path};
use crate::tree;

/// The numbers that a service holds, as store keys.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Numbers(pub(crate) Vec<String>);

impl Numbers {
    /// Those of a complete service.
    pub(crate) fn of(service: &Value) -> Self {
        let mut keys = Vec::new();
        if tree::text(service, &["spec", "type"]) == "ExternalName" {
            return Self(keys);
        }
        let ips = tree::list(service, &["spec", "clusterIPs"]);
        let ips = ips.iter().filter_map(|ip| ip.as_str()?.parse().ok());
        keys.extend(ips.map(ip_key));
        let health = tree::int(service, &["spec", "healthCheckNodePort"]);
        if let Some(number) = health
            .and_then(|n| u16::try_from(n).ok())
            .filter(|n| *n != 0)
        {
            keys.push(node_port_key("TCP", number));
        }
        for port in tree::list(service, &["spec", "ports"]) {
            let number = tree::int(port, &["nodePort"]).and_then(|n| u16::try_from(n).ok());
            if let Some(number) = number.filter(|number| *number != 0) {
                keys.push(node_port_key(tree::text(port, &["protocol"]), number));
            }
        }
        Self(keys)
    }
}

/// One number that a service asks for, and what to say when somebody else has it.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// Its store key.
    pub(crate) key: String,
    /// The error when it is taken; `None`: it was our choice, choose again.
    pub(crate) taken: Option<FieldError>,
}

/// What a service still needs and what it takes, decided against the index.
#[derive(Debug)]
pub(crate) struct Allocator<'a> {
    pub(crate) index: &'a AllocationIndex,
    pub(crate) ranges: ServiceRanges,
    /// Ranges that were added to them, by family.
    pub(crate) more: Vec<ServiceCidr>,
    pub(crate) held: &'a Numbers,
}

impl Allocator<'_> {
    /// Fills missing numbers of `service`; returns those that it takes anew.
    ///
    /// # Errors
    /// A number is outside its range, or nothing is free.
    pub(crate) fn fill(
        &self,
        service: &mut Value,
        mut random: impl FnMut() -> u32,
    ) -> Result<Vec<Wanted>, FieldError> {
        let kind = tree::text(service, &["spec", "type"]).to_owned();
        if kind == "ExternalName" {
            release_address(service);
            return Ok(Vec::new());
        }
        let mut wanted = Vec::new();
        let ranges = families::settle(service, &self.ranges)?;
        self.addresses(service, &ranges, &mut wanted, &mut random)?;
        let wants_ports = match kind.as_str() {
            "NodePort" => true,
            "LoadBalancer" => tree::flag(service, &["spec", "allocateLoadBalancerNodePorts"]),
            _ => false,
        };
        self.ports(service, wants_ports, &mut wanted, &mut random)?;
        if families::needs_health_check(service) {
            self.health_port(service, &mut wanted, &mut random)?;
        }
        wanted.retain(|one| !self.held.0.contains(&one.key));
        Ok(wanted)
    }

    /// One address of each range: those that the service names, and free ones for the rest.
    fn addresses(
        &self,
        service: &mut Value,
        ranges: &[ServiceCidr],
        wanted: &mut Vec<Wanted>,
        mut random: impl FnMut() -> u32,
    ) -> Result<(), FieldError> {
        let path = Path::root("spec").child("clusterIPs");
        let named: Vec<String> = tree::list(service, &["spec", "clusterIPs"])
            .iter()
            .filter_map(|ip| Some(ip.as_str()?.to_owned()))
            .collect();
        if named.first().is_some_and(|ip| ip == "None") {
            return Ok(());
        }
        let mut all = Vec::new();
        for (i, range) in ranges.iter().enumerate() {
            let Some(text) = named.get(i) else {
                let more = self.more.iter().filter(|it| it.family() == range.family());
                let free = std::iter::once(range)
                    .chain(more)
                    .find_map(|range| self.index.free_ip(*range, random()));
                let Some(ip) = free else {
                    let detail = "failed to allocate a serviceIP: range is full";
                    return Err(FieldError::invalid(&path, json!(named), detail));
                };
                all.push(ip.to_string());
                wanted.push(Wanted {
                    key: ip_key(ip),
                    taken: None,
                });
                continue;
            };
            wanted.push(self.named_address(text, &named, *range)?);
            all.push(text.clone());
        }
        let spec = tree::object_mut(service, "spec");
        spec.insert("clusterIP".to_owned(), json!(all.first()));
        spec.insert("clusterIPs".to_owned(), json!(all));
        Ok(())
    }

    /// An address that the service names.
    fn named_address(
        &self,
        text: &str,
        named: &[String],
        range: ServiceCidr,
    ) -> Result<Wanted, FieldError> {
        let path = Path::root("spec").child("clusterIPs");
        let Ok(ip) = text.parse::<IpAddr>() else {
            let detail = format!(
                "failed to allocate IP {text}: the provided network does not match the current range"
            );
            return Err(FieldError::invalid(&path, json!(named), detail));
        };
        let key = ip_key(ip);
        let more = self.more.iter().filter(|it| it.family() == range.family());
        let allowed = range.allows(ip) || { more }.any(|range| range.allows(ip));
        if !allowed && !self.held.0.contains(&key) {
            let detail = format!(
                "failed to allocate IP {ip}: the provided IP ({ip}) is not in the valid range. The \
                 range of valid IPs is {range}"
            );
            return Err(FieldError::invalid(&path, json!(named), detail));
        }
        let detail = format!("failed to allocate IP {ip}: provided IP is already allocated");
        let taken = Some(FieldError::invalid(&path, json!(named), detail));
        Ok(Wanted { key, taken })
    }

    /// The port that tells load balancers which nodes have endpoints.
    fn health_port(
        &self,
        service: &mut Value,
        wanted: &mut Vec<Wanted>,
        mut random: impl FnMut() -> u32,
    ) -> Result<(), FieldError> {
        let path = Path::root("spec").child("healthCheckNodePort");
        let number = tree::int(service, &["spec", "healthCheckNodePort"]).unwrap_or_default();
        if let Some(number) = u16::try_from(number).ok().filter(|number| *number != 0) {
            let detail = "provided port is already allocated";
            wanted.push(Wanted {
                key: node_port_key("TCP", number),
                taken: Some(FieldError::invalid(&path, number, detail)),
            });
            return Ok(());
        }
        let Some(number) = self.choose("TCP", wanted, &mut random) else {
            let detail = "failed to allocate a nodePort: range is full";
            return Err(FieldError::invalid(&path, 0, detail));
        };
        tree::object_mut(service, "spec").insert("healthCheckNodePort".to_owned(), json!(number));
        wanted.push(Wanted {
            key: node_port_key("TCP", number),
            taken: None,
        });
        Ok(())
    }

    fn ports(
        &self,
        service: &mut Value,
        wants_ports: bool,
        wanted: &mut Vec<Wanted>,
        mut random: impl FnMut() -> u32,
    ) -> Result<(), FieldError> {
        let spec = tree::object_mut(service, "spec");
        // A port number asked for twice with different protocols shares one node port.
        let mut chosen: Vec<(i64, u16)> = Vec::new();
        for (i, port) in tree::list_mut(spec, "ports").iter_mut().enumerate() {
            let path = Path::root("spec").child("ports").index(i).child("nodePort");
            let protocol = tree::text(port, &["protocol"]).to_owned();
            let number = tree::int(port, &["nodePort"]).unwrap_or_default();
            if number != 0 {
                let Some(number) = u16::try_from(number)
                    .ok()
                    .filter(|n| NODE_PORTS.contains(n))
                else {
                    let detail = format!(
                        "provided port is not in the valid range. The range of valid ports is {}-{}",
                        NODE_PORTS.start(),
                        NODE_PORTS.end()
                    );
                    return Err(FieldError::invalid(&path, number, detail));
                };
                let detail = "provided port is already allocated";
                let taken = Some(FieldError::invalid(&path, number, detail));
                wanted.push(Wanted {
                    key: node_port_key(&protocol, number),
                    taken,
                });
                continue;
            }
            if !wants_ports {
                continue;
            }
            let service_port = tree::int(port, &["port"]).unwrap_or_default();
            let shared = chosen
                .iter()
                .find(|(port, _)| *port == service_port)
                .map(|(_, n)| *n);
            let number = match shared {
                Some(number) => Some(number),
                None => self.choose(&protocol, wanted, &mut random),
            };
            let Some(number) = number else {
                let detail = "failed to allocate a nodePort: range is full";
                return Err(FieldError::invalid(&path, 0, detail));
            };
            chosen.push((service_port, number));
            tree::as_object(port).insert("nodePort".to_owned(), json!(number));
            wanted.push(Wanted {
                key: node_port_key(&protocol, number),
                taken: None,
            });
        }
        Ok(())
    }

    /// A port that is free in the index and not wanted by this service already.
    fn choose(
        &self,
        protocol: &str,
        wanted: &[Wanted],
        random: &mut impl FnMut() -> u32,
    ) -> Option<u16> {
        const ATTEMPTS: u32 = 16;
        (0..ATTEMPTS).find_map(|attempt| {
            let from = random().wrapping_add(attempt);
            let number = self.index.free_node_port(&[protocol], from)?;
            let key = node_port_key(protocol, number);
            wanted.iter().all(|one| one.key != key).then_some(number)
        })
    }
}

fn release_address(service: &mut Value) {
    let spec = tree::object_mut(service, "spec");
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        spec.shift_remove(field);
    }
    for port in tree::list_mut(spec, "ports") {
        tree::as_object(port).shift_remove("nodePort");
    }
}
