//! The service maps as a person reads them: frontends with the backends behind each.
//!
//! Values only, in a fixed order, so that the same view serves the command line, its JSON and the
//! golden scripts of the proxy.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ebpf_abi::frontend::{FE_EXTERNAL, FE_LOCAL, FE_NODE_PORT, FE_WILDCARD, Frontend};
use ebpf_abi::service::{
    BE_ACTIVE, BE_FLAG_LOCAL, BE_FREE, BE_REMOVED, BE_TERMINATING, SVC_AFFINITY, Service,
};
use serde::{Deserialize, Serialize};

use super::{FrontendKey, HeadKind, IpProtocol, MapError, ReadServiceMaps, from_addr};

/// What sort of address a frontend has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FrontendKind {
    ClusterIp,
    NodePort,
    External,
    /// Refuses the ports of a service's address that no service has.
    Wildcard,
}

/// From which backends a frontend chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    Cluster,
    Local,
}

/// State of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BackendState {
    Active,
    Terminating,
    /// Left its service; old connections go on for the moment.
    Removed,
    Free,
    /// A number that this version does not know.
    Unknown,
}

impl From<u8> for BackendState {
    fn from(state: u8) -> Self {
        match state {
            BE_ACTIVE => Self::Active,
            BE_TERMINATING => Self::Terminating,
            BE_REMOVED => Self::Removed,
            BE_FREE => Self::Free,
            _ => Self::Unknown,
        }
    }
}

/// One frontend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FrontendView {
    pub address: IpAddr,
    pub port: u16,
    pub protocol: IpProtocol,
    pub kind: FrontendKind,
    pub scope: Scope,
    /// Index in `svc`; 0 for a wildcard.
    pub service: u32,
}

impl FrontendView {
    /// The key it was made from.
    #[must_use]
    pub fn key(&self) -> FrontendKey {
        FrontendKey {
            address: self.address,
            port: self.port,
            protocol: self.protocol,
        }
    }
}

/// One backend of one set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendView {
    /// Index in `be`.
    pub index: u32,
    pub address: SocketAddr,
    pub state: BackendState,
    /// On this node.
    pub local: bool,
    pub generation: u32,
    /// Connections that are open now, and that were ever opened.
    pub in_flight: i64,
    pub opened: u64,
}

/// One service: what all its frontends share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceView {
    /// Index in `svc`.
    pub index: u32,
    pub protocol: IpProtocol,
    /// Session affinity's time-out; absent without affinity.
    pub affinity_seconds: Option<u32>,
    pub ready: Vec<BackendView>,
    pub local: Vec<BackendView>,
    pub terminating: Vec<BackendView>,
}

/// All services of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerView {
    /// In key order.
    pub frontends: Vec<FrontendView>,
    /// By index in `svc`.
    pub services: BTreeMap<u32, ServiceView>,
    /// Revision of the desired state that is published in full.
    pub applied_revision: u64,
}

fn frontend_view(key: FrontendKey, value: Frontend) -> FrontendView {
    let has = |flag: u16| value.flags & flag != 0;
    let kind = match () {
        () if has(FE_WILDCARD) => FrontendKind::Wildcard,
        () if has(FE_NODE_PORT) => FrontendKind::NodePort,
        () if has(FE_EXTERNAL) => FrontendKind::External,
        () => FrontendKind::ClusterIp,
    };
    FrontendView {
        address: key.address,
        port: key.port,
        protocol: key.protocol,
        kind,
        scope: if has(FE_LOCAL) {
            Scope::Local
        } else {
            Scope::Cluster
        },
        service: value.svc,
    }
}

fn backends(
    maps: &dyn ReadServiceMaps,
    service: &Service,
    kind: HeadKind,
) -> Result<Vec<BackendView>, MapError> {
    let head = kind.of(service);
    let mut views = Vec::with_capacity(head.len.into());
    for slot in maps.slots(head.base, head.len)? {
        let backend = maps.backend(slot.backend)?;
        let load = maps.load(slot.backend)?;
        views.push(BackendView {
            index: slot.backend,
            address: SocketAddr::new(from_addr(&backend.addr), u16::from_be_bytes(backend.port)),
            state: backend.state.into(),
            local: backend.flags & BE_FLAG_LOCAL != 0,
            generation: backend.generation,
            in_flight: load.in_flight,
            opened: load.opened,
        });
    }
    views.sort_by_key(|view| (view.address, view.index));
    Ok(views)
}

fn service_view(maps: &dyn ReadServiceMaps, index: u32) -> Result<ServiceView, MapError> {
    let service = maps.service(index)?;
    Ok(ServiceView {
        index,
        protocol: IpProtocol(service.proto),
        affinity_seconds: (service.flags & SVC_AFFINITY != 0).then_some(service.affinity_s),
        ready: backends(maps, &service, HeadKind::Ready)?,
        local: backends(maps, &service, HeadKind::Local)?,
        terminating: backends(maps, &service, HeadKind::Terminating)?,
    })
}

impl LoadBalancerView {
    /// Reads everything that a frontend reaches. A change in the middle of the walk may show one
    /// service before and another after it, but never a mixed set of backends.
    /// # Errors
    /// [`MapError`].
    pub fn read(maps: &dyn ReadServiceMaps) -> Result<Self, MapError> {
        let mut view = Self {
            applied_revision: maps.meta()?.applied_revision,
            ..Self::default()
        };
        for (key, value) in maps.frontends()? {
            view.frontends.push(frontend_view(key, value));
            if value.flags & FE_WILDCARD == 0 && !view.services.contains_key(&value.svc) {
                view.services
                    .insert(value.svc, service_view(maps, value.svc)?);
            }
        }
        Ok(view)
    }
}
