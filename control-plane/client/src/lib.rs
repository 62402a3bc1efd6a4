//! What controllers use to read and write objects: API trait, reflector, store, work queue, events.
//!
//! A controller takes [`Informers`], subscribes to changes that put keys in a [`WorkQueue`], reads
//! snapshots, decides, and writes through [`Api`]. See the room's README for the picture.

pub mod api;
pub mod backoff;
pub mod clock;
pub mod events;
pub mod expectations;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod informer;
pub mod informers;
pub mod kind;
pub mod leader_election;
mod reflector;
pub mod resources;
pub mod selector;
pub mod store;
pub mod supervise;
pub mod work_queue;

pub use api::{
    Api, ApiError, ApiHandle, DeleteOptions, Object, ObjectKey, ObjectList, Patch, Propagation,
    Resource, Scope, Selection, WatchEvent, WatchStream,
};
pub use clock::Clock;
pub use events::{EventRecorder, EventType};
pub use expectations::{Expectations, Trust};
pub use informer::{Change, Informer, Subscription};
pub use informers::Informers;
pub use kind::Kind;
pub use store::{Cached, Snapshot};
pub use supervise::{Health, Supervisor};
pub use work_queue::{WorkItem, WorkQueue};
