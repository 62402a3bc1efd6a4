//! NamespaceLifecycle: nothing is created where no namespace is, or in one that is going.

use super::Admission;
use crate::object::ObjKey;
use crate::server::Target;
use crate::status::{Cause, GroupResource, StatusError};

/// Namespaces that are never deleted.
const IMMORTAL: &[&str] = &["default", "kube-public", "kube-system"];
const NAMESPACES: GroupResource = GroupResource {
    group: "",
    resource: "namespaces",
};

impl Admission {
    pub(super) fn check_namespace(&self, target: &Target) -> Result<(), StatusError> {
        if !target.kind.namespaced() {
            return Ok(());
        }
        let name = &*target.key.namespace;
        let found = self
            .registry
            .by_plural("", "v1", "namespaces")
            .and_then(|kind| self.cache.of(&kind).get(&ObjKey::new("", name)));
        let Some(namespace) = found else {
            return Err(StatusError::not_found(NAMESPACES, name));
        };
        if !namespace.meta.terminating {
            return Ok(());
        }
        let why = format!(
            "unable to create new content in namespace {name} because it is being terminated"
        );
        let mut error =
            StatusError::forbidden(target.kind.group_resource(), &target.key.name, &why);
        if let Some(details) = &mut error.details {
            details.causes.push(Cause {
                reason: "NamespaceTerminating".to_owned(),
                message: format!("namespace {name} is being terminated"),
                field: "metadata.namespace".to_owned(),
            });
        }
        Err(error)
    }
}

pub(super) fn check_delete(target: &Target) -> Result<(), StatusError> {
    if target.kind.kind == "Namespace" && IMMORTAL.contains(&&*target.key.name) {
        let why = "this namespace may not be deleted";
        return Err(StatusError::forbidden(NAMESPACES, &target.key.name, why));
    }
    Ok(())
}
