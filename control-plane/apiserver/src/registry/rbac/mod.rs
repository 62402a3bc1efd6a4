//! rbac.authorization.k8s.io: roles, and who holds them.
//!
//! Owns: defaults, validation and columns of Role, ClusterRole, RoleBinding, ClusterRoleBinding.
//! What the rules mean is in `auth/rbac`; that nobody grants more than they hold is admission's.

mod binding;
mod role;

use crate::registry::Scope;

pub(super) use self::binding::{BINDING_TABLE, CLUSTER_ROLE_BINDING, ROLE_BINDING};
pub(super) use self::role::{CLUSTER_ROLE, ROLE, ROLE_TABLE};

/// The group.
pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";

#[cfg(test)]
mod tests;

const fn is_namespaced(scope: Scope) -> bool {
    matches!(scope, Scope::Namespaced)
}
