//! The store: trait, embedded engine, etcd, memory, and the conformance suite.
//!
//! This crate knows bytes and revisions, never kinds. A [`Store`] is written by commits that are
//! atomic and have one [`Rev`] each, read as one snapshot at start ([`Store::load`]) and followed
//! from there ([`Store::changes`]). Everything above the trait behaves the same on each engine,
//! which the conformance suite proves.

mod compactor;
mod embedded;
mod error;
mod etcd;
mod faulty;
mod history;
mod memory;
mod model;
mod snapshot;
mod store;

pub use compactor::compact_regularly;
pub use embedded::EmbeddedStore;
pub use error::{ChangesError, CommitError, CompactError, LoadError, OpenError, StoreError};
pub use etcd::{ETCD_PREFIX, EtcdConfig, EtcdStore, EtcdTls};
pub use faulty::{CommitFault, Faults, FaultyStore};
pub use memory::MemoryStore;
pub use model::{
    Batch, COMMIT_BYTES_MAX, Caps, Change, Commit, Current, Entry, Expect, KEY_BYTES_MAX, OPS_MAX,
    Op, Rev, check_ops,
};
pub use snapshot::{SnapshotError, SnapshotSummary, read_snapshot, save_snapshot};
pub use store::{ChangeStream, Load, PageStream, Store};
