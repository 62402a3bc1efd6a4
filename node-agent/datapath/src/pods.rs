//! Pods and routes as the programs need them: the interface that pod networking calls.
//!
//! Knows devices and addresses, not pods of the API. All calls are short system calls without
//! waiting; from an async task use `spawn_blocking`. Calls on different devices may run at the same
//! time. Every call is idempotent: after an error or a crash, call again.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// A hardware address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// Which source addresses a pod may send from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SourceCheck {
    /// Its own only; anything else is dropped and counted.
    #[default]
    Own,
    /// Any: a router or load balancer in a pod.
    Any,
}

/// How packets for a pod of this node reach it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delivery {
    /// Straight to the pod's device.
    #[default]
    Redirect,
    /// Through the host's stack, for example where host firewall rules must see them.
    Stack,
}

/// What the programs must know of one pod. The device must exist, in this network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodAttachment {
    /// Index of the host side of the pod's veth pair; not 0.
    pub ifindex: u32,
    /// At least one of the two addresses is set.
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    /// Of the device inside the pod.
    pub mac: MacAddress,
    /// Of the host side.
    pub host_mac: MacAddress,
    /// `SO_NETNS_COOKIE` of the pod's network namespace; 0 when unknown: then session affinity of
    /// its packets goes by address.
    pub netns_cookie: u64,
    pub source_check: SourceCheck,
    pub delivery: Delivery,
}

/// A pod that the maps hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedPod {
    /// Index in the `ep` map.
    pub index: u32,
    pub attachment: PodAttachment,
}

/// Whether a removal found something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    Removed,
    WasAbsent,
}

/// Why a pod or a route could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    #[error("a pod needs a device and at least one address: {attachment:?}")]
    Incomplete { attachment: Box<PodAttachment> },
    #[error("no room for another pod: all {capacity} entries are taken")]
    Full { capacity: u32 },
    #[error("attach {program} to device {ifindex}")]
    Attach {
        program: &'static str,
        ifindex: u32,
        #[source]
        source: io::Error,
    },
    #[error("write {what} to map {map}")]
    Map {
        map: &'static str,
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("{address}/{length} is no address range")]
    Range { address: IpAddr, length: u8 },
}

/// The pods of this node.
pub trait PodDatapath: Send + Sync + fmt::Debug {
    /// Makes the programs serve a pod: its entry is written, its addresses are made known, the
    /// programs are attached to its device and pinned. When this returns, the first packet of the
    /// pod is treated right. Calling it again for the same device replaces what was there.
    /// # Errors
    /// [`PodError`]; nothing is half in force: what was written is unreachable or complete.
    fn attach_pod(&self, pod: &PodAttachment) -> Result<AttachedPod, PodError>;

    /// Forgets the pod at a device. The device may be gone already.
    /// # Errors
    /// [`PodError`]; call again.
    fn detach_pod(&self, ifindex: u32) -> Result<Removal, PodError>;

    /// The pods that the kernel's maps hold, by index: after a restart of the agent those of
    /// before, so that whoever owns pods can compare and detach what is gone.
    /// # Errors
    /// [`PodError::Map`].
    fn list_pods(&self) -> Result<Vec<AttachedPod>, PodError>;
}

/// A range of pod addresses on another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodRange {
    pub address: IpAddr,
    /// Bits of the address that count; at most 32 or 128.
    pub length: u8,
}

/// How to reach that node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRoute {
    /// Its address on the underlay.
    pub node: IpAddr,
    pub via: Via,
}

/// The way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Via {
    /// The node is a neighbour on this device: packets leave by it, past the host's routing.
    Neighbour { ifindex: u32 },
    /// The host's routes decide (a tunnel, or a router between the nodes).
    Stack,
}

/// The pod ranges of other nodes.
pub trait RouteDatapath: Send + Sync + fmt::Debug {
    /// Adds or replaces one range.
    /// # Errors
    /// [`PodError::Range`], [`PodError::Map`].
    fn set_route(&self, range: PodRange, route: NodeRoute) -> Result<(), PodError>;

    /// Removes one range.
    /// # Errors
    /// [`PodError::Range`], [`PodError::Map`].
    fn remove_route(&self, range: PodRange) -> Result<Removal, PodError>;

    /// All ranges, ordered.
    /// # Errors
    /// [`PodError::Map`].
    fn list_routes(&self) -> Result<Vec<(PodRange, NodeRoute)>, PodError>;
}
