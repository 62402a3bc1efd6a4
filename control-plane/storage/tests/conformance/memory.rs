//! The suite on the store in memory.

use std::sync::Arc;

use control_plane_storage::{MemoryStore, Store};

async fn fresh() -> (Arc<dyn Store>, ()) {
    (Arc::new(MemoryStore::new()), ())
}

crate::suite!(fresh());
