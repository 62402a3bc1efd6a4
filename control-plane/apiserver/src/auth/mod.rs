//! Who asks, and may they: client certificates, service account tokens, authorisation.

mod authorize;
mod bound;
mod certificate;
mod node;
pub(crate) mod rbac;
mod refusal;
mod token;

use std::collections::BTreeMap;

pub use self::authorize::{Attributes, Authorizer, Decision};
pub(crate) use self::bound::{bootstrap_token_user, check_bound};
pub(crate) use self::certificate::certificate_user;
pub(crate) use self::node::{claims_audience, node_name};
pub use self::rbac::PolicyRule;
pub(crate) use self::refusal::forbidden;
pub use self::token::{
    ClaimsError, ISSUER, IssueRequest, IssuedToken, TokenKeyError, TokenKeys, TokenSubject,
};

/// Group of the cluster's owners: everything is allowed.
pub const MASTERS: &str = "system:masters";
/// Group of the nodes.
pub const NODES: &str = "system:nodes";
/// Group of everybody who is known.
pub const AUTHENTICATED: &str = "system:authenticated";

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// User name.
    pub name: String,
    /// Uid, empty when the credential has none.
    pub uid: String,
    /// Groups, `system:authenticated` included.
    pub groups: Vec<String>,
    /// What else the credential says.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A user that a credential named, with its groups.
    #[must_use]
    pub fn known(name: &str, groups: impl IntoIterator<Item = String>) -> Self {
        let mut groups: Vec<String> = groups.into_iter().collect();
        groups.push(AUTHENTICATED.to_owned());
        Self {
            name: name.to_owned(),
            groups,
            ..Self::default()
        }
    }

    /// Nobody that is known.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            name: "system:anonymous".to_owned(),
            groups: vec!["system:unauthenticated".to_owned()],
            ..Self::default()
        }
    }

    /// The control plane itself.
    #[must_use]
    pub fn control_plane(component: &str) -> Self {
        Self::known(&format!("system:{component}"), [MASTERS.to_owned()])
    }

    /// Whether the user is in `group`.
    #[must_use]
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}
