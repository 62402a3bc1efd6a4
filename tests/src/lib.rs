//! The harness of the end-to-end tests: clusters, kubectl, and what was left behind.
//!
//! A test sees skep as a user does: through `cargo xtask`, stock kubectl and the processes and
//! files of a running cluster. Nothing here knows a type of ours.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let cluster = tests::Cluster::up("walk", tests::Options::default())?;
//! cluster.apply_file("examples/hello.yaml")?;
//! cluster.kubectl(&["rollout", "status", "deploy/hello", "--timeout=60s"])?.success()?;
//! cluster.down()?;
//! # Ok(())
//! # }
//! ```

mod cluster;
mod leaks;
mod output;
mod process;
mod shared;
pub mod transcript;
mod wait;
mod workspace;

pub use cluster::{Cluster, Node, Options, Store};
pub use leaks::Leaks;
pub use output::Output;
pub use process::Process;
pub use shared::shared;
pub use wait::until;
pub use workspace::{root, tools};
