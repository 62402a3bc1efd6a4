//! What policies and webhooks are asked about: one write, or one connection.

use std::sync::Arc;

use proto_api::schema::Gvk;
use serde_json::{Value, json};

use super::notes::{NoteLevel, Notes};
use crate::auth::User;
use crate::object::ObjKey;
use crate::registry::{Kind, Subresource, group_version};
use crate::server::{DeleteRequest, Propagation, Target, WriteContext, WriteMode};

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    /// As rules name it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// One write, without the object that it makes (which mutation changes): that is told beside.
///
/// Objects are in the form they are stored in; [`Request::shown`] makes another version's of it.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) operation: Operation,
    /// The kind and the place that were asked for.
    pub(crate) target: &'a Target,
    pub(crate) user: &'a Arc<User>,
    pub(crate) dry_run: bool,
    /// CreateOptions, UpdateOptions or DeleteOptions.
    pub(crate) options: Value,
    /// The object as it was; null when it is new.
    pub(crate) old: &'a Value,
    notes: Option<&'a Notes>,
}

impl<'a> Request<'a> {
    /// A creation or an update.
    pub(crate) fn write(
        operation: Operation,
        target: &'a Target,
        old: &'a Value,
        context: &'a WriteContext,
    ) -> Self {
        let kind = match operation {
            Operation::Create => "CreateOptions",
            Operation::Update | Operation::Delete | Operation::Connect => "UpdateOptions",
        };
        let mut options = options(kind, context);
        let asked = [
            ("fieldManager", &context.asked.field_manager),
            ("fieldValidation", &context.asked.field_validation),
        ];
        for (name, value) in asked {
            if let Some(value) = value {
                options[name] = json!(value);
            }
        }
        Self {
            operation,
            target,
            user: &context.user,
            dry_run: context.mode == WriteMode::DryRun,
            options,
            old,
            notes: context.asked.notes.as_deref(),
        }
    }

    /// A deletion.
    pub(crate) fn delete(
        target: &'a Target,
        old: &'a Value,
        request: &DeleteRequest,
        context: &'a WriteContext,
    ) -> Self {
        let mut options = options("DeleteOptions", context);
        if let Some(seconds) = request.grace_seconds {
            options["gracePeriodSeconds"] = json!(seconds);
        }
        if let Some(propagation) = request.propagation {
            options["propagationPolicy"] = json!(match propagation {
                Propagation::Orphan => "Orphan",
                Propagation::Background => "Background",
                Propagation::Foreground => "Foreground",
            });
        }
        let wanted = &request.preconditions;
        let wanted = [
            ("uid", &wanted.uid),
            ("resourceVersion", &wanted.resource_version),
        ];
        for (name, value) in wanted {
            if let Some(value) = value {
                options["preconditions"][name] = json!(value);
            }
        }
        Self {
            operation: Operation::Delete,
            target,
            user: &context.user,
            dry_run: context.mode == WriteMode::DryRun,
            options,
            old,
            notes: context.asked.notes.as_deref(),
        }
    }

    /// A connection; the object told beside says how.
    pub(crate) fn connect(target: &'a Target, context: &'a WriteContext) -> Self {
        Self {
            operation: Operation::Connect,
            target,
            user: &context.user,
            dry_run: false,
            options: Value::Null,
            old: &Value::Null,
            notes: context.asked.notes.as_deref(),
        }
    }

    /// The object's place. A namespace is in itself (as upstream).
    pub(crate) fn namespace(&self) -> &str {
        let ObjKey { namespace, name } = &self.target.key;
        if self.is_namespace() { name } else { namespace }
    }

    pub(crate) fn name(&self) -> &str {
        &self.target.key.name
    }

    /// The subresource's path segment; empty for the object itself.
    pub(crate) fn subresource(&self) -> &'static str {
        self.target.subresource.map_or("", Subresource::name)
    }

    /// Whether it is about a Namespace.
    pub(crate) fn is_namespace(&self) -> bool {
        self.target.kind.group.is_empty() && self.target.kind.plural == "namespaces"
    }

    /// The kind of the objects of this request, when they are shown as `kind` has them.
    pub(crate) fn gvk(&self, kind: &Kind) -> Gvk<'static> {
        let own = Gvk {
            group: kind.group,
            version: kind.version,
            kind: kind.kind,
        };
        let Some(subresource) = self.target.subresource else {
            return own;
        };
        if let Some((group, version, kind)) = subresource.body() {
            return Gvk {
                group,
                version,
                kind,
            };
        }
        Gvk {
            kind: subresource.shown_kind(kind.kind),
            ..own
        }
    }

    /// An object of this request as `kind` (the asked for, or an equivalent of it) shows it.
    pub(crate) fn shown(&self, kind: &Kind, object: &Value) -> Value {
        if object.is_null() || !self.speaks_of_parent() {
            return object.clone();
        }
        match &kind.view {
            Some(view) => view.show(object.clone()),
            None => object.clone(),
        }
    }

    /// Back to the stored form.
    pub(crate) fn stored(&self, kind: &Kind, object: Value) -> Value {
        match &kind.view {
            Some(view) if self.speaks_of_parent() => view.store(object),
            _ => object,
        }
    }

    /// Whether the objects are of the target's kind, and not the body of a subresource.
    fn speaks_of_parent(&self) -> bool {
        self.operation != Operation::Connect
            && self
                .target
                .subresource
                .is_none_or(|sub| sub.body().is_none())
    }

    /// Tells the client, if there is one that listens.
    pub(crate) fn warn(&self, text: &str) {
        if let Some(notes) = self.notes {
            notes.warn(text);
        }
    }

    /// Tells the audit log, if there is one.
    pub(crate) fn annotate(&self, level: NoteLevel, key: &str, value: &str) {
        if let Some(notes) = self.notes {
            notes.annotate(level, key, value);
        }
    }
}

fn options(kind: &str, context: &WriteContext) -> Value {
    let api_version = group_version("meta.k8s.io", "v1");
    let mut options = json!({"kind": kind, "apiVersion": api_version});
    if context.mode == WriteMode::DryRun {
        options["dryRun"] = json!(["All"]);
    }
    options
}
