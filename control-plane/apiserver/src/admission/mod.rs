//! Built-in admission: what the cluster adds to, or refuses of, an otherwise good write.
//!
//! Owns: the order of the plug-ins. Each plug-in is a file; pure but for reading the cache.
//! Order on create: namespace lifecycle, service account, default tolerations, priority.

mod namespace;
mod priority;
mod service_account;
mod tolerations;

use std::sync::Arc;

use serde_json::Value;

use crate::cache::WatchCache;
use crate::registry::Registry;
use crate::server::Target;
use crate::status::StatusError;

/// The built-in plug-ins.
#[derive(Debug)]
pub(crate) struct Admission {
    cache: Arc<WatchCache>,
    registry: Registry,
}

impl Admission {
    pub(crate) fn new(cache: Arc<WatchCache>, registry: Registry) -> Self {
        Self { cache, registry }
    }

    /// Completes or refuses a new object.
    pub(crate) async fn create(
        &self,
        target: &Target,
        object: &mut Value,
    ) -> Result<(), StatusError> {
        self.check_namespace(target)?;
        if target.kind.kind == "Pod" {
            self.complete_service_account(target, object).await?;
            tolerations::complete(object);
            priority::complete(target, object)?;
        }
        Ok(())
    }
}

/// Refuses a deletion.
pub(crate) fn check_delete(target: &Target) -> Result<(), StatusError> {
    namespace::check_delete(target)
}
