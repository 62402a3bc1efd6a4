//! An API in memory for tests: the verbs' semantics that controllers rely on, and faults on demand.
//!
//! Owns: nothing that runs in production. It keeps one revision order over all resources, a log that
//! can be compacted, generateName, generation, status isolation, optimistic locking, finalizers,
//! graceful pod deletion, bindings and namespace termination. [`Faults`] break it: conflicts, refused
//! and *lost* answers (done, but answered with an error), broken and expired watches, late events.

mod faults;
mod objects;
mod watch;

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch as signal;

use self::faults::Dice;
pub use self::faults::Faults;
use self::objects::{Objects, Write};
use crate::api::{
    Api, ApiError, ApiHandle, DeleteOptions, Object, ObjectKey, ObjectList, Patch, Resource,
    Selection, WatchStream,
};
use crate::clock::Clock;

/// A request as the fake counts it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Call {
    /// `create`, `update`, `patch`, `delete`, ...
    pub verb: &'static str,
    /// The plural name, with `/subresource` where one was named.
    pub resource: String,
}

/// The API in memory. Cloning shares.
#[derive(Clone)]
pub struct FakeApi {
    shared: Arc<Shared>,
}

struct Shared {
    objects: Mutex<Objects>,
    dice: Mutex<Dice>,
    revision: signal::Sender<u64>,
    calls: Mutex<std::collections::BTreeMap<Call, usize>>,
}

impl std::fmt::Debug for FakeApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeApi").finish_non_exhaustive()
    }
}

impl Default for FakeApi {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeApi {
    /// An empty API without faults whose time follows tokio's.
    #[must_use]
    pub fn new() -> Self {
        let base = jiff::Timestamp::from_second(1_750_000_000).unwrap_or(jiff::Timestamp::MIN);
        Self::with_clock(Clock::following_tokio(base))
    }

    /// An empty API without faults.
    #[must_use]
    pub fn with_clock(clock: Clock) -> Self {
        Self {
            shared: Arc::new(Shared {
                objects: Mutex::new(Objects::new(clock)),
                dice: Mutex::new(Dice::new(0, Faults::default())),
                revision: signal::Sender::new(1),
                calls: Mutex::default(),
            }),
        }
    }

    /// The clock of the API's timestamps.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.shared.objects.lock().clock()
    }

    /// As the trait object that controllers take.
    #[must_use]
    pub fn handle(&self) -> ApiHandle {
        Arc::new(self.clone())
    }

    /// From now on fails as `faults` say, by a generator seeded with `seed`.
    pub fn set_faults(&self, seed: u64, faults: Faults) {
        *self.shared.dice.lock() = Dice::new(seed, faults);
    }

    /// Stores an object as it is, status included, without rules; fills in uid and timestamps.
    pub fn seed(&self, resource: Resource, value: Value) -> Object {
        let object = self.shared.objects.lock().seed(resource, value);
        self.publish();
        object
    }

    /// Forgets the log: every watch that is behind gets 410.
    pub fn compact(&self) {
        self.shared.objects.lock().compact();
    }

    /// How often each verb was called, reads included.
    #[must_use]
    pub fn calls(&self) -> std::collections::BTreeMap<Call, usize> {
        self.shared.calls.lock().clone()
    }

    /// Starts counting calls anew.
    pub fn reset_calls(&self) {
        self.shared.calls.lock().clear();
    }

    /// Every object of a resource as JSON, in key order.
    #[must_use]
    pub fn all(&self, resource: Resource) -> Vec<Value> {
        self.shared.objects.lock().values(resource)
    }

    /// The revision now.
    #[must_use]
    pub fn revision(&self) -> u64 {
        *self.shared.revision.borrow()
    }

    /// Waits until `holds` of the state, checking after each change.
    pub async fn wait_until(&self, mut holds: impl FnMut(&Self) -> bool) {
        let mut changed = self.shared.revision.subscribe();
        while !holds(self) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    fn publish(&self) {
        let revision = self.shared.objects.lock().revision();
        self.shared.revision.send_if_modified(|shown| {
            let newer = revision > *shown;
            *shown = revision.max(*shown);
            newer
        });
    }

    fn count(&self, verb: &'static str, resource: Resource, subresource: Option<&str>) {
        let resource = match subresource {
            Some(subresource) => format!("{}/{subresource}", resource.plural),
            None => resource.plural.to_owned(),
        };
        *self
            .shared
            .calls
            .lock()
            .entry(Call { verb, resource })
            .or_insert(0) += 1;
    }

    /// One write with faults around it.
    async fn write(&self, resource: Resource, write: Write<'_>) -> Result<Object, ApiError> {
        let (before, after, pause) = {
            let mut dice = self.shared.dice.lock();
            (
                dice.before(write.locks()),
                dice.after(),
                dice.request_pause(),
            )
        };
        tokio::time::sleep(pause).await;
        if let Some(error) = before {
            return Err(error);
        }
        let result = self.shared.objects.lock().write(resource, write);
        self.publish();
        match after {
            Some(error) => Err(error),
            None => result,
        }
    }

    fn read_fault(&self) -> Result<(), ApiError> {
        self.shared.dice.lock().before(false).map_or(Ok(()), Err)
    }
}

#[async_trait]
impl Api for FakeApi {
    async fn get(&self, resource: Resource, key: &ObjectKey) -> Result<Object, ApiError> {
        self.count("get", resource, None);
        self.read_fault()?;
        self.shared.objects.lock().get(resource, key)
    }

    async fn list(&self, resource: Resource, what: &Selection) -> Result<ObjectList, ApiError> {
        self.count("list", resource, None);
        self.read_fault()?;
        self.shared.objects.lock().list(resource, what)
    }

    async fn watch(
        &self,
        resource: Resource,
        what: &Selection,
        revision: u64,
    ) -> Result<WatchStream, ApiError> {
        self.count("watch", resource, None);
        self.read_fault()?;
        watch::open(self.clone(), resource, what, revision)
    }

    async fn create(
        &self,
        resource: Resource,
        namespace: &str,
        body: Value,
    ) -> Result<Object, ApiError> {
        self.count("create", resource, None);
        self.write(resource, Write::Create { namespace, body })
            .await
    }

    async fn create_subresource(
        &self,
        resource: Resource,
        key: &ObjectKey,
        subresource: &str,
        body: Value,
    ) -> Result<Value, ApiError> {
        self.count("create", resource, Some(subresource));
        let write = Write::Subresource {
            key,
            subresource,
            body,
        };
        self.write(resource, write).await?;
        Ok(serde_json::json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
    }

    async fn update(
        &self,
        resource: Resource,
        key: &ObjectKey,
        subresource: Option<&str>,
        body: Value,
    ) -> Result<Object, ApiError> {
        self.count("update", resource, subresource);
        self.write(
            resource,
            Write::Update {
                key,
                subresource,
                body,
            },
        )
        .await
    }

    async fn patch(
        &self,
        resource: Resource,
        key: &ObjectKey,
        subresource: Option<&str>,
        patch: Patch,
    ) -> Result<Object, ApiError> {
        self.count("patch", resource, subresource);
        self.write(
            resource,
            Write::Patch {
                key,
                subresource,
                patch,
            },
        )
        .await
    }

    async fn delete(
        &self,
        resource: Resource,
        key: &ObjectKey,
        options: &DeleteOptions,
    ) -> Result<(), ApiError> {
        self.count("delete", resource, None);
        self.write(resource, Write::Delete { key, options })
            .await
            .map(|_last_state| ())
    }
}
