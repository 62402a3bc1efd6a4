//! What a kind may decide about its objects' life: defaults, validation, what a write may change.

use std::fmt::Debug;

use serde_json::Value;

use crate::field::FieldError;
use crate::tree;

/// Which names a kind's objects may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain.
    Subdomain,
    /// RFC 1123 label.
    Label,
    /// RFC 1035 label (services before relaxed names).
    Label1035,
    /// Anything that can be a part of a path.
    PathSegment,
    /// An address in its canonical form.
    Ip,
}

/// What kind of write is being prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prepare {
    /// The object itself.
    Main,
    /// Its status.
    Status,
    /// Whether a certificate request is approved.
    Approval,
}

/// How a deletion proceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Graceful {
    /// At once, as far as finalizers allow.
    Now,
    /// After so many seconds, by whoever runs the object.
    After(i64),
}

/// The rules of one kind. All methods are pure.
pub trait Strategy: Debug + Send + Sync {
    /// Which names are allowed.
    fn name_rule(&self) -> NameRule {
        NameRule::Subdomain
    }

    /// Whether `metadata.generation` counts changes of the spec.
    fn has_generation(&self) -> bool {
        false
    }

    /// Whether a change of the status counts too: it has no path of its own then.
    fn generation_counts_status(&self) -> bool {
        false
    }

    /// Whether objects are made when they are read, and cannot be written.
    fn is_virtual(&self) -> bool {
        false
    }

    /// Whether an update may create.
    fn creates_on_update(&self) -> bool {
        false
    }

    /// Whether an update without resourceVersion is allowed.
    fn updates_unconditionally(&self) -> bool {
        true
    }

    /// How long objects live; `None` is for ever.
    fn ttl(&self) -> Option<std::time::Duration> {
        None
    }

    /// Fills fields that the client left out.
    fn default(&self, _object: &mut Value) {}

    /// Makes a new object what it must be at first; by default it has no status.
    fn prepare_create(&self, object: &mut Value) {
        if self.has_status() {
            tree::as_object(object).shift_remove("status");
        }
    }

    /// Whether the kind has a status of its own path.
    fn has_status(&self) -> bool {
        false
    }

    /// Keeps of `old` what this write may not change. The default: the main path keeps the
    /// status, the status path keeps everything else.
    fn prepare_update(&self, new: &mut Value, old: &Value, write: Prepare) {
        match write {
            Prepare::Main if self.has_status() => tree::carry(new, old, "status"),
            Prepare::Main => {}
            Prepare::Status | Prepare::Approval => keep_all_but_status(new, old),
        }
    }

    /// Makes `object` what it must be when its deletion begins.
    fn prepare_delete(&self, _object: &mut Value) {}

    /// Checks the whole of an object that was `old` before. The default forgives nothing of it.
    fn validate_changed(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        self.validate(new)
    }

    /// Checks a new object.
    fn validate(&self, _object: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// Checks a new object beyond [`Strategy::validate`].
    fn validate_create(&self, _object: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// Checks a changed object beyond [`Strategy::validate`].
    fn validate_update(&self, _new: &Value, _old: &Value, _write: Prepare) -> Vec<FieldError> {
        Vec::new()
    }

    /// How the deletion of `object` proceeds, when the client asked for `grace_seconds`.
    fn graceful(&self, _object: &Value, _grace_seconds: Option<i64>) -> Graceful {
        Graceful::Now
    }

    /// Whether dependents stay when a deletion does not say (as upstream, where the kind is older
    /// than garbage collection).
    fn orphans_by_default(&self) -> bool {
        false
    }

    /// The sentence that warns everybody who uses the kind, in any way.
    fn deprecation(&self) -> Option<&str> {
        None
    }

    /// Sentences that warn the client about what it sent.
    fn warnings(&self, _object: &Value) -> Vec<String> {
        Vec::new()
    }
}

/// A status write: everything of `old` except status, and the metadata that carries the
/// precondition.
pub(crate) fn keep_all_but_status(new: &mut Value, old: &Value) {
    let status = new.get("status").cloned();
    let resource_version = tree::at(new, &["metadata", "resourceVersion"]).clone();
    let managers = tree::at(new, &["metadata", "managedFields"]).clone();
    let mut kept = old.clone();
    match status {
        Some(status) => {
            tree::as_object(&mut kept).insert("status".to_owned(), status);
        }
        None => {
            tree::as_object(&mut kept).shift_remove("status");
        }
    }
    if !resource_version.is_null() {
        tree::object_mut(&mut kept, "metadata")
            .insert("resourceVersion".to_owned(), resource_version);
    }
    if !managers.is_null() {
        tree::object_mut(&mut kept, "metadata").insert("managedFields".to_owned(), managers);
    }
    *new = kept;
}
