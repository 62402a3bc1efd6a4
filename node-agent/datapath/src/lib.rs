//! Load, attach and pin the BPF programs; maps behind a trait; inspection from pinned maps.
//!
//! Owns: what is in the kernel on behalf of this node. Must not know: Kubernetes, services' names,
//! how a node gets its addresses. The proxy writes through [`maps`], pod networking through
//! [`pods`], the operator's command reads through `inspect`, also when no agent runs.

mod attach;
mod cgroup;
pub mod config;
mod datapath;
mod fake_pods;
pub mod inspect;
mod kernel_pods;
mod load;
mod logs;
pub mod maps;
mod objects;
mod pick;
mod pins;
mod playground;
pub mod pods;
pub mod sys;
mod verify;

/// Layouts of what the maps hold.
pub use ebpf_abi as abi;

pub use attach::AttachError;
pub use cgroup::CgroupError;
pub use config::DatapathConfig;
pub use datapath::{Datapath, StartError, StartReport, monotonic_ns};
pub use fake_pods::FakePods;
pub use kernel_pods::KernelPods;
pub use load::LoadError;
pub use logs::ProgramLog;
pub use objects::{NotBuilt, are_built};
pub use pick::Picker;
pub use pins::{Pins, PinsError};
pub use playground::{Playground, PlaygroundError};
pub use verify::{Verified, VerifyError, verify_all};
