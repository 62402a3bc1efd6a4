//! The API server: HTTP, verbs, registry, watch cache, authentication.
//!
//! The only door to the cluster's state. A write goes through defaults, admission and validation
//! into one commit of the store; reads and watches are served from the watch cache. See README.md
//! for the picture. Start it with [`ApiServer::start`]; callers in this process use
//! [`server::Server`], which the handle gives out.

mod addresses;
mod admission;
pub mod alloc;
mod audit;
pub mod auth;
mod bootstrap;
pub mod cache;
mod custom;
mod field;
mod flow;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handlers;
mod http;
mod members;
mod metrics;
mod node_pipe;
pub mod node_streams;
pub mod object;
pub mod pki;
pub mod registry;
mod sealing;
pub mod server;
mod signing;
mod start;
pub mod status;
mod tables;
mod tree;
mod validation;
mod webhooks;

pub use self::audit::{AuditConfig, AuditPolicy, AuditPolicyError};
pub use self::members::Member;
pub use self::start::{ApiServer, ApiServerConfig, ApiServerHandle, StartError};
