//! The verbs on objects, without HTTP: what handlers and in-process callers share.
//!
//! Owns: the order of a write (defaults, admission, preparation, validation, numbers, commit,
//! wait for the cache). Must not know: HTTP, authentication. Every write is one commit; nothing is
//! answered before it is durable and in the cache, so a caller reads what it wrote.

mod apply;
mod commit;
mod components;
mod convert;
mod create;
mod delete;
mod evict;
mod fence;
mod owners;
mod patch;
mod pod_ops;
mod quota;
mod read;
mod review;
mod scale;
mod selection;
mod token;
mod update;

use std::sync::{Arc, OnceLock};

use control_plane_storage::Store;
use jiff::Timestamp;
use proto_api::schema::{self, Gvk, Schema, TypeId};
use serde_json::Value;

use self::components::Components;
use self::quota::QuotaTurns;
use crate::admission::Admission;
use crate::admission::dynamic::Dynamic;
use crate::alloc::ServiceRanges;
use crate::auth::{Authorizer, User};
use crate::cache::WatchCache;
use crate::field::FieldError;
use crate::object::{Obj, ObjKey};
use crate::registry::{Kind, Registry, Subresource};
use crate::status::StatusError;
use crate::webhooks::WebhookClients;

pub use crate::admission::dynamic::{NoteLevel, Notes};

pub use self::components::Probe;
pub use self::delete::{DeleteRequest, Deleted, Preconditions, Propagation};
pub use self::fence::Fence;
pub use self::patch::{Made, Patch, Patched};
pub(crate) use self::scale::of as scale_of;
pub use self::selection::selection;

/// On whose behalf, and how, a write is made.
#[derive(Debug, Clone)]
pub struct WriteContext {
    /// Who writes.
    pub user: Arc<User>,
    /// Whether the write is committed.
    pub mode: WriteMode,
    /// Whose fields the write changes, in `managedFields`.
    pub manager: String,
    /// Which objects get such entries.
    pub owners: Owners,
    /// What must hold of the writer's lease for the write to happen.
    pub fence: Option<Fence>,
    /// What admission is told of the request, and tells.
    pub asked: Asked,
}

/// What the admission that users configure is told of a request, and where it tells things.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Whether it is asked.
    pub reviews: Reviews,
    /// `fieldManager` as it was asked for.
    pub field_manager: Option<Arc<str>>,
    /// `fieldValidation` as it was asked for.
    pub field_validation: Option<Arc<str>>,
    /// Warnings and annotations, when there is a client.
    pub notes: Option<Arc<Notes>>,
}

/// Whether policies and webhooks are asked about a write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reviews {
    /// They are.
    #[default]
    All,
    /// A part of a write that they were asked about, or the server's own: a webhook that does not
    /// answer must not stop the start.
    None,
}

/// Which objects a writer gives entries in `managedFields`; those that have some keep them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Those it creates: clients from outside.
    FromCreation,
    /// None: the control plane's own components, whose objects are many and seldom applied.
    None,
}

/// Whether a write is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// It is.
    Commit,
    /// Everything but the commit (`dryRun=All`).
    DryRun,
}

impl WriteContext {
    /// A committed write of `user`.
    #[must_use]
    pub fn of(user: Arc<User>) -> Self {
        let manager = user
            .name
            .strip_prefix("system:")
            .unwrap_or(&user.name)
            .to_owned();
        Self {
            user,
            mode: WriteMode::Commit,
            manager,
            owners: Owners::None,
            fence: None,
            asked: Asked::default(),
        }
    }

    /// A write of the API server itself.
    #[must_use]
    pub fn own() -> Self {
        Self::of(Arc::new(User::control_plane("apiserver"))).unreviewed()
    }

    /// The same, with nobody asked about it.
    #[must_use]
    pub fn unreviewed(mut self) -> Self {
        self.asked.reviews = Reviews::None;
        self
    }
}

/// One object's place: its kind, its key, and the path below it.
#[derive(Debug, Clone)]
pub struct Target {
    /// The kind.
    pub kind: Arc<Kind>,
    /// Namespace and name.
    pub key: ObjKey,
    /// `None`: the object itself.
    pub subresource: Option<Subresource>,
}

