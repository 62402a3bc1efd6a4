//! The suite through the faulty wrapper without faults; its faults are tested beside it.

use std::sync::Arc;

use control_plane_storage::{FaultyStore, MemoryStore, Store};

fn fresh() -> (Arc<dyn Store>, ()) {
    let (store, _) = FaultyStore::new(MemoryStore::new());
    (Arc::new(store), ())
}

crate::suite!(std::future::ready(fresh()));
