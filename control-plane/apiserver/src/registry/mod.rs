//! The registry: every kind as data (names, scope, fields, columns) plus a strategy (its rules).
//!
//! Owns: the one table of kinds, and the place of those that are made at run time. Must not know:
//! HTTP, storage. Handlers, discovery, cache and tables read it; nothing else in the server names
//! a kind.

mod admission_policy;
mod admission_rules;
mod autoscaling;
mod batch;
mod certificate_request;
mod component_status;
mod config_map;
mod controller_revision;
mod csi;
mod custom_resource_definition;
mod daemon_set;
mod endpoint_slice;
mod endpoints;
mod event;
pub(crate) mod flow_control;
mod ingress;
mod intern;
mod kinds;
mod lease;
mod limit_range;
mod namespace;
mod network_policy;
mod node;
pub(crate) mod pod;
mod pod_disruption_budget;
mod pod_template;
pub(crate) mod priority_class;
pub(crate) mod rbac;
mod replication_controller;
mod resource_quota;
mod row;
mod runtime_class;
mod secret;
mod selectable;
pub(crate) mod service;
mod service_account;
pub(crate) mod service_address;
mod stateful_set;
mod storage_class;
mod strategy;
mod trust_bundle;
mod version;
mod volume;
mod volume_claim;
mod webhook_configuration;
mod workload;

use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwap;
use proto_api::schema::Gvk;
use serde_json::Value;

use crate::custom::{Conversion, CustomVersion};
use crate::object::Peek;
use crate::status::GroupResource;
pub use crate::tables::Printer;

pub(crate) use self::intern::intern;
pub use self::selectable::{FieldReader, Selectable};
pub(crate) use self::strategy::keep_all_but_status;
pub use self::strategy::{Graceful, NameRule, Prepare, Strategy};
pub(crate) use self::version::by_preference;
pub(crate) use self::workload::scale_selector;

/// Where objects of a kind live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In a namespace.
    Namespaced,
    /// In the cluster.
    Cluster,
}

/// A path below an object with rules of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subresource {
    /// The status alone.
    Status,
    /// `autoscaling/v1` Scale.
    Scale,
    /// Assigns a pod to a node.
    Binding,
    /// Asks for a pod to be deleted within the rules.
    Eviction,
    /// A container's log.
    Log,
    /// Runs a command.
    Exec,
    /// Joins a running process.
    Attach,
    /// Connects to ports of a pod.
    Portforward,
    /// Passes requests on to what answers there.
    Proxy,
    /// Adds containers to a running pod.
    Ephemeralcontainers,
    /// Changes the resources of a running pod.
    Resize,
    /// Issues a service account token.
    Token,
    /// Removes a namespace's own finalizers.
    Finalize,
    /// Approves or denies a certificate request.
    Approval,
}

impl Subresource {
    /// Its path segment.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::Log => "log",
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::Portforward => "portforward",
            Self::Proxy => "proxy",
            Self::Ephemeralcontainers => "ephemeralcontainers",
            Self::Resize => "resize",
            Self::Token => "token",
            Self::Finalize => "finalize",
            Self::Approval => "approval",
        }
    }

    /// Group, version and kind of its body, where they differ from the parent's.
    #[must_use]
    pub const fn body(self) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Self::Scale => Some(("autoscaling", "v1", "Scale")),
            Self::Binding => Some(("", "v1", "Binding")),
            Self::Eviction => Some(("policy", "v1", "Eviction")),
            Self::Token => Some(("authentication.k8s.io", "v1", "TokenRequest")),
            Self::Exec => Some(("", "v1", "PodExecOptions")),
            Self::Attach => Some(("", "v1", "PodAttachOptions")),
            Self::Portforward => Some(("", "v1", "PodPortForwardOptions")),
            Self::Proxy
            | Self::Ephemeralcontainers
            | Self::Resize
            | Self::Status
            | Self::Log
            | Self::Finalize
            | Self::Approval => None,
        }
    }

    /// The kind that discovery shows for it below objects of `parent`.
    #[must_use]
    pub fn shown_kind(self, parent: &'static str) -> &'static str {
        match (self, parent) {
            (Self::Proxy, "Pod") => "PodProxyOptions",
            (Self::Proxy, "Service") => "ServiceProxyOptions",
            (Self::Proxy, "Node") => "NodeProxyOptions",
            _ => self.body().map_or(parent, |(_, _, kind)| kind),
        }
    }

    /// The verbs it answers.
    #[must_use]
    pub const fn verbs(self) -> &'static [&'static str] {
        match self {
            Self::Status
            | Self::Scale
            | Self::Approval
            | Self::Ephemeralcontainers
            | Self::Resize => &["get", "patch", "update"],
            Self::Binding | Self::Eviction | Self::Token => &["create"],
            Self::Log => &["get"],
            Self::Exec | Self::Attach | Self::Portforward => &["create", "get"],
            Self::Proxy => &["create", "delete", "get", "patch", "update"],
            Self::Finalize => &["update"],
        }
    }
}

