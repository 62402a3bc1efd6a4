//! Sets of backends by which a reader can tell to which publication a choice belongs.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use node_agent_datapath::abi::frontend::Frontend;
use node_agent_datapath::abi::meta::Meta;
use node_agent_datapath::abi::service::{Backend, BackendLoad, Head, Service, Slot};
use node_agent_datapath::maps::kernel::KernelServiceMaps;
use node_agent_datapath::maps::{
    FrontendKey, HeadKind, Limits, MapError, ReadServiceMaps, ServiceMaps, from_addr,
};
use node_agent_state::model::{self, EndpointPort, Protocol, ServicePort};
use node_agent_state::{ObjectName, ServiceEntry, Snapshot};

/// The kernel's maps; each backend is marked with the parity of the generations that may have it.
#[derive(Debug)]
pub(crate) struct Parity(pub(crate) KernelServiceMaps);

/// Bit `generation & 1` for the backends of [`backends`]: the third byte of the address.
fn mark(backend: &Backend) -> u32 {
    match from_addr(&backend.addr) {
        IpAddr::V4(address) => 1 << (address.octets()[2] & 1),
        IpAddr::V6(_) => 0,
    }
}

/// Between 60 and 100 backends for a generation.
pub(crate) fn backends(generation: u16, change: u64) -> Vec<Ipv4Addr> {
    let parity = u8::try_from(generation & 1).unwrap();
    let count = 60 + u8::try_from(change % 41).unwrap();
    (1..=count)
        .map(|last| Ipv4Addr::new(10, 244, parity, last))
        .collect()
}

/// One service with these backends.
pub(crate) fn tables(backends: &[Ipv4Addr], sequence: u64) -> Arc<Snapshot> {
    let service = model::Service {
        namespace: "default".into(),
        name: "web".into(),
        cluster_ips: vec!["10.96.0.7".parse().unwrap()],
        ports: vec![ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
        }],
        ..model::Service::default()
    };
    let endpoint = |address: &Ipv4Addr| model::Endpoint {
        address: (*address).into(),
        hostname: None,
        node: None,
        zone: None,
        pod: None,
        ready: true,
        serving: true,
        terminating: false,
        ports: vec![EndpointPort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 8080,
        }],
    };
    let entry = ServiceEntry {
        service: Some(Arc::new(service)),
        endpoints: Arc::new(backends.iter().map(endpoint).collect()),
    };
    let mut tables = Snapshot {
        sequence,
        in_sync: true,
        ..Snapshot::default()
    };
    tables
        .services
        .insert(ObjectName::new("default", "web"), Arc::new(entry));
    Arc::new(tables)
}

impl ReadServiceMaps for Parity {
    fn limits(&self) -> Limits {
        self.0.limits()
    }
    fn service(&self, index: u32) -> Result<Service, MapError> {
        self.0.service(index)
    }
    fn backend(&self, index: u32) -> Result<Backend, MapError> {
        self.0.backend(index)
    }
    fn load(&self, index: u32) -> Result<BackendLoad, MapError> {
        self.0.load(index)
    }
    fn slots(&self, base: u32, len: u16) -> Result<Vec<Slot>, MapError> {
        self.0.slots(base, len)
    }
    fn frontends(&self) -> Result<Vec<(FrontendKey, Frontend)>, MapError> {
        self.0.frontends()
    }
    fn meta(&self) -> Result<Meta, MapError> {
        self.0.meta()
    }
}

impl ServiceMaps for Parity {
    fn write_service(&mut self, index: u32, service: &Service) -> Result<(), MapError> {
        self.0.write_service(index, service)
    }
    fn publish(&mut self, index: u32, kind: HeadKind, head: Head) -> Result<(), MapError> {
        self.0.publish(index, kind, head)
    }
    fn set_options(&mut self, index: u32, flags: u32, affinity_s: u32) -> Result<(), MapError> {
        self.0.set_options(index, flags, affinity_s)
    }
    fn write_slots(&mut self, base: u32, slots: &[Slot]) -> Result<(), MapError> {
        self.0.write_slots(base, slots)
    }
    fn write_backend(&mut self, index: u32, backend: &Backend) -> Result<(), MapError> {
        let marked = Backend {
            node: mark(backend),
            ..*backend
        };
        self.0.write_backend(index, &marked)
    }
    fn reset_load(&mut self, index: u32) -> Result<(), MapError> {
        self.0.reset_load(index)
    }
    fn insert_frontends(&mut self, entries: &[(FrontendKey, Frontend)]) -> Result<(), MapError> {
        self.0.insert_frontends(entries)
    }
    fn remove_frontends(&mut self, keys: &[FrontendKey]) -> Result<(), MapError> {
        self.0.remove_frontends(keys)
    }
    fn set_applied_revision(&mut self, revision: u64) -> Result<(), MapError> {
        self.0.set_applied_revision(revision)
    }
}
