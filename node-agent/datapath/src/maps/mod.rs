//! The service maps behind a trait: what the proxy writes and inspection reads.
//!
//! Three implementations: [`kernel`] (the pinned maps), [`fake`] (memory, shared like pins so that
//! a restart can be played) and [`faulty`] (any of them, with failures). The trait speaks in whole
//! steps of the publication protocol of `ebpf_abi::service`; the order of steps is the caller's.

pub mod dump;
pub mod fake;
pub mod faulty;
pub mod kernel;
#[cfg(test)]
mod tests;
pub mod view;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use ebpf_abi::addr;
use ebpf_abi::frontend::{Fe4Key, Fe6Key, Frontend};
use ebpf_abi::meta::Meta;
use ebpf_abi::service::{Backend, BackendLoad, Head, Service, Slot};
use serde::{Deserialize, Serialize};

/// IP protocol number, with the names of those that services know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IpProtocol(pub u8);

impl IpProtocol {
    /// Of a wildcard frontend.
    pub const NONE: Self = Self(0);
    pub const TCP: Self = Self(6);
    pub const UDP: Self = Self(17);
    pub const SCTP: Self = Self(132);
}

impl fmt::Display for IpProtocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TCP => formatter.pad("TCP"),
            Self::UDP => formatter.pad("UDP"),
            Self::SCTP => formatter.pad("SCTP"),
            Self::NONE => formatter.pad("ANY"),
            Self(number) => write!(formatter, "proto-{number}"),
        }
    }
}

/// Key of a frontend, of either family. Ordered: that is the order of every listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FrontendKey {
    pub address: IpAddr,
    /// 0 with [`IpProtocol::NONE`] for the wildcard of an address.
    pub port: u16,
    pub protocol: IpProtocol,
}

impl FrontendKey {
    /// The entry that refuses unknown ports of a service's address.
    #[must_use]
    pub fn wildcard(address: IpAddr) -> Self {
        Self {
            address,
            port: 0,
            protocol: IpProtocol::NONE,
        }
    }
}

impl fmt::Display for FrontendKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.port == 0 {
            return match self.address {
                IpAddr::V4(address) => write!(formatter, "{address}:*"),
                IpAddr::V6(address) => write!(formatter, "[{address}]:*"),
            };
        }
        let address = SocketAddr::new(self.address, self.port);
        write!(formatter, "{address}/{}", self.protocol)
    }
}

/// The form of `fe4`; `None` for the other family.
pub(crate) fn fe4_key(key: &FrontendKey) -> Option<Fe4Key> {
    match key.address {
        IpAddr::V4(vip) => Some(Fe4Key {
            vip: vip.octets(),
            port: key.port.to_be_bytes(),
            proto: key.protocol.0,
            pad: 0,
        }),
        IpAddr::V6(_) => None,
    }
}

/// The form of `fe6`; `None` for the other family.
pub(crate) fn fe6_key(key: &FrontendKey) -> Option<Fe6Key> {
    match key.address {
        IpAddr::V4(_) => None,
        IpAddr::V6(vip) => Some(Fe6Key {
            vip: vip.octets(),
            port: key.port.to_be_bytes(),
            proto: key.protocol.0,
            pad: [0; 5],
        }),
    }
}

impl From<Fe4Key> for FrontendKey {
    fn from(key: Fe4Key) -> Self {
        Self {
            address: IpAddr::from(key.vip),
            port: u16::from_be_bytes(key.port),
            protocol: IpProtocol(key.proto),
        }
    }
}

impl From<Fe6Key> for FrontendKey {
    fn from(key: Fe6Key) -> Self {
        Self {
            address: IpAddr::from(key.vip),
            port: u16::from_be_bytes(key.port),
            protocol: IpProtocol(key.proto),
        }
    }
}

