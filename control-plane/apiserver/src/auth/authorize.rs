//! Authorisation: what is asked, and the chain that answers.
//!
//! Owns: the order of those who may allow. Each only allows; nothing forbids what another allows.
//! In order: the cluster's owners, the node authoriser, roles.

use std::sync::Arc;

use super::node::NodeAuthorizer;
use super::rbac::{PolicyRule, Rbac};
use super::{MASTERS, User};
use crate::cache::WatchCache;
use crate::registry::Registry;

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `get`, `list`, `create`, … ; lower-case HTTP method for other paths.
    pub verb: String,
    /// API group, empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural; empty for paths that name no resource.
    pub resource: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Object name, or empty.
    pub name: String,
    /// Field selector of a list or watch, as sent.
    pub fields: String,
    /// The path, for requests that name no resource.
    pub path: String,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Allowed {
        /// Why.
        reason: Arc<str>,
    },
    /// Nothing allows it.
    Denied {
        /// Why not, where there is more to say than that.
        reason: Arc<str>,
    },
}

impl Decision {
    /// Whether it may.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed { .. })
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> &str {
        let (Self::Allowed { reason } | Self::Denied { reason }) = self;
        reason
    }

    pub(super) fn allowed(reason: &str) -> Self {
        Self::Allowed {
            reason: Arc::from(reason),
        }
    }

    pub(super) fn denied() -> Self {
        Self::Denied {
            reason: Arc::default(),
        }
    }
}

/// Decides whether a user may do something. Reads the watch cache; holds no state of its own but
/// indexes of it, which follow the cache before every decision.
#[derive(Debug)]
pub struct Authorizer {
    nodes: NodeAuthorizer,
    rbac: Rbac,
}

impl Authorizer {
    /// An authoriser that reads `cache`.
    #[must_use]
    pub fn new(cache: &WatchCache, registry: &Registry) -> Self {
        Self {
            nodes: NodeAuthorizer::new(cache, registry),
            rbac: Rbac::new(cache, registry),
        }
    }

    /// The decision for one request.
    #[must_use]
    pub fn authorize(&self, user: &User, attributes: &Attributes) -> Decision {
        if user.in_group(MASTERS) {
            return Decision::allowed("member of system:masters");
        }
        let by_node = self.nodes.authorize(user, attributes);
        if let Some(Decision::Allowed { .. }) = by_node {
            return Decision::allowed("node");
        }
        match self.rbac.authorize(user, attributes) {
            Decision::Denied { .. } => by_node.unwrap_or_else(Decision::denied),
            allowed @ Decision::Allowed { .. } => allowed,
        }
    }

    /// Every rule that roles give `user` in `namespace` (empty: in the cluster).
    #[must_use]
    pub fn rules_of(&self, user: &User, namespace: &str) -> Vec<PolicyRule> {
        let mut rules = Vec::new();
        if user.in_group(MASTERS) {
            rules.extend(PolicyRule::everything());
        }
        rules.extend(self.rbac.rules_of(user, namespace));
        rules
    }

    /// The roles that the bindings name.
    pub(crate) const fn rbac(&self) -> &Rbac {
        &self.rbac
    }
}
