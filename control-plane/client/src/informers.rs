//! The informer factory: one list and watch of a resource for everybody in the process.
//!
//! Owns: the reflector tasks. Controllers, scheduler and node state take the same `Informers`, so each
//! object is decoded and held once.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{Api, ApiHandle, Selection};
use crate::informer::Informer;
use crate::kind::Kind;
use crate::reflector;

/// Shared informers over one API. Cloning shares.
#[derive(Clone)]
pub struct Informers {
    /// For writes and live reads of whoever has this clone.
    api: ApiHandle,
    shared: Arc<Shared>,
}

struct Shared {
    /// For lists and watches.
    api: ApiHandle,
    by_kind: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl std::fmt::Debug for Informers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Informers")
            .field("kinds", &self.shared.by_kind.lock().len())
            .finish()
    }
}

impl Informers {
    /// Informers that read through `api` until `shutdown`.
    #[must_use]
    pub fn new(api: ApiHandle, shutdown: CancellationToken) -> Self {
        let shared = Shared {
            api: Arc::clone(&api),
            by_kind: Mutex::default(),
            tasks: TaskTracker::new(),
            shutdown,
        };
        Self {
            api,
            shared: Arc::new(shared),
        }
    }

    /// The same informers with another API for writes and live reads: a leader's, say, whose writes
    /// carry a condition.
    #[must_use]
    pub fn with_api(&self, api: ApiHandle) -> Self {
        Self {
            api,
            shared: Arc::clone(&self.shared),
        }
    }

    /// The API behind the informers, for writes and live reads.
    #[must_use]
    pub fn api(&self) -> &ApiHandle {
        &self.api
    }

    /// The informer of `K`; its list and watch start with the first call. Must be called within a
    /// tokio runtime.
    #[must_use]
    pub fn of<K: Kind>(&self) -> Arc<Informer<K>> {
        let mut by_kind = self.shared.by_kind.lock();
        if let Some(present) = by_kind.get(&TypeId::of::<K>())
            && let Ok(informer) = Arc::clone(present).downcast::<Informer<K>>()
        {
            return informer;
        }
        let informer = Arc::new(Informer::<K>::default());
        let shared: Arc<dyn Any + Send + Sync> = Arc::<Informer<K>>::clone(&informer);
        by_kind.insert(TypeId::of::<K>(), shared);
        self.shared.tasks.spawn(reflector::run(
            Arc::<dyn Api>::clone(&self.shared.api),
            Arc::clone(&informer),
            Selection::default(),
            self.shared.shutdown.child_token(),
        ));
        informer
    }

    /// Waits until every reflector has stopped, which is after shutdown.
    pub async fn stopped(&self) {
        self.shared.shutdown.cancelled().await;
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}