impl Target {
    /// The object itself.
    #[must_use]
    pub fn new(kind: &Arc<Kind>, namespace: &str, name: &str) -> Self {
        Self {
            kind: Arc::clone(kind),
            key: ObjKey::new(namespace, name),
            subresource: None,
        }
    }

    pub(crate) fn not_found(&self) -> StatusError {
        StatusError::not_found(self.kind.group_resource(), &self.key.name)
    }

    pub(crate) fn invalid(&self, errors: &[FieldError]) -> StatusError {
        StatusError::invalid(self.kind.group, self.kind.kind, &self.key.name, errors)
    }
}

/// The API's verbs over one store.
pub struct Server {
    pub(crate) store: Arc<dyn Store>,
    /// All objects.
    pub cache: Arc<WatchCache>,
    /// All kinds.
    pub registry: Registry,
    pub(crate) schema: &'static Schema,
    pub(crate) service_ranges: ServiceRanges,
    /// Who may do what.
    pub authorizer: Arc<Authorizer>,
    pub(crate) admission: Admission,
    pub(crate) dynamic: Dynamic,
    webhooks: OnceLock<Arc<WebhookClients>>,
    quota_turns: QuotaTurns,
    components: Components,
    pub(crate) clock: fn() -> Timestamp,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("store", &self.store.caps())
            .finish_non_exhaustive()
    }
}

impl Server {
    /// A server over `store`, reading from `cache`, which was made for `registry`.
    pub fn new(
        store: Arc<dyn Store>,
        cache: Arc<WatchCache>,
        registry: Registry,
        service_ranges: ServiceRanges,
    ) -> Self {
        let authorizer = Arc::new(Authorizer::new(&cache, &registry));
        let admission = Admission::new(
            Arc::clone(&cache),
            registry.clone(),
            Arc::clone(&authorizer),
        );
        let dynamic = Dynamic::new(Arc::clone(&cache), registry.clone(), &authorizer);
        Self {
            store,
            cache,
            registry,
            authorizer,
            dynamic,
            schema: schema::builtin(),
            service_ranges,
            admission,
            webhooks: OnceLock::new(),
            quota_turns: QuotaTurns::default(),
            components: Components::default(),
            clock: Timestamp::now,
        }
    }

    /// Gives the clients by which webhooks are reached; until then none is.
    pub(crate) fn reach_webhooks(&self, clients: &Arc<WebhookClients>) {
        // The first stay: they hold the connections.
        self.webhooks.get_or_init(|| Arc::clone(clients));
        self.dynamic.webhooks().connect(Arc::clone(clients));
    }

    /// The kind at a path; `NotFound` as for an unknown path.
    ///
    /// # Errors
    /// There is no such resource.
    pub fn kind(&self, group: &str, version: &str, plural: &str) -> Result<Arc<Kind>, StatusError> {
        self.registry
            .by_plural(group, version, plural)
            .ok_or_else(StatusError::path_not_found)
    }

    /// The type of `kind`'s objects, and the schema that holds it.
    pub(crate) fn type_of<'a>(
        &'a self,
        kind: &'a Kind,
    ) -> Result<(&'a Schema, TypeId), StatusError> {
        if let Some(custom) = &kind.custom {
            return Ok((&custom.typed, custom.type_id));
        }
        let type_id = self.type_of_gvk(kind.group, kind.version, kind.kind)?;
        Ok((self.schema, type_id))
    }

    pub(crate) fn type_of_gvk(
        &self,
        group: &str,
        version: &str,
        kind: &str,
    ) -> Result<TypeId, StatusError> {
        self.schema
            .kind(Gvk {
                group,
                version,
                kind,
            })
            .ok_or_else(|| StatusError::internal(format!("no schema of {group}/{version} {kind}")))
    }

    /// The object in the form of `kind`: views translate.
    pub(crate) fn shown(kind: &Kind, obj: &Obj) -> Value {
        match &kind.view {
            Some(view) => view.show(obj.value()),
            None => obj.value(),
        }
    }

    /// The current time as the API writes it.
    pub(crate) fn now_text(&self) -> String {
        timestamp((self.clock)())
    }
}

/// RFC 3339 with whole seconds.
pub(crate) fn timestamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A fresh `metadata.uid`.
pub(crate) fn new_uid() -> String {
    uuid::Uuid::new_v4().to_string()
}

#[cfg(test)]
mod admission_tests;
#[cfg(test)]
mod tests;
