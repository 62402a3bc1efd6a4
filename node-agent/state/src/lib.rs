//! Desired state of this node as tables with one revision, and the way back up.
//!
//! Owns: the tables ([`snapshot`]), who gets them ([`hub`]), the reports that go up ([`upstream`]) and
//! the source that fills them: the control plane's stream ([`link`]). Must not know: containers, maps,
//! routes. One writer (the source) swaps whole snapshots; readers hold what they took.

pub mod apply;
pub mod hub;
pub mod link;
pub mod snapshot;
pub mod upstream;

pub use control_plane_service_model::model;
pub use hub::{Consumer, ConsumerState, Progress, StateHub, StateWriter};
pub use snapshot::{ClusterConfig, ObjectName, ServiceEntry, Snapshot};
pub use upstream::{IssuedToken, PodRef, TokenRequest, Upstream, UpstreamError};