/// The 16-byte form of an address.
#[must_use]
pub fn to_addr(address: IpAddr) -> addr::Addr {
    match address {
        IpAddr::V4(v4) => addr::from_v4(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The address of a 16-byte form.
#[must_use]
pub fn from_addr(bytes: &addr::Addr) -> IpAddr {
    if addr::is_v4(bytes) {
        IpAddr::from(addr::low_v4(bytes))
    } else {
        IpAddr::from(*bytes)
    }
}

/// The three sets of backends that a service publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HeadKind {
    /// All ready backends.
    Ready,
    /// Those for `Local` traffic policies.
    Local,
    /// Serving while terminating.
    Terminating,
}

impl HeadKind {
    /// In the order in which they are published.
    pub const ALL: [Self; 3] = [Self::Terminating, Self::Local, Self::Ready];

    /// The head in a value of `svc`.
    #[must_use]
    pub fn of(self, service: &Service) -> Head {
        Head::unpack(match self {
            Self::Ready => service.head,
            Self::Local => service.local_head,
            Self::Terminating => service.terminating_head,
        })
    }

    /// Puts a head into a value of `svc`.
    pub fn set(self, service: &mut Service, head: Head) {
        let word = match self {
            Self::Ready => &mut service.head,
            Self::Local => &mut service.local_head,
            Self::Terminating => &mut service.terminating_head,
        };
        *word = head.pack();
    }

    /// The 64-bit word of `svc` that holds it.
    pub(crate) fn word(self) -> usize {
        let offset = match self {
            Self::Ready => std::mem::offset_of!(Service, head),
            Self::Local => std::mem::offset_of!(Service, local_head),
            Self::Terminating => std::mem::offset_of!(Service, terminating_head),
        };
        offset / size_of::<u64>()
    }
}

/// Elements of each map. Index 0 of `svc` and `be` is never used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub services: u32,
    pub slots: u32,
    pub backends: u32,
    /// A family.
    pub frontends: u32,
}

/// Why a map could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    #[error("map {map} has no element {index}: it holds {limit}")]
    Bounds {
        map: &'static str,
        index: u32,
        limit: u32,
    },
    #[error("map {map} is full: it holds {limit} elements")]
    Full { map: &'static str, limit: u32 },
    #[error("{operation} map {map}")]
    System {
        operation: &'static str,
        map: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("map {map} is open for reading only")]
    ReadOnly { map: &'static str },
    #[error("{operation} map {map}: injected failure")]
    Injected {
        operation: &'static str,
        map: &'static str,
    },
    #[error("the writer has crashed (injected)")]
    Crashed,
}

/// Reading: what inspection and a restarting proxy need.
pub trait ReadServiceMaps: Send + fmt::Debug {
    /// Sizes of the maps.
    fn limits(&self) -> Limits;
    /// One element of `svc`.
    /// # Errors
    /// [`MapError`].
    fn service(&self, index: u32) -> Result<Service, MapError>;
    /// One element of `be`.
    /// # Errors
    /// [`MapError`].
    fn backend(&self, index: u32) -> Result<Backend, MapError>;
    /// One element of `be_load`.
    /// # Errors
    /// [`MapError`].
    fn load(&self, index: u32) -> Result<BackendLoad, MapError>;
    /// The slots of an extent.
    /// # Errors
    /// [`MapError`].
    fn slots(&self, base: u32, len: u16) -> Result<Vec<Slot>, MapError>;
    /// All frontends of both families, in key order.
    /// # Errors
    /// [`MapError`].
    fn frontends(&self) -> Result<Vec<(FrontendKey, Frontend)>, MapError>;
    /// The element of `meta`.
    /// # Errors
    /// [`MapError`].
    fn meta(&self) -> Result<Meta, MapError>;
}

/// Writing: the steps of the publication protocol. There is one writer.
pub trait ServiceMaps: ReadServiceMaps {
    /// Writes a whole element of `svc` that no frontend reaches.
    /// # Errors
    /// [`MapError`].
    fn write_service(&mut self, index: u32, service: &Service) -> Result<(), MapError>;
    /// Publishes a set of backends: one 64-bit release store.
    /// # Errors
    /// [`MapError`].
    fn publish(&mut self, index: u32, kind: HeadKind, head: Head) -> Result<(), MapError>;
    /// Changes flags and affinity time-out of a service that is in use: one store.
    /// # Errors
    /// [`MapError`].
    fn set_options(&mut self, index: u32, flags: u32, affinity_s: u32) -> Result<(), MapError>;
    /// Writes slots of an extent that no head reaches.
    /// # Errors
    /// [`MapError`].
    fn write_slots(&mut self, base: u32, slots: &[Slot]) -> Result<(), MapError>;
    /// Writes an element of `be`. Of a reachable one only state and flags may differ.
    /// # Errors
    /// [`MapError`].
    fn write_backend(&mut self, index: u32, backend: &Backend) -> Result<(), MapError>;
    /// Zeroes the load of a backend whose id is being given away.
    /// # Errors
    /// [`MapError`].
    fn reset_load(&mut self, index: u32) -> Result<(), MapError>;
    /// Adds or replaces frontends.
    /// # Errors
    /// [`MapError`]; some may have been written: repeat.
    fn insert_frontends(&mut self, entries: &[(FrontendKey, Frontend)]) -> Result<(), MapError>;
    /// Removes frontends; absent ones are no error.
    /// # Errors
    /// [`MapError`]; some may have been removed: repeat.
    fn remove_frontends(&mut self, keys: &[FrontendKey]) -> Result<(), MapError>;
    /// Records the revision that is published in full.
    /// # Errors
    /// [`MapError`].
    fn set_applied_revision(&mut self, revision: u64) -> Result<(), MapError>;
}
