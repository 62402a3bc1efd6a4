//! Addresses, veth pairs, routes, tunnels and the CNI plugin.
//!
//! Owns: what a pod's network is made of, from the runtime's CNI call to the device in the pod's
//! namespace, and how pods of other nodes are reached. Must not know: pods of the API, services. The
//! eBPF side of a pod is the datapath's; this room tells it which device has which address.

mod blocking;
pub mod cni;
mod connect;
mod device;
mod ipam;
mod namespace;
mod node;
mod pod;
mod range;
mod routes;

pub use connect::connect_inside;
pub use ipam::{Addresses, AllocateError, Ipam};
pub use node::{Mode, NodeNetwork, NodeNetworkConfig, SetupError};
pub use pod::{Attached, PodNetwork, PodNetworkError};
pub use range::{Range, RangeError};
pub use routes::{RemoteNode, RouteError};