/// Translates between the stored form of an object and another group's or version's.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// `apiVersion` of the stored form.
    pub stored: &'static str,
    /// From the stored form.
    pub show: fn(Value) -> Value,
    /// To the stored form.
    pub store: fn(Value) -> Value,
}

/// A part of a kind: of the table of built-in kinds, or made at run time and shared.
#[derive(Debug)]
pub enum Part<T: ?Sized + 'static> {
    /// From the table.
    Static(&'static T),
    /// Made of a custom resource definition.
    Shared(Arc<T>),
}

impl<T: ?Sized> Deref for Part<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Static(part) => part,
            Self::Shared(part) => part,
        }
    }
}

/// How a kind's objects are translated to and from the stored form.
#[derive(Debug)]
pub enum Translation {
    /// Between groups.
    View(View),
    /// Between versions that differ in nothing but `apiVersion`.
    Version {
        /// The kind's own.
        shown: String,
        /// That of the stored form.
        stored: String,
    },
    /// Between versions, by a webhook: never here, but where an object comes from or goes to the
    /// store (`server/convert.rs`).
    Webhook {
        /// Who is asked.
        conversion: Arc<Conversion>,
        /// The version that objects are stored in.
        stored: StoredVersion,
    },
}

/// The version that a custom kind's objects are stored in.
#[derive(Debug, Clone)]
pub struct StoredVersion {
    /// Its `apiVersion`.
    pub(crate) api_version: String,
    /// What objects look like in it.
    pub(crate) custom: Arc<CustomVersion>,
}

impl Translation {
    /// From the stored form.
    #[must_use]
    pub fn show(&self, object: Value) -> Value {
        match self {
            Self::View(view) => (view.show)(object),
            Self::Version { shown, .. } => with_version(object, shown),
            Self::Webhook { .. } => object,
        }
    }

    /// To the stored form.
    #[must_use]
    pub fn store(&self, object: Value) -> Value {
        match self {
            Self::View(view) => (view.store)(object),
            Self::Version { stored, .. } => with_version(object, stored),
            Self::Webhook { .. } => object,
        }
    }
}

fn with_version(mut object: Value, api_version: &str) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".to_owned(), Value::from(api_version));
    }
    object
}

