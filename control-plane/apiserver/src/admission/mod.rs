//! Built-in admission: what the cluster adds to, or refuses of, an otherwise good write.
//!
//! Owns: the order of the plug-ins. Each plug-in is a file; pure but for reading the cache.
//! Order on create: namespace lifecycle, node restriction, role escalation, certificate requests,
//! limits, service account, default tolerations, priority, default classes, pod security. Quotas are counted in the commit. An
//! update or deletion is looked at with the user and the object as it was.

mod certificates;
mod defaults;
pub(crate) mod dynamic;
mod limits;
mod mountable_secrets;
mod namespace;
mod node;
mod pod_security;
mod priority;
pub(crate) mod quota;
mod rbac;
mod service_account;
mod tolerations;

use std::sync::Arc;

use serde_json::Value;

use crate::auth::{Attributes, Authorizer, Decision, User, forbidden};
use crate::cache::WatchCache;
use crate::registry::Registry;
use crate::server::Target;
use crate::status::StatusError;

/// The built-in plug-ins.
#[derive(Debug)]
pub(crate) struct Admission {
    cache: Arc<WatchCache>,
    registry: Registry,
    authorizer: Arc<Authorizer>,
}

impl Admission {
    pub(crate) fn new(
        cache: Arc<WatchCache>,
        registry: Registry,
        authorizer: Arc<Authorizer>,
    ) -> Self {
        Self {
            cache,
            registry,
            authorizer,
        }
    }

    /// Completes or refuses a new object.
    pub(crate) async fn create(
        &self,
        target: &Target,
        user: &User,
        object: &mut Value,
    ) -> Result<(), StatusError> {
        self.check_namespace(target)?;
        Self::check_node_write(target, user, object, None)?;
        self.check_escalation(target, user, object, None)?;
        certificates::complete(target, user, object)?;
        pod_security::check_labels(target, object)?;
        self.check_limits(target, object)?;
        if target.kind.kind == "Pod" {
            self.complete_service_account(target, object).await?;
            tolerations::complete(object);
            self.complete_priority(target, object)?;
        }
        self.check_default_class(target, object)?;
        self.complete_defaults(target, object)?;
        self.check_pod_security(target, object)
    }

    /// Refuses a creation that was asked for as an update by who may only update.
    pub(crate) fn check_may_create(&self, target: &Target, user: &User) -> Result<(), StatusError> {
        let asked = Attributes {
            verb: "create".to_owned(),
            group: target.kind.group.to_owned(),
            version: target.kind.version.to_owned(),
            resource: target.kind.plural.to_owned(),
            namespace: target.key.namespace.to_string(),
            name: target.key.name.to_string(),
            ..Attributes::default()
        };
        match self.authorizer.authorize(user, &asked) {
            Decision::Allowed { .. } => Ok(()),
            Decision::Denied { reason } => Err(forbidden(user, &asked, &reason)),
        }
    }

    /// Refuses a change of `old` to `new`, which is whole: what this write may not change is as
    /// it was.
    pub(crate) fn update(
        &self,
        target: &Target,
        user: &User,
        new: &Value,
        old: &Value,
    ) -> Result<(), StatusError> {
        pod_security::check_labels(target, new)?;
        Self::check_node_write(target, user, new, Some(old))?;
        self.check_default_class(target, new)?;
        self.check_escalation(target, user, new, Some(old))?;
        self.check_ephemeral_secrets(target, new)?;
        self.check_certificate(target, user, new, old)
    }

    /// Refuses the deletion of `old`.
    #[expect(
        clippy::unused_self,
        reason = "plug-ins read the cache, these happen not to"
    )]
    pub(crate) fn delete(
        &self,
        target: &Target,
        user: &User,
        old: &Value,
    ) -> Result<(), StatusError> {
        namespace::check_delete(target)?;
        priority::check_delete(target)?;
        Self::check_node_delete(target, user, old)
    }
}
