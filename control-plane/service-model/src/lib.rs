//! One translator from Service and EndpointSlices to what a node programs.
//!
//! Owns: the model that nodes act on ([`model`]), the join that makes it ([`join`]) and its wire form
//! ([`wire`]). Must not know: maps, streams, the API. Used by the control plane for its own nodes and
//! by the agent where it stands in for kube-proxy, so that both agree by construction.

pub mod join;
pub mod model;
pub mod wire;

pub use model::{Endpoint, EndpointPort, NodeRoute, Protocol, Service, ServicePort};
