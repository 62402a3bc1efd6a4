//! What controllers use to read and write objects: client, reflector, store, work queue, events.

pub mod api;
pub mod resources;

pub use api::{
    Api, ApiError, ApiHandle, DeleteOptions, Object, ObjectKey, ObjectList, Patch, Propagation,
    Resource, Scope, Selection, WatchEvent, WatchStream,
};
