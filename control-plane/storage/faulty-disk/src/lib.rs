//! A disk for tests: changes when a test needs another way for a disk to fail.
//!
//! A file system in user space that holds everything in memory. It records every change with the
//! syncs between them, so that afterwards the disk can be made as it would be after a power loss at
//! any of these points ([`Replay`]); and while it is mounted it can be told to fail, to be full, to
//! take no writes or to be slow ([`Faults`]).

mod faults;
mod history;
mod mount;
mod namespace;
mod sparse;
mod tree;

pub use self::faults::{Errno, Faults};
pub use self::history::{Event, Image, Loss, Node, Replay};
pub use self::mount::FaultyDisk;
pub use self::namespace::{in_namespaces, in_namespaces_with_network, role};
pub use self::sparse::{PAGE, Sparse};
