//! Service tables to kernel maps.
//!
//! Owns: which element of which map a service has, and in what order it changes. Must not know: BPF
//! files and system calls (it writes through the datapath's maps trait), where tables come from.
//! [`plan`] decides what should be there, the writer's account knows what is, the reconciler
//! makes one the other, [`task`] runs it.

mod extents;
mod indexes;
mod lag;
mod ledger;
mod names;
mod plan;
mod reconciler;
mod restore;
pub mod task;
mod writer;

pub use lag::LagHistogram;
pub use names::Names;
pub use plan::{ExternalIps, Family, LocalListener, ServiceKey};
pub use reconciler::{Outcome, Reconciler};
pub use task::{Proxy, ProxyStatus};
pub use writer::WriteError;

/// What a node may configure about its proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Name of this node, as endpoints name it.
    pub node_name: String,
    pub external_ips: ExternalIps,
    /// Where this node itself answers services that each node answers by itself (cluster DNS).
    pub listeners: Vec<LocalListener>,
}
