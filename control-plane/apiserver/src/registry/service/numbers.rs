//! Which addresses and node ports a service takes, and which it gives back.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::alloc::{AllocationIndex, NODE_PORTS, ServiceCidr, ip_key, node_port_key};
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
        let ip: Result<Ipv4Addr, _> = tree::text(service, &["spec", "clusterIP"]).parse();
        if let Ok(ip) = ip {
            keys.push(ip_key(ip));
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
    pub(crate) cidr: ServiceCidr,
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
        self.address(service, &mut wanted, random())?;
        let wants_ports = match kind.as_str() {
            "NodePort" => true,
            "LoadBalancer" => tree::flag(service, &["spec", "allocateLoadBalancerNodePorts"]),
            _ => false,
        };
        self.ports(service, wants_ports, &mut wanted, random)?;
        wanted.retain(|one| !self.held.0.contains(&one.key));
        Ok(wanted)
    }

    fn address(
        &self,
        service: &mut Value,
        wanted: &mut Vec<Wanted>,
        random: u32,
    ) -> Result<(), FieldError> {
        let path = Path::root("spec").child("clusterIPs");
        let text = tree::text(service, &["spec", "clusterIP"]).to_owned();
        if text == "None" {
            return Ok(());
        }
        if text.is_empty() {
            let Some(ip) = self.index.free_ip(self.cidr, random) else {
                let detail = "failed to allocate a serviceIP: range is full";
                return Err(FieldError::invalid(&path, json!([]), detail));
            };
            let spec = tree::object_mut(service, "spec");
            spec.insert("clusterIP".to_owned(), json!(ip.to_string()));
            spec.insert("clusterIPs".to_owned(), json!([ip.to_string()]));
            wanted.push(Wanted {
                key: ip_key(ip),
                taken: None,
            });
            return Ok(());
        }
        let Ok(ip) = text.parse::<Ipv4Addr>() else {
            let detail = format!(
                "failed to allocate IP {text}: the provided network does not match the current range"
            );
            return Err(FieldError::invalid(&path, json!([text]), detail));
        };
        let key = ip_key(ip);
        if !self.cidr.allows(ip) && !self.held.0.contains(&key) {
            let detail = format!(
                "failed to allocate IP {ip}: the provided IP ({ip}) is not in the valid range. The \
                 range of valid IPs is {}",
                self.cidr
            );
            return Err(FieldError::invalid(&path, json!([text]), detail));
        }
        let detail = format!("failed to allocate IP {ip}: provided IP is already allocated");
        let taken = Some(FieldError::invalid(&path, json!([text]), detail));
        wanted.push(Wanted { key, taken });
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
        const ATTEMPTS: usize = 16;
        (0..ATTEMPTS).find_map(|_| {
            let number = self.index.free_node_port(&[protocol], random())?;
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
