//! What each node should know, as one index and a stream of changes for each node.
//!
//! Owns: the [`index`] of current items with their change numbers, its [`feed`] from the shared
//! informers, the [`stream`] to each node, the reports that come back and the log and exec sessions
//! ([`tunnel`]). Must not know: storage, HTTP. Reads through informers, writes through the API.

mod authority;
mod feed;
mod index;
mod item;
mod lag;
mod peer;
mod relay;
mod reports;
mod service;
mod stream;
mod tunnel;

pub use authority::{AuthorityError, NodeAuthority};
pub use index::Index;
pub use lag::{Lag, NodeProgress};
pub use peer::{CONTROL_PLANE_GROUP, CONTROL_PLANE_USER};
pub use relay::Peers;
pub use service::{NodeState, NodeStateConfig};
pub use tunnel::{OpenError, TunnelSession, Tunnels};
