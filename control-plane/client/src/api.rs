//! The one seam between controllers and the API: every verb, transport-neutral.
//!
//! Owns: requests and answers as data. Must not know: storage, HTTP, kinds. Implementations: in
//! process (the control plane's wiring adapts its own API server) and, later, HTTP. An object
//! travels as the JSON bytes that the API server serialised once; typed views are decoded by the
//! reader (`Object::decode`).

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use serde::de::DeserializeOwned;

/// A resource as its path names it: group (empty for core), version and lower-case plural.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// API version, for example `v1`.
    pub version: &'static str,
    /// Plural name in paths, for example `pods`.
    pub plural: &'static str,
    /// Kind in objects, for example `Pod`.
    pub kind: &'static str,
    /// Whether objects live in a namespace.
    pub scope: Scope,
}

/// Where objects of a resource live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// In a namespace.
    Namespaced,
    /// In the cluster.
    Cluster,
}

/// Name of one object. `namespace` is empty for cluster-scoped resources.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Namespace, or empty.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// Key of `name` in `namespace` (empty for cluster-scoped resources).
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// One object as the API server serialised it, with its identity and revision beside it.
#[derive(Debug, Clone)]
pub struct Object {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.resourceVersion` as a number: the store's revision.
    pub revision: u64,
    /// The object as JSON, shared with every other reader.
    pub json: Bytes,
}

impl Object {
    /// Decodes the typed view of this object.
    ///
    /// # Errors
    /// The JSON does not fit `K`.
    pub fn decode<K: DeserializeOwned>(&self) -> Result<K, serde_json::Error> {
        serde_json::from_slice(&self.json)
    }
}

/// A consistent list and the revision it holds at.
#[derive(Debug, Clone)]
pub struct ObjectList {
    /// Objects in key order.
    pub items: Vec<Object>,
    /// Revision to start a watch from.
    pub revision: u64,
}

/// One change of a watch.
#[derive(Debug, Clone)]
pub enum WatchEvent {
    /// The object is new to the watch.
    Added(Object),
    /// The object changed.
    Modified(Object),
    /// The object is gone; the last state, its `revision` that of the deletion.
    Deleted(Object),
    /// Nothing before this revision is missing.
    Bookmark(u64),
}

/// What to list or watch. Empty selectors select everything.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Label selector in its string form.
    pub labels: Option<String>,
    /// Field selector in its string form.
    pub fields: Option<String>,
}

/// The body of a patch.
#[derive(Debug, Clone)]
pub enum Patch {
    /// RFC 6902.
    Json(serde_json::Value),
    /// RFC 7386.
    Merge(serde_json::Value),
    /// Kubernetes strategic merge patch.
    Strategic(serde_json::Value),
}

/// How to delete.
#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    /// Seconds until the object must be gone; `Some(0)` at once.
    pub grace_period_seconds: Option<i64>,
    /// Delete only the object with this uid.
    pub uid: Option<String>,
    /// Delete only at this resourceVersion.
    pub resource_version: Option<String>,
    /// What happens to dependents; the kind's default when absent.
    pub propagation: Option<Propagation>,
}

/// What happens to an object's dependents when it is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They stay and lose the owner reference.
    Orphan,
    /// They go after the owner.
    Background,
    /// The owner goes after them.
    Foreground,
}

/// Why the API refused. `reason` and `code` are those of `metav1.Status`.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason, for example `NotFound`.
    pub reason: String,
    /// The message for a person.
    pub message: String,
}

impl ApiError {
    /// The object does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }

    /// Somebody else changed the object: read again, decide again.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code == 409 && self.reason == "Conflict"
    }

    /// An object of this name exists.
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        self.code == 409 && self.reason == "AlreadyExists"
    }

    /// The revision asked for is no longer kept: list again.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.code == 410
    }
}

/// A watch: changes in revision order, ended by an error (`is_gone` after a compaction) or when the
/// server closes it.
pub type WatchStream = BoxStream<'static, Result<WatchEvent, ApiError>>;

/// Every verb of the API, on behalf of one identity.
#[async_trait]
pub trait Api: Send + Sync + 'static {
    /// Every resource that is served now, custom ones included, each in one version.
    fn resources(&self) -> Vec<Resource> {
        crate::resources::ALL.to_vec()
    }

    /// Reads one object.
    async fn get(&self, resource: Resource, key: &ObjectKey) -> Result<Object, ApiError>;

    /// Lists at the current revision.
    async fn list(&self, resource: Resource, what: &Selection) -> Result<ObjectList, ApiError>;

    /// Watches changes after `revision`, bookmarks included.
    async fn watch(
        &self,
        resource: Resource,
        what: &Selection,
        revision: u64,
    ) -> Result<WatchStream, ApiError>;

    /// Creates `body` in `namespace` (empty for cluster-scoped resources).
    async fn create(
        &self,
        resource: Resource,
        namespace: &str,
        body: serde_json::Value,
    ) -> Result<Object, ApiError>;

    /// Creates a subresource of an object: `binding`, `eviction`, `token`.
    async fn create_subresource(
        &self,
        resource: Resource,
        key: &ObjectKey,
        subresource: &str,
        body: serde_json::Value,
    ) -> Result<serde_json::Value, ApiError>;

    /// Replaces an object, or its `status` or `scale` when `subresource` says so.
    async fn update(
        &self,
        resource: Resource,
        key: &ObjectKey,
        subresource: Option<&str>,
        body: serde_json::Value,
    ) -> Result<Object, ApiError>;

    /// Patches an object or its subresource.
    async fn patch(
        &self,
        resource: Resource,
        key: &ObjectKey,
        subresource: Option<&str>,
        patch: Patch,
    ) -> Result<Object, ApiError>;

    /// Deletes an object; `Ok` also when it lingers for its grace period or finalizers.
    async fn delete(
        &self,
        resource: Resource,
        key: &ObjectKey,
        options: &DeleteOptions,
    ) -> Result<(), ApiError>;
}

/// Shared handle to the API.
pub type ApiHandle = Arc<dyn Api>;
