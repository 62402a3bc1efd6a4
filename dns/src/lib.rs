//! Cluster DNS: names, snapshot, handler, forwarder, cache.
//!
//! The server answers from an immutable [`ClusterNames`] table of one revision, which the agent
//! publishes whenever services change; it never asks the API server. Everything that is not the
//! cluster's goes to upstream servers. See `README.md` for the picture.

mod cluster;
mod config;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handler;
mod metrics;
mod names;
mod server;
mod snapshot;
mod upstream;
mod wire;

pub use cluster::{ClusterNames, EndpointNames, PortName, Protocol, ServiceNames};
pub use config::{DnsConfig, PodNames, StubDomain};
pub use server::{BindError, DnsHandle, DnsServer, SnapshotPublisher, node_upstreams};
pub use upstream::{ResolvConfError, upstreams_from_resolv_conf};
