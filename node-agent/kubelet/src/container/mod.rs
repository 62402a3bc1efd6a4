//! From a pod's spec to what the runtime is told: sandbox and container configurations. Pure.

pub(crate) mod cgroup;
pub(crate) mod config;
pub(crate) mod dns;
pub(crate) mod env;
pub(crate) mod fields;
pub(crate) mod hosts;
pub(crate) mod resources;
pub(crate) mod sandbox;
pub(crate) mod security;
pub(crate) mod service_env;

/// Why a container cannot be configured yet; the text is what users read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConfigError(pub(crate) String);
