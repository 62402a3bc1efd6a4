//! The registry: every kind as data (names, scope, fields, columns) plus a strategy (its rules).
//!
//! Owns: the one table of kinds. Must not know: HTTP, storage. Handlers, discovery, cache and
//! tables read it; nothing else in the server names a kind.

mod config_map;
mod endpoint_slice;
mod endpoints;
mod event;
mod kinds;
mod lease;
mod namespace;
mod node;
pub(crate) mod pod;
mod secret;
pub(crate) mod service;
mod service_account;
mod strategy;
mod workload;

use crate::object::Peek;
use crate::status::GroupResource;
pub use crate::tables::Table;

pub use self::strategy::{Graceful, NameRule, Prepare, Strategy};
pub(crate) use self::workload::selector_text;

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
    /// Issues a service account token.
    Token,
    /// Removes a namespace's own finalizers.
    Finalize,
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
            Self::Token => "token",
            Self::Finalize => "finalize",
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
            Self::Status | Self::Log | Self::Finalize => None,
        }
    }

    /// The verbs it answers.
    #[must_use]
    pub const fn verbs(self) -> &'static [&'static str] {
        match self {
            Self::Status | Self::Scale => &["get", "patch", "update"],
            Self::Binding | Self::Eviction | Self::Token => &["create"],
            Self::Log => &["get"],
            Self::Exec | Self::Attach => &["create", "get"],
            Self::Finalize => &["update"],
        }
    }
}

/// How a selectable field is read.
pub type FieldReader = fn(&Peek<'_>) -> Box<str>;

/// Translates between the stored form of an object and the form of another group.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// From the stored form.
    pub show: fn(serde_json::Value) -> serde_json::Value,
    /// To the stored form.
    pub store: fn(serde_json::Value) -> serde_json::Value,
}

/// One kind.
#[derive(Debug)]
pub struct Kind {
    /// API group, empty for core.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Kind as in objects.
    pub kind: &'static str,
    /// Plural as in paths.
    pub plural: &'static str,
    /// Singular, lower case.
    pub singular: &'static str,
    /// Short names that kubectl understands.
    pub short: &'static [&'static str],
    /// Categories, for example `all`.
    pub categories: &'static [&'static str],
    /// Where objects live.
    pub scope: Scope,
    /// Paths below an object.
    pub subresources: &'static [Subresource],
    /// Selectable fields beside `metadata.name` and `metadata.namespace`.
    pub fields: &'static [(&'static str, FieldReader)],
    /// Printer columns.
    pub table: &'static Table,
    /// The kind's rules.
    pub strategy: &'static dyn Strategy,
    /// The group whose storage holds the objects; differs from `group` for a view.
    pub storage_group: &'static str,
    /// How a view translates; `None` when objects are stored as they are shown.
    pub view: Option<View>,
}

impl Kind {
    /// `apiVersion` of objects.
    #[must_use]
    pub fn api_version(&self) -> String {
        group_version(self.group, self.version)
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
        self.fields.iter().map(|(_, read)| read(peek)).collect()
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

/// All kinds the server serves.
#[derive(Debug, Clone, Copy)]
pub struct Registry {
    kinds: &'static [Kind],
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            kinds: kinds::KINDS,
        }
    }
}

impl Registry {
    /// Kinds with storage of their own.
    pub fn kinds(&self) -> impl Iterator<Item = &'static Kind> + use<> {
        self.kinds.iter().filter(|kind| kind.view.is_none())
    }

    /// All kinds, views included, in discovery order.
    pub fn served(&self) -> impl Iterator<Item = &'static Kind> + use<> {
        self.kinds.iter()
    }

    /// The kind at a path.
    #[must_use]
    pub fn by_plural(&self, group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
        self.kinds
            .iter()
            .find(|k| k.group == group && k.version == version && k.plural == plural)
    }

    /// The kind of an object.
    #[must_use]
    pub fn by_kind(&self, group: &str, kind: &str) -> Option<&'static Kind> {
        self.kinds
            .iter()
            .find(|k| k.group == group && k.kind == kind)
    }
}

#[cfg(test)]
mod tests;
