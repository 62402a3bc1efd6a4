//! Custom resources: definitions become kinds of the registry, and their objects are checked by
//! schema instead of by code.
//!
//! Owns: what stands between `control-plane-apiextensions` (pure rules) and the one path that all
//! kinds take. `kind.rs` makes kinds of a definition, `strategy.rs` and `table.rs` are their parts,
//! `object.rs` reads bodies, `install.rs` keeps the registry and the cache in step with the stored
//! definitions, `controller.rs` answers for conditions and clean-up. Definitions are followed by the
//! cache's one writer, so a kind is served as soon as the write that established it is answered.

mod controller;
mod conversion;
mod install;
mod kind;
mod object;
mod strategy;
mod table;

use std::sync::Arc;

use control_plane_apiextensions::{Reason, Scale, Schema, Violation};
use proto_api::schema::{self, TypeId};
use serde_json::Value;

pub(crate) use self::controller::run;
pub(crate) use self::conversion::Conversion;
pub(crate) use self::install::{Installed, Stray};
pub(crate) use self::object::{check, decode};
use crate::field::{FieldError, Path};

/// The finalizer of a definition: its objects go first.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// What the objects of a custom kind look like in one version.
#[derive(Debug)]
pub struct CustomVersion {
    /// Their schema.
    pub(crate) schema: Arc<Schema>,
    /// `openAPIV3Schema` as it is written.
    pub(crate) source: Value,
    /// The schema as server-side apply reads it.
    pub(crate) typed: schema::Schema,
    /// The objects' type in it.
    pub(crate) type_id: TypeId,
    /// Where replicas are, if there is a scale.
    pub(crate) scale: Option<Scale>,
    /// The definition is being deleted: nothing is created any more.
    pub(crate) terminating: bool,
}

/// A violation as the API tells it.
pub(crate) fn field_error(violation: Violation) -> FieldError {
    let Violation {
        path,
        reason,
        detail,
    } = violation;
    let path = if path.is_empty() { "<nil>" } else { &path };
    let path = Path::root(path);
    match reason {
        Reason::Required => FieldError::required(&path, detail),
        Reason::Invalid(value) => FieldError::invalid(&path, value, detail),
        Reason::Type(value) => FieldError::type_invalid(&path, value, detail),
        Reason::NotSupported { value, supported } => {
            FieldError::not_supported_value(&path, &value, supported)
        }
        Reason::Duplicate(value) => FieldError::duplicate(&path, value),
        Reason::Forbidden => FieldError::forbidden(&path, detail),
        Reason::TooLong(max) => FieldError::too_long(&path, max),
        Reason::TooMany { count, max } => FieldError::too_many(&path, count, max),
    }
}
