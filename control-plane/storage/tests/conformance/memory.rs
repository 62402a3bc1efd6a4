//! The suite on the store in memory.

use std::sync::Arc;

use control_plane_storage::{MemoryStore, Store};

fn fresh() -> (Arc<dyn Store>, ()) {
    (Arc::new(MemoryStore::new()), ())
}

crate::suite!(std::future::ready(fresh()));