/// One kind in one version. Names are interned (see [`intern()`]), so they outlive the kind.
#[derive(Debug)]
pub struct Kind {
    /// API group, empty for core.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Kind as in objects.
    pub kind: &'static str,
    /// Kind of lists of them.
    pub list_kind: &'static str,
    /// Plural as in paths.
    pub plural: &'static str,
    /// Singular, lower case.
    pub singular: &'static str,
    /// Short names that kubectl understands.
    pub short: Box<[&'static str]>,
    /// Categories, for example `all`.
    pub categories: Box<[&'static str]>,
    /// Where objects live.
    pub scope: Scope,
    /// Paths below an object.
    pub subresources: Box<[Subresource]>,
    /// Selectable fields beside `metadata.name` and `metadata.namespace`.
    pub fields: Selectable,
    /// Printer columns.
    pub table: Part<dyn Printer>,
    /// The kind's rules.
    pub strategy: Part<dyn Strategy>,
    /// The group whose storage holds the objects; may differ from `group` for a view.
    pub storage_group: &'static str,
    /// How a view translates; `None` when objects are stored as they are shown.
    pub view: Option<Translation>,
    /// What a custom kind's objects look like; `None` for built-in kinds.
    pub custom: Option<Arc<CustomVersion>>,
}

impl Kind {
    /// `apiVersion` of objects.
    #[must_use]
    pub fn api_version(&self) -> String {
        group_version(self.group, self.version)
    }

    /// Group, version and kind of objects.
    #[must_use]
    pub const fn gvk(&self) -> Gvk<'static> {
        Gvk {
            group: self.group,
            version: self.version,
            kind: self.kind,
        }
    }

    /// Whether the kind is another face of a kind of another group.
    #[must_use]
    pub const fn is_view(&self) -> bool {
        matches!(self.view, Some(Translation::View(_)))
    }

    /// `apiVersion` of objects on their way to the store; a webhook may change it there.
    #[must_use]
    pub fn stored_api_version(&self) -> String {
        match &self.view {
            Some(Translation::Version { stored, .. }) => stored.clone(),
            Some(Translation::View(view)) => view.stored.to_owned(),
            Some(Translation::Webhook { .. }) | None => self.api_version(),
        }
    }

    /// How a webhook converts the objects, where one does.
    pub(crate) fn conversion(&self) -> Option<&Arc<Conversion>> {
        match &self.view {
            Some(Translation::Webhook { conversion, .. }) => Some(conversion),
            Some(Translation::View(_) | Translation::Version { .. }) | None => None,
        }
    }

    /// The version that a webhook converts to for the store, where one does.
    pub(crate) const fn stored_version(&self) -> Option<&StoredVersion> {
        match &self.view {
            Some(Translation::Webhook { stored, .. }) => Some(stored),
            Some(Translation::View(_) | Translation::Version { .. }) | None => None,
        }
    }

    /// How messages name the resource.
    #[must_use]
    pub const fn group_resource(&self) -> GroupResource {
        GroupResource {
            group: self.group,
            resource: self.plural,
        }
    }

    /// Whether objects live in a namespace.
    #[must_use]
    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// The subresource named `name`, if the kind has it.
    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<Subresource> {
        self.subresources
            .iter()
            .copied()
            .find(|sub| sub.name() == name)
    }

    pub(crate) fn read_fields(&self, peek: &Peek<'_>) -> Box<[Box<str>]> {
        self.fields.read(peek)
    }
}

/// `v1` or `apps/v1`.
#[must_use]
pub fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

/// The kinds that custom resource definitions make, replaced as a whole when one changes.
#[derive(Debug, Default)]
struct CustomKinds {
    /// Counts the replacements.
    generation: u64,
    kinds: Vec<Arc<Kind>>,
}

/// All kinds the server serves. Clones share their state.
#[derive(Debug, Clone)]
pub struct Registry {
    builtin: Arc<[Arc<Kind>]>,
    custom: Arc<ArcSwap<CustomKinds>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            builtin: kinds::KINDS
                .iter()
                .map(|row| Arc::new(row.kind()))
                .collect(),
            custom: Arc::default(),
        }
    }
}

impl Registry {
    /// Built-in kinds with storage of their own.
    pub fn kinds(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.builtin.iter().filter(|kind| !kind.is_view())
    }

    /// All kinds as of now, views included, in discovery order.
    #[must_use]
    pub fn served(&self) -> Vec<Arc<Kind>> {
        let custom = self.custom.load();
        self.builtin
            .iter()
            .chain(&custom.kinds)
            .map(Arc::clone)
            .collect()
    }

    /// Another number than before whenever the kinds have changed.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.custom.load().generation
    }

    /// The kind at a path.
    #[must_use]
    pub fn by_plural(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        self.find(|k| k.plural == plural && k.group == group && k.version == version)
    }

    /// The kind of an object in a version.
    #[must_use]
    pub fn by_gvk(&self, gvk: Gvk<'_>) -> Option<Arc<Kind>> {
        self.find(|k| k.group == gvk.group && k.version == gvk.version && k.kind == gvk.kind)
    }

    /// The kind of an object, in its first version.
    #[must_use]
    pub fn by_kind(&self, group: &str, kind: &str) -> Option<Arc<Kind>> {
        self.find(|k| k.group == group && k.kind == kind)
    }

    fn find(&self, wanted: impl Fn(&Kind) -> bool) -> Option<Arc<Kind>> {
        if let Some(kind) = self.builtin.iter().find(|kind| wanted(kind)) {
            return Some(Arc::clone(kind));
        }
        self.custom
            .load()
            .kinds
            .iter()
            .find(|kind| wanted(kind))
            .cloned()
    }

    /// Replaces the custom kinds. Only the cache's one writer calls this.
    pub(crate) fn set_custom(&self, kinds: Vec<Arc<Kind>>) {
        let generation = self.generation() + 1;
        self.custom
            .store(Arc::new(CustomKinds { generation, kinds }));
    }
}

#[cfg(test)]
mod tests;
