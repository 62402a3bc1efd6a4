//! Nobody grants what they do not hold: checks on writes of roles and bindings.
//!
//! The cluster's owners are not asked, nor who holds the verb `escalate` on the role or `bind` on
//! the role that a binding names.

use serde_json::Value;

use super::Admission;
use crate::auth::rbac::{compact, uncovered};
use crate::auth::{Attributes, MASTERS, PolicyRule, User};
use crate::object::ObjKey;
use crate::registry::rbac::GROUP;
use crate::server::Target;
use crate::status::{GroupResource, StatusError};
use crate::tree;

impl Admission {
    pub(super) fn check_escalation(
        &self,
        target: &Target,
        user: &User,
        new: &Value,
        old: Option<&Value>,
    ) -> Result<(), StatusError> {
        if target.kind.group != GROUP || user.in_group(MASTERS) {
            return Ok(());
        }
        if target.kind.plural.ends_with("bindings") {
            return self.check_binding(target, user, new, old);
        }
        let unchanged = |old: &Value| {
            ["rules", "aggregationRule"]
                .iter()
                .all(|field| tree::same(tree::at(new, &[field]), tree::at(old, &[field])))
        };
        if old.is_some_and(unchanged) || self.holds(user, "escalate", target, &target.key.name) {
            return Ok(());
        }
        let held = self.authorizer.rules_of(user, &target.key.namespace);
        refuse_missing(target, user, &held, &PolicyRule::all_of(new))?;
        let collects = |role: &Value| tree::at(role, &["aggregationRule"]).is_object();
        if (collects(new) || old.is_some_and(collects))
            && !uncovered(&held, &PolicyRule::everything()).is_empty()
        {
            let why = "must have cluster-admin privileges to use the aggregationRule";
            return Err(forbidden(target, why));
        }
        Ok(())
    }

    fn check_binding(
        &self,
        target: &Target,
        user: &User,
        new: &Value,
        old: Option<&Value>,
    ) -> Result<(), StatusError> {
        let unchanged = |old: &Value| {
            ["roleRef", "subjects"]
                .iter()
                .all(|field| tree::same(tree::at(new, &[field]), tree::at(old, &[field])))
        };
        if old.is_some_and(unchanged) {
            return Ok(());
        }
        let role = tree::text(new, &["roleRef", "name"]);
        let (plural, namespace) = match tree::text(new, &["roleRef", "kind"]) {
            "Role" => ("roles", &*target.key.namespace),
            _ => ("clusterroles", ""),
        };
        let bind = Attributes {
            verb: "bind".to_owned(),
            group: GROUP.to_owned(),
            version: "v1".to_owned(),
            resource: plural.to_owned(),
            namespace: target.key.namespace.to_string(),
            name: role.to_owned(),
            ..Attributes::default()
        };
        if self.authorizer.authorize(user, &bind).is_allowed() {
            return Ok(());
        }
        let Some(rules) = self
            .authorizer
            .rbac()
            .rules_of_role(&ObjKey::new(namespace, role))
        else {
            let gr = GroupResource {
                group: GROUP,
                resource: plural,
            };
            return Err(StatusError::not_found(gr, role));
        };
        let held = self.authorizer.rules_of(user, &target.key.namespace);
        refuse_missing(target, user, &held, &rules)
    }

    /// Whether `user` has `verb` on the object of `target`.
    fn holds(&self, user: &User, verb: &str, target: &Target, name: &str) -> bool {
        let asked = Attributes {
            verb: verb.to_owned(),
            group: target.kind.group.to_owned(),
            version: target.kind.version.to_owned(),
            resource: target.kind.plural.to_owned(),
            namespace: target.key.namespace.to_string(),
            name: name.to_owned(),
            ..Attributes::default()
        };
        self.authorizer.authorize(user, &asked).is_allowed()
    }
}

fn refuse_missing(
    target: &Target,
    user: &User,
    held: &[PolicyRule],
    wanted: &[PolicyRule],
) -> Result<(), StatusError> {
    let missing = uncovered(held, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let groups: Vec<String> = user.groups.iter().map(|g| format!("{g:?}")).collect();
    let lines: Vec<String> = missing.iter().map(compact).collect();
    let why = format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        groups.join(" "),
        lines.join("\n")
    );
    Err(forbidden(target, &why))
}

fn forbidden(target: &Target, why: &str) -> StatusError {
    StatusError::forbidden(target.kind.group_resource(), &target.key.name, why)
}
