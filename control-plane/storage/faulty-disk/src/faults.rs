//! What a disk does when it is told to fail: changes when a test needs another fault.

use std::time::Duration;

pub use fuser::Errno;

/// How the disk behaves from now on. The default is a disk without faults.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Every write and every change of a length or a directory fails with this.
    pub change: Option<Errno>,
    /// Every sync fails with this, and what it should have kept counts as not synced.
    pub sync: Option<Errno>,
    /// Every read fails with this. What the kernel holds in its cache is read all the same.
    pub read: Option<Errno>,
    /// How long a sync takes.
    pub sync_takes: Duration,
    /// How many bytes there is room for. What is there stays, however little this is.
    pub room: Option<u64>,
    /// Syncs are answered as if they were done, and nothing is kept: for showing that a test finds a
    /// sync that is missing.
    pub ignore_file_syncs: bool,
    /// The same for syncs of directories.
    pub ignore_directory_syncs: bool,
}
