//! The rules of a custom kind's objects: those of its schema.

use std::sync::Arc;

use control_plane_apiextensions::{Rules, Schema, default, prune, validate, validate_changed};
use serde_json::Value;

use super::field_error;
use crate::field::FieldError;
use crate::registry::{Prepare, Strategy, keep_all_but_status};
use crate::tree;

/// A custom kind in one version.
#[derive(Debug)]
pub(super) struct Custom {
    pub(super) schema: Arc<Schema>,
    pub(super) status: bool,
    /// The schema's rules in CEL.
    pub(super) rules: Rules,
    /// Told to who writes in this version.
    pub(super) warning: Option<String>,
}

impl Custom {
    /// Rules speak of objects that are otherwise right.
    fn broken_rules(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        if self.rules.is_empty() {
            return Vec::new();
        }
        let wrong = match old {
            Some(old) => validate_changed(&self.schema, object, old),
            None => validate(&self.schema, object),
        };
        if !wrong.is_empty() {
            return Vec::new();
        }
        let broken = self.rules.evaluate(&self.schema, object, old);
        broken.into_iter().map(field_error).collect()
    }
}

impl Strategy for Custom {
    fn has_generation(&self) -> bool {
        true
    }

    fn generation_counts_status(&self) -> bool {
        !self.status
    }

    fn updates_unconditionally(&self) -> bool {
        false
    }

    fn has_status(&self) -> bool {
        self.status
    }

    fn default(&self, object: &mut Value) {
        // What a patch, an apply or a webhook made may hold unknown fields again.
        prune(&self.schema, object);
        default(&self.schema, object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, write: Prepare) {
        match write {
            Prepare::Main if self.status => tree::carry(new, old, "status"),
            Prepare::Main => {}
            Prepare::Status | Prepare::Approval => keep_all_but_status(new, old),
        }
    }

    fn deprecation(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        validate(&self.schema, object)
            .into_iter()
            .map(field_error)
            .collect()
    }

    fn validate_changed(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let found = validate_changed(&self.schema, new, old);
        found.into_iter().map(field_error).collect()
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        self.broken_rules(object, None)
    }

    fn validate_update(&self, new: &Value, old: &Value, _write: Prepare) -> Vec<FieldError> {
        self.broken_rules(new, Some(old))
    }
}
