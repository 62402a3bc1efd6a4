//! Pod workers, runtime, probes, volumes, images, status: makes this node run what it should.
//!
//! Owns: everything between the desired pods of [`node_agent_state`] and the container runtime's
//! socket. Must not know: how state arrives, services' maps, routes. Data come from snapshots and
//! runtime events; they go to the runtime and, as reports, through
//! [`node_agent_state::Upstream`]. Entry: [`Kubelet::start`].

pub mod clock;
mod config;
mod container;
mod event;
mod image;
mod kubelet;
mod node;
mod pod;
mod probe;
pub mod runtime;
mod stream;
mod volume;
mod worker;

pub use config::KubeletConfig;
pub use image::archive::ArchiveError;
pub use kubelet::{Kubelet, KubeletHandle, StartError};
pub use runtime::Pin;
pub use stream::{
    AgentAnswer, AgentOutput, AttachSession, ExecOutput, ExecSession, ForwardAt, ForwardInput,
    ForwardOutput, ForwardSession, LogSession, SessionInput, StreamError, StreamHandler,
};
